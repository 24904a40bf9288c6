"""The outbox in plain Python: what becomes of a finished stay until its sink has it."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import inf

from carpark.domain.events import StaySummary
from carpark.records.base import MOST, Backlog, Batch, Outbox, Settled, Settlement


@dataclass
class Stay:
    """A finished stay that a sink has not taken."""

    summary: StaySummary
    recorded_at: float
    attempts: int = 0
    due: float = 0.0


class MemoryOutbox(Outbox):
    """The outbox of one sink."""

    def __init__(self, sink: str, lock: threading.RLock, clock: Callable[[], float], counts: Counter[str]) -> None:
        self._sink, self._lock, self._clock, self._counts = sink, lock, clock, counts
        self.waiting: deque[Stay] = deque()
        self._batch: list[Stay] = []  # in hand, or to be offered again together
        self._alone: list[Stay] = []  # failed while others were taken, and are offered one by one
        self._dead: dict[str, Stay] = {}  # given up, by id
        self._number = self._attempt = 0  # of the batch
        self._is_alone = False  # whether its one member waited alone
        self._leased_until = 0.0  # by whoever has it in hand; 0 if nobody has
        self._failures = 0  # attempts at the sink in a row
        self._due = 0.0  # until then its circuit breaker is open
        self._failing_since: float | None = None
        self._error = ""
        self._asked: float | None = None  # when a relay last asked; while it has a batch, when its lease ends
        self._at = 0.0  # when anybody did

    def take(self, lease: float, most: int = MOST, *, whatever: bool = False) -> Batch | float:
        with self._lock:
            now = self._clock()
            if self._at > now + 1:
                self._set_clock_back(now)
            self._at = now
            self._asked = self._asked if whatever else now
            wait = max(self._leased_until, 0.0 if whatever else self._due) - now
            if wait > 0:
                return wait
            if self._leased_until:  # whoever had it has died, or its call hangs
                self._error, self._failing_since = "no answer in time", self._failing_since or now
            if not (self._batch or self._form(max(1, min(most, MOST)), inf if whatever else now)):
                return -1.0
            self._leased_until = now + lease
            self._asked = self._asked if whatever else now + lease
            self._attempt += 1
            members = tuple(stay.summary for stay in self._batch)
            return Batch(self._number, self._attempt, self._failures, self._is_alone, members)

    def _form(self, most: int, due: float) -> bool:
        """Form the next batch: one that waits alone and is due, in turns with those that wait in their order."""
        alone = self._next_alone()
        if alone and alone.due <= due and not (self.waiting and self._is_alone):
            self._alone.remove(alone)
            self._batch, self._attempt, self._is_alone = [alone], alone.attempts, True
        else:
            self._batch = [self.waiting.popleft() for _ in range(min(most, len(self.waiting)))]
            self._attempt, self._is_alone = 0 if self._batch else self._attempt, False
        self._number += bool(self._batch)
        return bool(self._batch)

    def _next_alone(self) -> Stay | None:
        return min(self._alone, key=lambda stay: (stay.due, stay.attempts, stay.summary.id), default=None)

    def _set_clock_back(self, now: float) -> None:
        """End now what was to end by a clock that has gone back since."""
        self._leased_until = self._due = 0.0
        self._asked = self._failing_since = None
        for stay in self._alone:
            stay.due = now

    def settle(self, batch: Batch, became: Settlement) -> tuple[int, int, int]:
        with self._lock:
            if self._number != batch.number:
                return 0, 0, 0  # of another batch nothing is believed
            now, holds = self._clock(), self._attempt == batch.attempt
            stays = self._by_fate(batch, became, holds)
            self._batch = stays["left"] + stays["last"]
            self._dead.update((stay.summary.id, stay) for stay in stays["dead"])
            for stay in stays["alone"]:
                stay.attempts, stay.due = batch.attempt, now + became.alone[stay.summary.id]
            self._alone += stays["alone"]
            self._note_health(became, len(stays["delivered"]) > 0, holds, now)
            # Each counts as retried once, however often it is tried again.
            retried = len(self._batch) + len(stays["alone"]) if holds and batch.attempt == 1 else 0
            counted = len(stays["delivered"]), retried, len(stays["dead"])
            for outcome, count in zip(Settled, counted, strict=True):
                self._counts[f"summaries/{self._sink}/{outcome}"] += count
            return counted

    def _by_fate(self, batch: Batch, became: Settlement, holds: bool) -> defaultdict[str, list[Stay]]:
        """Sort the members by what became of them; of an attempt that was given up only what was delivered counts."""
        delivered = [each.id for each in batch.summaries] if became.delivered is None else became.delivered
        fates = dict.fromkeys(delivered, "delivered")
        for fate in ("dead", "last", "alone") if holds else ():
            fates |= dict.fromkeys(getattr(became, fate), fate)
        stays = defaultdict[str, list[Stay]](list)
        for stay in self._batch:
            stays[fates.get(stay.summary.id, "left")].append(stay)
        return stays

    def _note_health(self, became: Settlement, is_well: bool, holds: bool, now: float) -> None:
        """Open the circuit breaker of a sink that is to blame, and close it when the sink has taken something."""
        if holds:
            self._leased_until = self._due = 0.0
            self._error = became.error or self._error
            if became.delay > 0:
                self._due, self._failing_since = now + became.delay, self._failing_since or now
        if is_well or (holds and not became.error):
            self._failures, self._failing_since, self._error = 0, None, ""
        elif holds and became.delay > 0:
            self._failures += 1

    def settle_and_take(
        self, batch: Batch, became: Settlement, lease: float, most: int = MOST
    ) -> tuple[tuple[int, int, int], Batch | float]:
        with self._lock:
            return self.settle(batch, became), self.take(lease, most)

    def put_back(self, summary: StaySummary) -> bool:
        with self._lock:
            if (stay := self._dead.get(summary.id)) is None or stay.summary != summary:
                return False
            self.waiting.append(self._dead.pop(summary.id))
            return True

    def remove(self, plate: str) -> int:
        """Remove the stays of a plate, and say how many there were."""

        def others(stays: Iterable[Stay]) -> list[Stay]:
            return [stay for stay in stays if stay.summary.vehicle_plate != plate]

        before = len(list(self.stays()))
        self.waiting, self._batch, self._alone = deque(others(self.waiting)), others(self._batch), others(self._alone)
        self._dead = {stay.summary.id: stay for stay in others(self._dead.values())}
        return before - len(list(self.stays()))

    def backlog(self) -> Backlog:
        with self._lock:
            now, alone = self._clock(), self._next_alone()
            first = [*self._batch[:1], *([self.waiting[0]] if self.waiting else [])]
            due = max(self._due, alone.due) if alone and not first else self._due
            return Backlog(
                self._sink,
                waiting=len(self.waiting) + len(self._batch) + len(self._alone),
                alone=len(self._alone),
                dead=len(self._dead),
                age=max([0.0, *(now - stay.recorded_at for stay in (*first, alone) if stay)]),
                attempt=self._attempt if self._batch else 0,
                failing=None if self._failing_since is None else max(0.0, now - self._failing_since),
                next_attempt=max(0.0, due - now),
                error=self._error,
                asked=None if self._asked is None else max(0.0, now - self._asked),
            )

    def stays(self) -> Iterator[tuple[StaySummary, str]]:
        with self._lock:
            waiting = [(stay.summary, "waiting") for stay in (*self.waiting, *self._batch, *self._alone)]
            return iter([*waiting, *((stay.summary, "dead") for stay in self._dead.values())])
