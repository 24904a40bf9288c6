"""The audit, from its sources to its verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from carpark.domain.report import Report
from carpark.errors import InvalidSetting, RecordsUnavailable, one_line
from carpark.ops.audit.facts import INSIDE, Facts, row_of, under_way
from carpark.ops.audit.journals import Published, read_journal
from carpark.ops.audit.judge import Each, Judge, processed
from carpark.ops.audit.queued import Message, QueueContents, read_queues
from carpark.ops.audit.verdict import SinkVerdict, Verdict
from carpark.plugins.base import ReadBack
from carpark.records import Records, open_records
from carpark.records.connection import remedy

Progress = Callable[[str, int, int], None]
"""Hears what is being done, how much of it is done, and how much there is to do; called often."""

_TELL_EVERY = 1 << 20
_TYPICAL_ROW = 110
"""Bytes; how far a sink's own reading has come is not known."""


@dataclass(frozen=True)
class Sources:
    """What the audit looks at."""

    journals: Sequence[Path]
    sinks: Mapping[str, ReadBack] = field(default_factory=dict)
    since: str = ""
    redis_url: str | None = None
    retention: float = 172_800.0
    broker_url: str | None = None
    management_url: str = ""
    partitions: int = 1
    messages: Iterable[Message] | None = None
    counts: Mapping[str, int] | None = None


def audit(sources: Sources, *, show: int = 0, progress: Progress | None = None, each: Each | None = None) -> Verdict:
    """Hold what there is against what the journals' events must come to. It should be at rest meanwhile."""
    verdict = Verdict(sinks=[SinkVerdict(name, kept_there.place) for name, kept_there in sources.sinks.items()])
    records = open_records(sources.redis_url, sources.retention) if sources.redis_url else None
    try:
        with Facts() as facts:
            tell = _Tell(progress or (lambda text, done, total: None))
            _read(sources, facts, verdict, records, tell, show)
            judge = Judge(verdict, sources.since, show, records, sources.retention, each)
            tell.begin("judging", facts.count)
            for plate, known in facts.by_plate():
                judge.judge(plate, known)
                tell.advance(len(known), 10_000)
            judge.finish()
    except RecordsUnavailable as error:
        raise RecordsUnavailable(f"{error}; {remedy(error)}", refuses=error.refuses) from error
    finally:
        if records:
            records.close()
    return verdict


def _read(sources: Sources, facts: Facts, verdict: Verdict, records: Records | None, tell: _Tell, show: int) -> None:
    tell.begin("reading", sum(map(_size, sources.journals)) + sum(each.size for each in sources.sinks.values()))
    published = Published()
    for path in sources.journals:
        read_journal(path, facts, published, show, tell.advance)
    verdict.repeated, verdict.rejected, verdict.damaged = facts.once(), published.rejected, published.damaged
    if published.examples:
        verdict.findings["lines that are no events"] = published.examples
    for number, (sink, back) in enumerate(zip(verdict.sinks, sources.sinks.values(), strict=True)):
        sink.rows, foreign = _read_rows(back, number, facts, sources.since, tell.advance)
        sink.rows += len(foreign)
        sink.unexpected += len(foreign)
        if foreign and show:
            verdict.findings[f"lines that are no summaries, {sink.name}"] = foreign[:show]
    names = list(sources.sinks)
    if records:
        vehicles = records.vehicles()
        facts.add((plate, INSIDE, "", entered, "", "") for plate, entered in vehicles if entered >= sources.since)
        for number, name in enumerate(names):
            stays = records.outbox(name).stays()
            facts.add(under_way(number, *each) for each in stays if each[0].exit_date_time >= sources.since)
        there = records.snapshot()
        verdict.stranded = [backlog for backlog in there.backlogs if backlog.is_stranded]
        verdict.elsewhere = sum(backlog.undelivered for backlog in there.backlogs if backlog.sink not in names)
        if not sources.since:
            report = Report.of_counts(there.counts, inside=there.inside)
            verdict.records = {name: number for name, number in report.to_dict().items() if name in _COMPARED}
    if sources.counts:
        verdict.records = {name: sources.counts[name] for name in _COMPARED if name in sources.counts}
    _read_queues(sources, facts, verdict, records, show)
    if records:
        facts.settle(processed(records, facts.doubtful()))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # who reads it says what is wrong with it
        return 0


def _read_rows(
    back: ReadBack, sink: int, facts: Facts, since: str, advance: Callable[[int], None]
) -> tuple[int, list[str]]:
    """Take in a sink's rows; give how many there were, and those that are none."""
    count, foreign = 0, []
    what = row_of(sink)
    try:
        for row in back.rows():
            advance(_TYPICAL_ROW)
            if isinstance(row, str):
                foreign.append(row)
                continue
            id_, plate, entered, left, duration = map(str, row)
            if left >= since:
                count += 1
                facts.add([(plate, what, id_, entered, left, duration)])
    except Exception as error:  # a plugin's, too
        said = f"one that can be read ({one_line(str(error) or type(error).__name__)})"
        raise InvalidSetting("the file of summaries", back.place, said) from error
    return count, foreign


_COMPARED = ("recorded", "matched", "unmatched", "abandoned", "inside")


def _read_queues(sources: Sources, facts: Facts, verdict: Verdict, records: Records | None, show: int) -> None:
    if sources.messages is not None:
        queued = QueueContents()
        queued.take(sources.messages)
    elif sources.broker_url:
        queued = read_queues(sources.broker_url, sources.partitions, management_url=sources.management_url)
    else:
        return
    verdict.queued, verdict.dead, verdict.unread = queued.waiting, queued.dead, queued.unread
    facts.doubt(queued.events)
    done = processed(records, queued.dead_events) if records else ()
    dead = [line for event, line in queued.dead_events.items() if event not in done]
    verdict.dead_events = len(dead)
    if dead and show:
        verdict.findings["dead letters that are valid events"] = dead[:show]
    if records:
        return  # they know all summaries that are under way
    names = list(sources.sinks)
    wanted = [each for each in queued.summaries if each[1].exit_date_time >= sources.since]
    verdict.elsewhere = len({(sink, summary.id) for sink, summary, _ in wanted if sink not in names})
    facts.add(under_way(names.index(sink), stay, state) for sink, stay, state in wanted if sink in names)


class _Tell:
    """Passes progress on, now and then."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._text, self._done, self._total, self._told = "", 0, 0, 0

    def begin(self, text: str, total: int) -> None:
        self._text, self._done, self._total, self._told = text, 0, total, 0
        self._progress(text, 0, total)

    def advance(self, more: int, every: int = _TELL_EVERY) -> None:
        self._done += more
        if self._done - self._told >= every:
            self._told = self._done
            self._progress(self._text, min(self._done, self._total), self._total)
