"""What the page for people shows: numbers and bars, ready for the template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from carpark.domain.events import format_duration
from carpark.ledger import Ledger
from carpark.ledger.index import Index

UNKNOWN = "\N{EM DASH}"
"""What stands where there is nothing to say."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = 20
_CLOCKS_DIFFER = 3600  # seconds that a camera's clock may be ahead before its stays no longer move the chart
_FOR_EVER = 1 << 60


@dataclass(frozen=True)
class Span:
    """A stretch of time that the chart can show."""

    key: str
    label: str
    width: int
    count: int
    unit: str
    tick: str


SPANS = (
    Span("10m", "10 minutes", 10, 60, "10 seconds", "%H:%M:%S"),
    Span("6h", "6 hours", 300, 72, "5 minutes", "%H:%M"),
    Span("3d", "3 days", 3600, 72, "hour", "%a %H:%M"),
    Span("60d", "60 days", 86400, 60, "day", "%d %b"),
)


@dataclass(frozen=True)
class Bar:
    """One bar; lengths in hundredths of the chart's height."""

    x: int
    height: float
    title: str


@dataclass(frozen=True)
class Chart:
    """Stays over time."""

    span: Span
    bars: Sequence[Bar]
    ticks: Sequence[str]
    levels: Sequence[str]
    total: int
    until: str


@dataclass(frozen=True)
class Stay:
    """One line of the table, as texts."""

    id: str
    plate: str
    entered: str
    left: str
    duration: str
    seconds: str


@dataclass(frozen=True)
class View:
    """The whole page."""

    rows: str
    mean: str
    inside: str
    latest_time: str
    latest_day: str
    inside_known: bool
    chart: Chart | None
    stays: Sequence[Stay]
    spans: Sequence[Span] = SPANS


def look(summaries: Ledger, span: str, inside: int | None, now: float) -> View:
    """Gather what the page shows; its cost does not depend on the length of the file."""
    latest = summaries.latest(_LATEST)
    totals = summaries.ask(Index.totals)
    newest = latest[0]["exit_date_time"] if latest else ""
    return View(
        rows=f"{totals.rows:,}",
        mean=human_duration(totals.seconds / totals.rows) if totals.rows else UNKNOWN,
        inside=UNKNOWN if inside is None else f"{inside:,}",
        latest_time=newest[11:19] or UNKNOWN,
        latest_day=newest[:10],
        inside_known=inside is not None,
        chart=_chart(summaries, span, now),
        stays=[_stay(summary) for summary in latest],
    )


def human_duration(seconds: float) -> str:
    """Write a duration as people say it."""
    if seconds < 60:
        return f"{format_duration(round(seconds, 3 if seconds < 1 else 1))} s"
    whole = round(seconds)
    for unit, size, lesser, lesser_size in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            count, rest = whole // size, whole % size // lesser_size
            return f"{count:,} {unit} {rest} {lesser}" if rest else f"{count:,} {unit}"
    return f"{whole} s"


def _stay(summary: dict[str, Any]) -> Stay:
    return Stay(
        id=summary["id"],
        plate=summary["vehicle_plate"],
        entered=_readable(summary["entry_date_time"]),
        left=_readable(summary["exit_date_time"]),
        duration=human_duration(summary["duration"]),
        seconds=format_duration(summary["duration"]),
    )


def _readable(canonical: str) -> str:
    return f"{canonical[:10]} {canonical[11:19]}"


def _bounds(summaries: Ledger, now: float) -> tuple[int, int] | None:
    """Choose what the chart goes back to and ends with: the latest exit, so past and simulated times are drawn too."""
    soon = int(now) + _CLOCKS_DIFFER
    return summaries.ask(lambda index: index.bounds(soon)) or summaries.ask(lambda index: index.bounds(_FOR_EVER))


def _chart(summaries: Ledger, key: str, now: float) -> Chart | None:
    if (bounds := _bounds(summaries, now)) is None:
        return None
    begin, end = bounds
    span = next((one for one in SPANS if one.key == key), None) or _fitting(begin, end)
    last = end // span.width * span.width
    first = last - (span.count - 1) * span.width
    stays = summaries.ask(lambda index: index.stays(span.width, first, last))
    top = _round_up(max(stays.values(), default=1))
    bars = [
        Bar((start - first) // span.width, 100 * count / top, _title(count, start, span))
        for start, count in sorted(stays.items())
    ]
    finish = last + span.width
    ticks = [_write(first + (finish - first) * part // 4, span.tick) for part in range(5)]
    levels = [f"{top:,}", f"{top // 2:,}" if top % 2 == 0 else "", "0"]
    return Chart(span, bars, ticks, levels, sum(stays.values()), _write(finish, "%Y-%m-%d %H:%M:%S"))


def _fitting(begin: int, end: int) -> Span:
    """Choose the shortest span that goes back to the first stay, but at most the one of some days."""
    for span in SPANS[:2]:
        if begin // span.width * span.width > end - span.width * span.count:
            return span
    return SPANS[2]


def _title(count: int, start: int, span: Span) -> str:
    return (
        f"{count:,} {'stay' if count == 1 else 'stays'} ended in the {span.unit} from {_write(start, '%d %b %H:%M:%S')}"
    )


def _round_up(count: int) -> int:
    """Find a round number for the top of the chart."""
    scale = 1
    while True:
        for step in (1, 2, 4, 6, 8):
            if step * scale >= count:
                return step * scale
        scale *= 10


def _write(second: float, form: str) -> str:
    try:
        return (_EPOCH + timedelta(seconds=second)).strftime(form)
    except (OverflowError, ValueError):
        return ""  # outside of the calendar: the chart ends near the year 1 or 9999
