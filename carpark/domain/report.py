"""The table that ends a run: what was published, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from rich.table import Table


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
