"""What the audit found: numbers that must add up, and the rows and events that are wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from carpark.ops.health import sink_problems, summaries
from carpark.records import Backlog


def _counted(meaning: str, *, default: int | None = 0, wrong: bool = False, if_any: bool = False) -> Any:
    """Make a field that is shown: with its meaning, in red if it is wrong, at 0 unless it is only `if_any`."""
    return field(default=default, metadata={"meaning": meaning, "wrong": wrong, "if_any": if_any})


@dataclass
class SinkVerdict:
    name: str
    where: str = ""
    rows: int = 0
    summarised: int = _counted("stays that must be there and are, once")
    undelivered: int = _counted("stays that the records or a queue still hold for it")
    forgotten: int = _counted("stays of plates that were forgotten, without a row", if_any=True)
    lost: int = _counted("stays that must be there and are nowhere", wrong=True)
    duplicated: int = _counted("rows too many of one id", wrong=True)
    unexpected: int = _counted("rows that must not be there", wrong=True)


@dataclass
class Verdict:
    """What the audit found. If all is well the sums of `sums` hold, and what is in red in its table is 0."""

    entries: int = 0
    exits: int = 0
    repeated: int = _counted("lines with an id that had been there before", if_any=True)
    rejected: int = _counted("lines that are no events", if_any=True)
    damaged: int = _counted("of these, in journals, where only events were written", wrong=True, if_any=True)
    pending: int = _counted("events in doubt, queued or dead, without an effect so far", if_any=True)
    recorded: int = _counted("entries")
    matched: int = _counted("exits joined with their entry")
    unmatched: int = _counted("exits whose entry was never seen")
    abandoned: int = _counted("entries superseded by another entry of the same plate")
    forgotten: int = _counted("entries of vehicles that were inside when their plate was forgotten", if_any=True)
    inside: int = _counted("vehicles inside at the end")
    queued: int | None = _counted("messages that wait in the queues", default=None)
    dead: int | None = _counted("dead letters", default=None)
    unread: int = 0
    dead_events: int = _counted("of these, valid events that have had no effect", wrong=True, if_any=True)
    earlier: int = _counted("matched before the time from which summaries are looked at", if_any=True)
    unknown: int = 0
    intruding: int = 0
    records: dict[str, int] = field(default_factory=dict)
    sinks: list[SinkVerdict] = field(default_factory=list)
    findings: dict[str, list[str]] = field(default_factory=dict)
    stranded: list[Backlog] = field(default_factory=list)
    elsewhere: int = 0

    @property
    def published(self) -> int:
        """Events in the journals, each id once."""
        return self.entries + self.exits

    @property
    def lost(self) -> int:
        """Summaries that a sink lacks, events and vehicles that the records lack."""
        return self.unknown + sum(sink.lost for sink in self.sinks)

    @property
    def undelivered(self) -> int:
        """Summaries that a sink has not got yet, once for each sink."""
        return self.elsewhere + sum(sink.undelivered for sink in self.sinks)

    @property
    def duplicated(self) -> int:
        """Rows too many of one id."""
        return sum(sink.duplicated for sink in self.sinks)

    @property
    def unexpected(self) -> int:
        """Rows, and vehicles inside, that must not be there."""
        return self.intruding + sum(sink.unexpected for sink in self.sinks)

    @property
    def ok(self) -> bool:
        """Whether nothing is lost, there twice, dead or unexpected that must not be, and the sums close."""
        wrong = self.lost or self.duplicated or self.unexpected or self.dead_events or self.damaged
        return not wrong and all(right for _, right in self.sums())

    def sums(self) -> Iterator[tuple[str, bool]]:
        """Say how the numbers add up."""
        yield _sum("published", self.published, recorded=self.recorded, matched=self.matched,
                   unmatched=self.unmatched, pending=self.pending)  # fmt: skip
        yield _sum("recorded", self.recorded, matched=self.matched, inside=self.inside, abandoned=self.abandoned,
                   forgotten=self.forgotten)  # fmt: skip
        for sink in self.sinks:
            of = f" ({sink.name})" if len(self.sinks) > 1 else ""
            yield _sum(f"matched{of}", self.matched, summarised=sink.summarised, undelivered=sink.undelivered,
                       lost=sink.lost, earlier=self.earlier, forgotten=sink.forgotten)  # fmt: skip
            yield _sum(f"rows{of}", sink.rows, summarised=sink.summarised, duplicated=sink.duplicated,
                       unexpected=sink.unexpected)  # fmt: skip
        if self.records:
            yield self._records_sum()

    def _records_sum(self) -> tuple[str, bool]:
        parts, all_right = [], True
        for name, number in self.records.items():
            here: int = getattr(self, name)
            # An event in doubt leaves a trace only in what it leads to, so the records may know some more.
            right = 0 <= number - here <= self.pending
            all_right = all_right and right
            parts.append(f"{name} {number}" if right else f"{name} {number}, journals {here}")
        return f"records = journals: {'; '.join(parts)}", all_right

    def to_dict(self) -> dict[str, Any]:
        """Give the numbers by name."""
        return {
            "ok": self.ok,
            "published": self.published,
            **{name: number for name, number, _ in _numbers(self)},
            "lost": self.lost,
            "duplicated": self.duplicated,
            "unexpected": self.unexpected,
            "undelivered": self.undelivered,
            "sinks": {
                sink.name: {"rows": sink.rows, **{name: number for name, number, _ in _numbers(sink)}}
                for sink in self.sinks
            },
            "records": self.records,
            "sums": [{"sum": text, "right": right} for text, right in self.sums()],
            "findings": self.findings,
            "stranded": [{"sink": each.sink, "waiting": each.waiting, "age": each.age} for each in self.stranded],
        }

    def table(self) -> RenderableType:
        """Draw the numbers, the sums and the findings."""
        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_column(style="bold")
        table.add_column(justify="right")
        table.add_column(style="dim", overflow="fold")
        _row(table, "published", self.published, f"{self.entries:,} entries and {self.exits:,} exits")
        _add_numbers(table, self)
        if self.unknown or self.intruding:
            _row(table, "lost", self.unknown, "events and vehicles inside that the records do not know", bad=True)
            _row(table, "unexpected", self.intruding, "vehicles that the records have inside", bad=True)
        for sink in self.sinks:
            table.add_section()
            _row(table, sink.name, sink.rows, f"rows in {sink.where}", style="bold cyan")
            _add_numbers(table, sink)
        return Group(table, Text(), *self._closing())

    def _closing(self) -> Iterator[RenderableType]:
        for text, right in self.sums():
            yield Text(f"{text} {'✓' if right else '✗ does not add up'}", style="green" if right else "bold red")
        for title, lines in self.findings.items():
            yield Text(f"\n{title}", style="bold yellow" if title.startswith("forgotten") else "bold red")
            for line in lines:
                yield Text(f"  {line}", overflow="fold")
        if self.queued or self.unread:
            yield Text(
                "\nmessages still wait in the queues: ask again when the workers have got round to them", "yellow"
            )
        for backlog in self.stranded:
            found, advice = sink_problems(backlog)[0]
            yield Text(f"\n{found}: {advice}", "yellow")
        yield Text(f"\n{self.sentence()}", style="bold green" if self.ok else "bold red")

    def sentence(self) -> str:
        if self.ok:
            late = f"{summaries(self.undelivered)} not yet delivered, nothing else missing" if self.undelivered else ""
            others = f"; lines that are no events: {self.rejected:,}" if self.rejected else ""
            return f"{late or 'nothing lost'}, nothing twice: {self.published:,} events are accounted for{others}"
        said = []
        if self.lost or self.duplicated or self.unexpected:
            said.append(f"{self.lost:,} lost, {self.duplicated:,} duplicated, {self.unexpected:,} unexpected")
        if self.damaged:
            said.append(f"damaged lines in journals: {self.damaged:,}, whose events cannot be accounted for")
        if self.dead_events:
            said.append(
                f"{self.dead_events:,} valid events are dead letters: send them again with `carpark dlq requeue`"
            )
        return "; ".join(said) or "the numbers do not add up"


def _sum(name: str, number: int, **parts: int) -> tuple[str, bool]:
    shown = [f"{part} {value}" for part, value in parts.items() if value or part not in _ONLY_IF_ANY]
    return f"{name} {number} = {' + '.join(shown)}", number == sum(parts.values())


def _numbers(part: Verdict | SinkVerdict) -> Iterator[tuple[str, int | None, Mapping[str, Any]]]:
    for each in fields(part):
        if each.metadata:
            yield each.name, getattr(part, each.name), each.metadata


def _add_numbers(table: Table, part: Verdict | SinkVerdict) -> None:
    for name, number, how in _numbers(part):
        if number or (number == 0 and not how["if_any"]):
            _row(table, name.replace("_", " "), number, how["meaning"], bad=how["wrong"])


def _row(table: Table, name: str, number: int, meaning: str, *, bad: bool = False, style: str = "") -> None:
    table.add_row(Text(name, style=style), Text(f"{number:,}", style="bold red" if bad and number else style), meaning)


_ONLY_IF_ANY = {each.name for part in (Verdict, SinkVerdict) for each in fields(part) if each.metadata.get("if_any")}
