"""What ``carpark run`` shows while it runs: a live view in a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from carpark.domain.events import format_duration
from carpark.domain.report import Report
from carpark.embedded.system import LATEST, Snapshot
from generators.lane import Lane
from generators.service import Watcher

LINE_SECONDS = 2.0
"""Seconds between two lines, where there is no terminal."""

_SHOWN = ("inside", "published", "matched", "unmatched")
_RATE_SECONDS = 3.0
_FRAMES = 5
_WIDTH = 88
_MARGIN = 4  # a terminal echoes ^C behind the last line: on a full line it would begin another one


class View(Watcher):
    """Shows a run."""

    def __init__(self, console: Console, look: Callable[[], Snapshot]) -> None:
        self._console, self._look = console, look
        self._rates = _Rates()
        self._last = time.monotonic()
        self._live: Live | None = None
        self._handler = _LogLines(console)
        if console.is_terminal:
            self._live = Live(console=console, get_renderable=self._draw, refresh_per_second=_FRAMES, transient=True)

    def __enter__(self) -> Self:
        logging.getLogger().addHandler(self._handler)
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live:
            self._live.stop()
        logging.getLogger().removeHandler(self._handler)

    def say(self, line: str) -> None:
        """Print a line, above the live view if there is one."""
        say(self._console, line, "yellow")

    def progress(self, lanes: Sequence[Lane]) -> None:
        """Print a line if it is time for one; a live view draws itself."""
        if not self._live and time.monotonic() - self._last >= LINE_SECONDS:
            self._last = time.monotonic()
            say(self._console, self._line(self._look()))

    def _line(self, snapshot: Snapshot) -> str:
        report, rates = snapshot.report, self._rates.of(snapshot)
        return (
            f"{snapshot.seconds:6.1f} s  published {report.published} ({rates['published']:.0f}/s)  "
            f"inside {report.inside}  matched {report.matched} ({rates['matched']:.0f}/s)  "
            f"unmatched {report.unmatched}  waiting in queues {sum(snapshot.ready.values())}"
            + (f"  not yet delivered {late}" if (late := sum(snapshot.undelivered.values())) else "")
        )

    def _draw(self) -> RenderableType:
        snapshot = self._look()
        notes = [*snapshot.waiting, *([f"dead letters: {dead}"] if (dead := snapshot.report.dead) else [])]
        parts = (self._numbers(snapshot), Text(), self._queues(snapshot), Text(), self._stays(snapshot))
        return Panel(
            Group(*parts, *(Text(note, style="yellow") for note in notes)),
            title=f"car park · {snapshot.seconds:.0f} s",
            subtitle="Ctrl-C: stop the cameras and finish",
            border_style="blue",
            width=min(_WIDTH, self._console.width - _MARGIN),
        )

    def _numbers(self, snapshot: Snapshot) -> Table:
        numbers, rates, shown = snapshot.report.to_dict(), self._rates.of(snapshot), _SHOWN
        table = Table.grid(padding=(0, 3))
        for _ in shown:
            table.add_column(justify="right", min_width=10)
        table.add_row(*shown, style="dim")
        table.add_row(*(f"{numbers[name]:,}" for name in shown), style="bold")
        table.add_row("", *(f"{rates[name]:.1f}/s" for name in shown[1:]))
        return table

    @staticmethod
    def _queues(snapshot: Snapshot) -> Table:
        table = Table.grid(padding=(0, 3))
        for name, count, what in (
            *((queue, count, "waiting") for queue, count in snapshot.ready.items()),
            *((sink, count, "not yet delivered") for sink, count in snapshot.undelivered.items()),
        ):
            table.add_row(Text(name, style="dim"), f"{count:,} {what}")
        return table

    @staticmethod
    def _stays(snapshot: Snapshot) -> Table:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("plate", "in (UTC)", "out (UTC)"):
            table.add_column(name)
        table.add_column("seconds", justify="right")
        for stay in snapshot.latest:
            times = (stay.entry_date_time[11:23], stay.exit_date_time[11:23])
            table.add_row(Text(stay.vehicle_plate, style="bold"), *times, format_duration(round(stay.duration, 3)))
        for _ in range(LATEST - len(snapshot.latest)):
            table.add_row()
        return table


def say(console: Console, line: str, style: str | None = None) -> None:
    """Print text as it is, in lines as long as they are."""
    console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


class _Rates:
    """How fast numbers grow, over the last few seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, Report]] = deque([(0.0, Report.of_counts({}))])

    def of(self, snapshot: Snapshot) -> dict[str, float]:
        """Note a snapshot and give the rates per second."""
        self._seen.append((snapshot.seconds, snapshot.report))
        while len(self._seen) > 2 and self._seen[1][0] < snapshot.seconds - _RATE_SECONDS:
            self._seen.popleft()
        before, report = self._seen[0]
        seconds = max(snapshot.seconds - before, 0.001)
        then, now = report.to_dict(), snapshot.report.to_dict()
        return {name: (now[name] - then[name]) / seconds for name in now}


class _LogLines(logging.Handler):
    """Prints what the rest of the process logs, above the live view.

    Dramatiq's own lines are left out: they tell of each failed attempt, and what matters of it our own lines say.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith("dramatiq."):
            say(self._console, f"{record.levelname.lower()}: {record.getMessage()}", "yellow")
