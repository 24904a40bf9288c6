"""The records in plain Python: how entries and exits become stays. READ THIS FIRST.

All events of a plate, in the order of their times, an entry before an exit at equal times, would be simple: an entry
opens a stay and abandons the one that is open, an exit closes the open one or is unmatched
(`carpark.domain.pairing`, which the audit goes by). But entries and exits come in two queues of which either may be
ahead, late, and sometimes again. So each event is recorded when it comes, against what is known of its plate:

- An entry is open for exits from its own time until that of the plate's next entry. So an exit closes the latest entry
  that is not later than itself, if that is open; otherwise it waits.
- An entry takes the earliest waiting exit of that time, if there is one; otherwise it stays open.

The vehicle is inside while the last entry is open. One that a later entry has superseded is abandoned, unless its exit
comes after all. Whichever of entry and exit comes second finishes the stay, and the same step puts it into the outbox
of each sink (`carpark.records.memory_outbox`). ``join.lua`` and ``outbox.lua`` do the same in Redis.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf

from carpark.domain.events import Event, StaySummary, VehicleEntered, VehicleExited
from carpark.records.base import (
    Backlog,
    ExitsHeld,
    Forgotten,
    ForgottenPlates,
    Outcome,
    Recorded,
    Records,
)
from carpark.records.memory_outbox import MemoryOutbox, Stay

ENTRY, EXIT = VehicleEntered.kind, VehicleExited.kind

NO_NEXT = "~"
"""Later than any canonical time, as these are text: when the next entry is, as long as there is none."""

MOST_OPEN = MOST_WAITING = 8
"""Entries of a plate that are open, and exits that wait, at most; the oldest is dropped."""


@dataclass
class OpenEntry:
    """An entry that no exit has closed."""

    entry: Event
    next_entry: str = NO_NEXT

    def is_open_at(self, moment: str) -> bool:
        """Tell whether an exit at this canonical time would be this vehicle's."""
        return self.entry.time <= moment < self.next_entry


@dataclass
class Plate:
    """What is known of a plate."""

    open: list[OpenEntry] = field(default_factory=list)
    waiting: list[Event] = field(default_factory=list)
    newest: Event | None = None
    left: Event | None = None

    @property
    def inside(self) -> Event | None:
        """The entry of the vehicle, while it is inside."""
        return self.open[-1].entry if self.open and self.open[-1].next_entry == NO_NEXT else None

    def open_at(self, moment: str) -> OpenEntry | None:
        """Find the entry that is open at a canonical time: there is one at most."""
        return next((entry for entry in self.open if entry.is_open_at(moment)), None)

    def next_entry(self, moment: str) -> str:
        """Find the time of the earliest known entry after a canonical time."""
        known = [self.newest.time] if self.newest else []
        for each in self.open:
            known += (each.entry.time, each.next_entry)
        return min((each for each in known if each > moment), default=NO_NEXT)

    def add_entry(self, entry: Event, next_entry: str) -> None:
        """Keep an entry open; those that are open are in the order of their times, that of a vehicle inside last."""
        self.open.append(OpenEntry(entry, next_entry))
        self.open.sort(key=lambda each: (each.next_entry == NO_NEXT, each.entry.time, each.entry.id))

    def add_exit(self, exit_: Event) -> None:
        """Let an exit wait, in the order of their times."""
        self.waiting.append(exit_)
        self.waiting.sort(key=lambda each: (each.time, each.id))

    def take_exit(self, since: str, before: str) -> Event | None:
        """Take the earliest exit that waits and is in this time."""
        for exit_ in self.waiting:
            if since <= exit_.time < before:
                self.waiting.remove(exit_)
                return exit_
        return None

    def times(self) -> Iterator[str]:
        """Give all times that are known."""
        yield from (each.entry.time for each in self.open)
        yield from (each.time for each in (*self.waiting, self.newest, self.left) if each)


class Expiring:
    """Keys that are known until some time each."""

    def __init__(self) -> None:
        self.until: dict[str, float] = {}
        self._due: list[tuple[float, str]] = []

    def keep(self, key: str, until: float) -> None:
        """Know a key until then, and no longer."""
        self.until[key] = until
        if until < inf:
            heappush(self._due, (until, key))

    def knows(self, key: str, now: float) -> bool:
        """Tell whether a key is known."""
        return self.until.get(key, 0.0) > now

    def drop_old(self, now: float, most: float = inf) -> Iterator[str]:
        """Drop keys that are over, the oldest first, and give them."""
        while most > 0 and self._due and self._due[0][0] <= now:
            until, key = heappop(self._due)
            if self.until.get(key) == until:
                del self.until[key]
                most -= 1
                yield key


