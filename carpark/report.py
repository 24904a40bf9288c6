"""The table that ends a run: what was published, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from rich.table import Table

from carpark.domain.queues import WORK
from carpark.records import Backlog


@dataclass(frozen=True)
class Report:
    """What happened to everything that was published.

    Args:
        published: Events that the generators sent, each counted once.
        duplicates: Events that came again and had no effect.
        rejected: Messages that were not events.
        recorded: Entries that were recorded.
        matched: Exits that were joined with an entry.
        unmatched: Exits whose entry never came.
        abandoned: Entries that a later entry of the same plate superseded for good.
        inside: Vehicles inside at the end.
        summaries: Stays that were finished.
        undelivered: Summaries that a sink has not taken, once for each such sink.
        dead: Dead letters.
    """

    published: int
    duplicates: int
    rejected: int
    recorded: int
    matched: int
    unmatched: int
    abandoned: int
    inside: int
    summaries: int
    undelivered: int
    dead: int

    @classmethod
    def of_counts(
        cls,
        counts: Mapping[str, int],
        *,
        published: int = 0,
        inside: int = 0,
        undelivered: int = 0,
        dead: int = 0,
    ) -> Report:
        """Make the report of the records' counts.

        Args:
            counts: ``carpark:counts``, as `carpark.records.Records.counts` reads it.
            published: Events that were sent.
            inside: Vehicles inside.
            undelivered: Summaries that a sink has not taken.
            dead: Dead letters.

        Returns:
            The report.
        """

        def count(*names: str) -> int:
            return sum(counts.get(name, 0) for name in names)

        return cls(
            published=published,
            duplicates=count("entry/duplicate", "exit/duplicate"),
            rejected=count("entry/rejected", "exit/rejected"),
            recorded=count("entry/recorded", "entry/matched"),
            matched=count("exit/matched", "entry/matched"),
            unmatched=count("exit/unmatched") - count("entry/matched"),
            abandoned=count("entry/abandoned") - count("entry/reclaimed"),
            inside=inside,
            summaries=count("summaries"),
            undelivered=undelivered,
            dead=dead,
        )

    def sums(self) -> list[tuple[str, bool]]:
        """Say how the numbers add up.

        Returns:
            Each sum in words, and whether it is right.
        """
        accounted = self.recorded + self.matched + self.unmatched + self.duplicates + self.rejected
        entered = self.summaries + self.inside + self.abandoned
        return [
            (
                f"published {self.published} = recorded {self.recorded} + matched {self.matched} + unmatched "
                f"{self.unmatched} + duplicates {self.duplicates} + rejected {self.rejected}",
                self.published == accounted,
            ),
            (
                f"recorded {self.recorded} = summaries {self.summaries} + inside {self.inside} + abandoned "
                f"{self.abandoned}",
                self.recorded == entered,
            ),
        ]

    @property
    def adds_up(self) -> bool:
        """Whether every sum is right."""
        return all(right for _, right in self.sums())

    def to_dict(self) -> dict[str, int]:
        """Give the numbers by name.

        Returns:
            Name to number, in the order of the table.
        """
        return asdict(self)

    def table(self) -> Table:
        """Draw the numbers.

        Returns:
            A table for a terminal.
        """
        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_column(style="bold")
        table.add_column(justify="right")
        table.add_column(style="dim")
        for name, number in self.to_dict().items():
            bad = number and name in ("rejected", "undelivered", "dead")
            table.add_row(name, f"[red]{number}[/]" if bad else str(number), _MEANING[name])
        return table


def span(seconds: float) -> str:
    """Say a time for people.

    Args:
        seconds: How long it is.

    Returns:
        ``3 min``, ``2 h``, ``1 day``.
    """
    number, unit = seconds, "s"
    for following, size in (("min", 60), ("h", 60), ("days", 24)):
        if number < size:
            break
        number, unit = number / size, following
    return f"{int(number):,} {'day' if unit == 'days' and int(number) == 1 else unit}"


def summaries(count: int) -> str:
    """Say how many summaries.

    Args:
        count: How many.

    Returns:
        ``1 summary``, ``1,234 summaries``.
    """
    return f"{count:,} {'summary' if count == 1 else 'summaries'}"


def sink_problems(backlog: Backlog) -> list[tuple[str, str]]:
    """Say what is not well with a sink.

    Args:
        backlog: What it has not taken.

    Returns:
        What is wrong, and what to do, for each thing that is wrong.
    """
    sink, found = backlog.sink, []
    waiting = f"{summaries(backlog.waiting)} not yet delivered to sink {sink}, the oldest for {span(backlog.age)}"
    again = f"next attempt in {span(backlog.next_attempt)}" if backlog.next_attempt >= 1 else "next attempt now"
    if backlog.is_stranded:
        advice = (
            f"start one with {sink} in CARPARK_SINKS, or make dead letters of them with `carpark dlq give-up {sink}`"
        )
        found.append((f"{waiting}, and no worker asks for it: none has it, or its call hangs", advice))
    elif backlog.failing is not None:
        said = f"sink {sink} has failed for {span(backlog.failing)} ({backlog.error}); {waiting}, {again}"
        found.append((said, "repair what it writes to; nothing is lost meanwhile"))
    elif backlog.alone:
        said = f"sink {sink} takes others and not these: {summaries(backlog.alone)}, each tried again alone, {again}"
        found.append((said, f"its log says why{f', last: {backlog.error}' if backlog.error else ''}"))
    if backlog.dead:
        advice = f"see why with `carpark dlq list --queue {WORK} --match {sink}`, then requeue them"
        found.append((f"{summaries(backlog.dead)} given up for sink {sink}", advice))
    return found


_MEANING = {
    "published": "events that the cameras sent",
    "duplicates": "redelivered, ignored",
    "rejected": "were not events",
    "recorded": "entries",
    "matched": "exits joined with their entry",
    "unmatched": "exits whose entry was never seen",
    "abandoned": "entries superseded by another entry of the same plate",
    "inside": "vehicles inside at the end",
    "summaries": "finished stays",
    "undelivered": "summaries not yet delivered, once per sink",
    "dead": "dead letters",
}
