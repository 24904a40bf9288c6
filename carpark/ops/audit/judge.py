"""Holds what there is of one plate against what its events must come to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from carpark.domain.canonical import duration_between
from carpark.domain.events import format_time
from carpark.domain.pairing import ENTRY, EXIT, PlateAccount, Seen, join
from carpark.ops.audit.facts import INSIDE, KINDS, Fact, row_of, under_way_to
from carpark.ops.audit.verdict import SinkVerdict, Verdict
from carpark.records import ForgottenPlates, Records

Each = Callable[[str, Seen, str], None]
"""Hears of every event: its plate, the event, what became of it."""

_LOOKUPS = 1000
_LESS_THAN_A_MICROSECOND = 5e-7


@dataclass
class Judge:
    """Judges plates one after another."""

    verdict: Verdict
    since: str
    show: int
    records: Records | None
    retention: float
    each: Each | None

    def __post_init__(self) -> None:
        now = self.records.now() if self.records else 0.0
        self._remembered = _canonical(now - self.retention), _canonical(now)
        self._forgotten = self.records.forgotten() if self.records else ForgottenPlates("", {})
        self._lookups: list[tuple[str, Seen]] = []

    def judge(self, plate: str, facts: Sequence[Fact]) -> None:
        """Judge a plate."""
        by_kind: dict[int, list[Fact]] = {}
        for fact in facts:
            by_kind.setdefault(fact[1], []).append(fact)
        events = [*by_kind.get(ENTRY, ()), *by_kind.get(EXIT, ())]
        inside = by_kind[INSIDE][0][3] if INSIDE in by_kind else None
        pending = _without_trace([fact for fact in events if fact[5]], facts, inside)
        bounds = self._forgotten.of(plate)
        seen = [(fact[3], fact[1], fact[2]) for fact in events if not pending or fact[1:3] not in pending]
        account, forgotten = _join_apart(seen, bounds, inside)
        self._count(account, len(by_kind.get(ENTRY, ())), len(by_kind.get(EXIT, ())), len(pending))
        self.verdict.recorded += len(forgotten)
        self.verdict.forgotten += len(forgotten)
        if self.each:
            self._tell(self.each, plate, events, account, forgotten)
        stays = {exit_[2]: (entry[0], exit_[0]) for entry, exit_ in account.stays if exit_[0] >= self.since}
        self.verdict.earlier += len(account.stays) - len(stays)
        for number, sink in enumerate(self.verdict.sinks):
            rows, under_way = by_kind.get(row_of(number), ()), by_kind.get(under_way_to(number), ())
            if stays or rows or under_way:
                self._judge_sink(plate, sink, stays, rows, under_way, bounds[-1] if bounds else "")
        if self.records:
            self._judge_records(plate, account, inside)

    def finish(self) -> None:
        """Look up what is left to look up."""
        records, lookups = self.records, self._lookups
        if not records or not lookups:
            return
        known = processed(records, (event[1:] for _, event in lookups))
        for plate, event in lookups:
            if event[1:] not in known:
                self.verdict.unknown += 1
                self._find("lost events", f"{_described(plate, event)}: published, and the records do not know it")
        lookups.clear()

    def _count(self, account: PlateAccount, entries: int, exits: int, pending: int) -> None:
        verdict, inside = self.verdict, account.inside is not None
        verdict.entries += entries
        verdict.exits += exits
        verdict.pending += pending
        verdict.recorded += len(account.stays) + len(account.abandoned) + inside
        verdict.matched += len(account.stays)
        verdict.unmatched += len(account.unmatched)
        verdict.abandoned += len(account.abandoned)
        verdict.inside += inside

    @staticmethod
    def _tell(each: Each, plate: str, events: Sequence[Fact], account: PlateAccount, forgotten: Sequence[Seen]) -> None:
        became = {
            **dict.fromkeys(forgotten, "forgotten"),
            **{event: "matched" for stay in account.stays for event in stay},
            **dict.fromkeys(account.unmatched, "unmatched"),
            **dict.fromkeys(account.abandoned, "abandoned"),
            **({account.inside: "inside"} if account.inside else {}),
        }
        for fact in events:
            event = (fact[3], fact[1], fact[2])
            each(plate, event, became.get(event, "pending"))

    def _judge_sink(
        self,
        plate: str,
        sink: SinkVerdict,
        stays: dict[str, tuple[str, str]],
        rows: Sequence[Fact],
        under_way: Sequence[Fact],
        forgotten_until: str,
    ) -> None:
        found: dict[str, list[Fact]] = {}
        for row in rows:
            found.setdefault(row[2], []).append(row)
        coming = {fact[2]: (fact[3], fact[4]) for fact in under_way}
        for id_, stay in stays.items():
            same = found.get(id_, ())
            if any(_is_right(row, stay) for row in same):
                sink.summarised += 1
                if len(same) == 1:
                    del found[id_]
                else:
                    self._find_rows(sink, found.pop(id_), stray=False)
            elif coming.get(id_) == stay:
                sink.undelivered += 1
            elif stay[1] <= forgotten_until:
                sink.forgotten += 1
                digest = self._forgotten.digest(plate)
                self._find(f"forgotten, {sink.name}", f"plate {digest}: {stay[0]} to {stay[1]}")
            else:
                sink.lost += 1
                self._find(f"lost, {sink.name}", f"{plate} {stay[0]} to {stay[1]}, id {id_}")
        for same in found.values():
            self._find_rows(sink, same, stray=True)
        there = {row[2] for row in rows} if coming else ()
        for id_, stay in coming.items():
            if id_ not in there and stays.get(id_) != stay:
                self.verdict.intruding += 1
                self._find(f"unexpected, under way to {sink.name}", f"{plate} {stay[0]} to {stay[1]}, id {id_}")

    def _find_rows(self, sink: SinkVerdict, same: list[Fact], *, stray: bool) -> None:
        """Note rows of one id that are too many; if they are stray, none of them should be there."""
        if stray:
            sink.unexpected += 1
            self._find(f"unexpected, {sink.name}", _row(same[0]))
        sink.duplicated += len(same) - 1
        for row in same[1:]:
            self._find(f"duplicated, {sink.name}", _row(row))

    def _judge_records(self, plate: str, account: PlateAccount, inside: str | None) -> None:
        entry = account.inside
        if entry and entry[0] != inside and entry[0] >= self.since:
            self.verdict.unknown += 1
            self._find("lost events", f"{_described(plate, entry)}: it must be inside, and the records do not say so")
        if inside is not None and (not entry or entry[0] != inside):
            self.verdict.intruding += 1
            self._find("unexpected, inside", f"{plate} since {inside or 'a time that the record does not say'}")
        first, last = self._remembered
        for event in (*account.unmatched, *account.abandoned):  # the others are seen by what they lead to
            if first < event[0] <= last:
                self._lookups.append((plate, event))
        if len(self._lookups) >= _LOOKUPS:
            self.finish()

    def _find(self, title: str, line: str) -> None:
        if self.show:
            lines = self.verdict.findings.setdefault(title, [])
            if len(lines) < self.show:
                lines.append(line)


def processed(records: Records, events: Iterable[tuple[int, str]]) -> set[tuple[int, str]]:
    """Pick the events that the records have processed."""
    known = records.known((KINDS[kind], id_) for kind, id_ in events)
    return {(KINDS.index(kind), id_) for kind, id_ in known}


def _canonical(seconds: float) -> str:
    return format_time(datetime.fromtimestamp(max(seconds, 0), UTC))


def _join_apart(seen: Sequence[Seen], bounds: Sequence[str], inside: str | None) -> tuple[PlateAccount, list[Seen]]:
    """Join a plate's events, those up to each time up to which it was forgotten for themselves.

    Give the account, and the entries whose vehicle was inside when that happened: no exit finds them any more.
    """
    if not bounds:
        return join(seen), []
    whole, forgotten, rest = PlateAccount(), [], sorted(seen)
    for bound in (*bounds, None):
        part = [event for event in rest if bound is None or event[0] <= bound]
        rest = rest[len(part) :]
        account = join(part)
        whole.stays += account.stays
        whole.abandoned += account.abandoned
        whole.unmatched += account.unmatched
        if bound is None or account.inside is None:
            whole.inside = account.inside
        elif account.inside[0] == inside:  # it came after the plate was forgotten, however early it is
            rest.insert(0, account.inside)
        else:
            forgotten.append(account.inside)
    return whole, forgotten


def _without_trace(doubtful: list[Fact], facts: Sequence[Fact], inside: str | None) -> set[tuple[int, str]]:
    """Pick the events in doubt that nothing shows an effect of: no stay ends, or begins, with them."""
    if not doubtful:
        return set()
    stays = [fact for fact in facts if fact[1] > INSIDE]
    exits, entries = {stay[2] for stay in stays}, {stay[3] for stay in stays} | {inside}
    return {
        (fact[1], fact[2]) for fact in doubtful if (fact[2] not in exits if fact[1] == EXIT else fact[3] not in entries)
    }


def _is_right(row: Fact, stay: tuple[str, str]) -> bool:
    if (row[3], row[4]) != stay:
        return False
    try:
        return abs(float(row[5]) - duration_between(*stay)) < _LESS_THAN_A_MICROSECOND
    except ValueError:
        return False


def _row(row: Fact) -> str:
    plate, _, id_, entered, left, duration = row
    return f"{plate} {entered} to {left}, {duration} s, id {id_}"


def _described(plate: str, event: Seen) -> str:
    return f"{plate} {KINDS[event[1]]} at {event[0]}, id {event[2]}"