@dataclass
class Progress:
    """How far a queue of entries has come."""

    last: str = ""
    wanted: str = ""
    reached: str = ""
    lists: int = 0


class Store:
    """What the records of one car park hold; all `MemoryRecords` of one URL share it, its one lock, and its clock."""

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self.lock, self.clock = threading.RLock(), clock or time.time
        self.plates: dict[str, Plate] = {}
        self.lasting = Expiring()  # the plates, none of a vehicle inside
        self.inside = 0
        self.ids = {ENTRY: Expiring(), EXIT: Expiring()}
        self.counts: Counter[str] = Counter()
        self.progress: defaultdict[int, Progress] = defaultdict(Progress)
        self.outboxes: dict[str, MemoryOutbox] = {}
        self.sinks: set[str] = set()
        self.forgotten: dict[str, str] = {}
        self.key = secrets.token_hex(16)


class MemoryRecords(Records):
    """The records in this process."""

    def __init__(self, store: Store, retention: float, sinks: Sequence[str] = ()) -> None:
        self._store, self._retention, self._sinks = store, retention, tuple(sinks)

    def record(self, events: Sequence[Event]) -> list[Recorded]:
        store = self._store
        with store.lock:
            now = self.now()
            self._forget_old(now, len(events))
            store.sinks.update(self._sinks)
            return [self._record(event, now) for event in events]

    def _record(self, event: Event, now: float) -> Recorded:
        store = self._store
        if store.ids[event.kind].knows(event.id, now):
            return self._effect(event, Outcome.DUPLICATE)
        plate = store.plates.setdefault(event.vehicle_plate, Plate())
        was_inside = plate.inside is not None
        effect = (self._enter if event.kind == ENTRY else self._leave)(plate, event, now)
        store.inside += (plate.inside is not None) - was_inside
        self._keep(plate, event.vehicle_plate, now)
        return effect

    def _enter(self, plate: Plate, entry: Event, now: float) -> Recorded:
        next_entry, before = plate.next_entry(entry.time), plate.open_at(entry.time)
        was_inside = before is not None and before.next_entry == NO_NEXT
        if before:
            before.next_entry = entry.time
        if exit_ := plate.take_exit(entry.time, next_entry):
            if not plate.newest or plate.newest.time <= entry.time:
                plate.newest, plate.left = entry, exit_
            return self._finish(entry, entry, exit_, now)
        plate.add_entry(entry, next_entry)
        if next_entry == NO_NEXT:
            plate.newest, plate.left = entry, None
        abandoned = was_inside or next_entry != NO_NEXT
        self._store.counts["entry/abandoned"] += abandoned
        return self._effect(entry, Outcome.RECORDED, abandoned=abandoned)

    def _leave(self, plate: Plate, exit_: Event, now: float) -> Recorded:
        found = plate.open_at(exit_.time)
        if not found:
            plate.add_exit(exit_)
            plate.left = plate.left if plate.newest else exit_
            return self._effect(exit_, Outcome.UNMATCHED)
        plate.open.remove(found)
        if found.next_entry == NO_NEXT:
            plate.left = exit_
        else:
            self._store.counts["entry/reclaimed"] += 1  # from those that were abandoned
        return self._finish(exit_, found.entry, exit_, now)

    def _finish(self, event: Event, entry: Event, exit_: Event, now: float) -> Recorded:
        """Put the stay that an event finishes into the outbox of each sink."""
        store = self._store
        summary = StaySummary.of_stay(exit_.id, entry.vehicle_plate, entry.time, exit_.time)
        for sink in self._sinks:
            self.outbox(sink).waiting.append(Stay(summary, now))
        for each in (entry, exit_):
            store.ids[each.kind].keep(each.id, now + self._retention)
        store.counts["summaries"] += 1
        return self._effect(event, Outcome.MATCHED, summary)

    def _effect(
        self, event: Event, outcome: Outcome, stay: StaySummary | None = None, *, abandoned: bool = False
    ) -> Recorded:
        self._store.counts[f"{event.kind}/{outcome}"] += 1
        return Recorded(f"{event.kind}/{event.id}", outcome, stay, abandoned=abandoned)

    def _keep(self, plate: Plate, name: str, now: float) -> None:
        """Keep no more than there may be; and know the events that the record names as long as the record is kept."""
        store, until = self._store, now + self._retention
        while len(plate.open) > MOST_OPEN:
            store.ids[ENTRY].keep(plate.open.pop(0).entry.id, until)
            store.counts["entry/dropped"] += 1
        while len(plate.waiting) > MOST_WAITING:
            store.ids[EXIT].keep(plate.waiting.pop(0).id, until)
            store.counts["exit/dropped"] += 1
        until = inf if plate.inside else until
        for event in (*(each.entry for each in plate.open), *plate.waiting):
            store.ids[event.kind].keep(event.id, until)
        store.lasting.keep(name, until)

    def _forget_old(self, now: float, events: int) -> None:
        """Forget what was kept for long enough; of ids some per event, as they are as many."""
        for plate in self._store.lasting.drop_old(now):
            del self._store.plates[plate]
        for ids in self._store.ids.values():
            for _ in ids.drop_old(now, 20 * events):
                pass

    def record_entries(self, entries: Sequence[Event], partition: int = 0) -> list[Recorded]:
        with self._store.lock:
            recorded, progress = self.record(entries), self._store.progress[partition]
            for entry, effect in zip(entries, recorded, strict=True):
                if effect.outcome is not Outcome.DUPLICATE:
                    progress.last = entry.time
            progress.lists += 1
            return recorded

    def record_exits(self, exits: Sequence[Event], after: str, marker: str, partition: int = 0) -> list[Recorded]:
        with self._store.lock:
            progress = self._store.progress[partition]
            self._store.sinks.update(self._sinks)
            if progress.last < after and progress.reached != marker:
                progress.wanted = marker
                raise ExitsHeld(progress.lists)
            return self.record(exits)

    def reach(self, marker: str, partition: int = 0) -> bool:
        with self._store.lock:
            progress = self._store.progress[partition]
            if progress.wanted != marker:
                return False
            progress.reached = marker
            return True

    def reject(self, kind: str, partition: int = 0) -> None:
        with self._store.lock:
            self._store.counts[f"{kind}/rejected"] += 1
            if kind == ENTRY:
                self._store.progress[partition].lists += 1  # exits that wait see that the queue moves

    def outbox(self, sink: str) -> MemoryOutbox:
        store = self._store
        with store.lock:
            if sink not in store.outboxes:
                store.outboxes[sink] = MemoryOutbox(sink, store.lock, store.clock, store.counts)
            return store.outboxes[sink]

    def forget(self, plate: str) -> Forgotten:
        store = self._store
        with store.lock:
            now = self.now()
            self._forget_old(now, 0)
            known = store.plates.pop(plate, None)
            inside = known.inside if known else None
            if inside:
                store.inside -= 1
                store.counts["entry/forgotten"] += 1
            for event in (*(each.entry for each in known.open), *known.waiting) if known else ():
                store.ids[event.kind].keep(event.id, now + self._retention)
            store.lasting.until.pop(plate, None)
            self._note_forgotten(plate, known)
            removed = {sink: outbox.remove(plate) for sink, outbox in store.outboxes.items()}
            store.counts.update({f"summaries/{sink}/forgotten": count for sink, count in removed.items()})
            taken = sum(removed.values())
            return Forgotten(inside.time if inside else "", known is not None or taken > 0, taken)

    def _note_forgotten(self, plate: str, known: Plate | None) -> None:
        """Note up to when: its latest time, or else the latest entry's; what comes later is of one that came back."""
        store = self._store
        latest = max(known.times() if known else (each.last for each in store.progress.values()), default="")
        digest = self.forgotten().digest(plate)
        before = store.forgotten.get(digest, "").split()
        if not before or before[-1] < latest:
            store.forgotten[digest] = " ".join([*before, latest])

    def forgotten(self) -> ForgottenPlates:
        with self._store.lock:
            return ForgottenPlates(self._store.key, dict(self._store.forgotten))

    def now(self) -> float:
        return self._store.clock()

    def counts(self) -> dict[str, int]:
        with self._store.lock:
            return {name: count for name, count in self._store.counts.items() if count}

    def inside(self) -> int:
        return self._store.inside

    def backlogs(self) -> list[Backlog]:
        with self._store.lock:
            return [self.outbox(each).backlog() for each in dict.fromkeys([*self._sinks, *sorted(self._store.sinks)])]

    def vehicles(self) -> Iterator[tuple[str, str]]:
        with self._store.lock:
            found = [(name, plate.inside.time) for name, plate in self._store.plates.items() if plate.inside]
        return iter(found)

    def known(self, events: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        return ((kind, id_) for kind, id_ in events if id_ in self._store.ids[kind].until)
