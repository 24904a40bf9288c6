"""The loop that makes cameras look when they are due and brings what they saw to the broker."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Collection, Sequence

from carpark.domain.events import Event, VehicleEntered
from carpark.errors import BrokerUnavailable, RecordsUnavailable
from carpark.rabbitmq.outage import backoff
from generators.cameras import Seen, Wait
from generators.clock import Clock
from generators.lane import Lane
from generators.publisher import BACKOFF_SECONDS, Publisher

WINDOW = 250
"""How many events are sent at once at most, when they are due faster than they can be sent one by one."""

CATCH_UP_SECONDS = 1.0
"""For how long at the end events are still made that were due before it."""

_TICK_SECONDS = 0.5
_SAY_AGAIN_SECONDS = 60.0


class Watcher:
    """Hears how a run goes; does nothing by itself."""

    def say(self, line: str) -> None:
        """Hear something that people should know."""

    def progress(self, lanes: Sequence[Lane]) -> None:
        """Hear that time has passed; called often."""


class Run:
    """Cameras at work, in the order of their due times; at equal times the one that was named first."""

    def __init__(
        self,
        lanes: Sequence[Lane],
        publisher: Publisher,
        *,
        clock: Clock,
        stop: threading.Event,
        watcher: Watcher | None = None,
        until: float | None = None,
    ) -> None:
        self.lanes = list(lanes)
        self._publisher, self._clock, self._stop = publisher, clock, stop
        self._watcher = watcher or Watcher()
        self._until = math.inf if until is None else until
        self._lot = self.lanes[0].camera.lot
        self._pending: list[tuple[Lane, Seen]] = []
        self._sending: list[tuple[Lane, Seen]] = []
        self._unkept: list[Event] = []
        self._records_away: float | None = None
        self._pauses = backoff(*BACKOFF_SECONDS)
        self._said: dict[tuple[str, str], float] = {}
        publisher.holding = self._hold
        publisher.failed = self._count_failed

    def run(self) -> None:
        """Work until every camera is done, the time is up, or a stop is requested; what is in hand is finished."""
        self._resend()
        while open_lanes := [lane for lane in self.lanes if not lane.done]:
            now = self._clock.monotonic()
            if self._stop.is_set():
                self._until = min(self._until, now)
            if now >= self._until and self._is_over(open_lanes, now):
                break
            lane = min(open_lanes, key=lambda each: each.next_look)
            if lane.next_look == math.inf:
                self._watcher.say(f"{lane.camera.kind} camera: {lane.tally.waiting}, and nothing else will happen")
                break
            if lane.next_look <= now and len(self._pending) < WINDOW:
                self._look(lane, now)
            elif self._pending:
                self._flush()
            else:
                self._watcher.progress(self.lanes)
                until = self._until if now < self._until else math.inf
                self._clock.wait(min(lane.next_look - now, until - now, _TICK_SECONDS), self._stop)
        self._flush()
        self._keep()

    def _is_over(self, open_lanes: list[Lane], now: float) -> bool:
        """Say whether all that was due by the end is made, or is not made any more; this is counted."""
        too_late = now >= self._until + CATCH_UP_SECONDS or self._records_away is not None or self._unkept
        if not too_late and any(lane.overdue(self._until) for lane in open_lanes):
            return False
        for lane in open_lanes:
            lane.end(self._until)
        return True

    def _look(self, lane: Lane, now: float) -> None:
        if self._unkept:
            # Told first: while Redis was away the claims on these may have run out, and they would be drawn again.
            self._keep()
            if self._unkept:
                return
        due = lane.schedule.due
        try:
            found = lane.look(now)
        except RecordsUnavailable as error:
            self._flush()
            self._records_gone(error)
            return
        self._records_back()
        if isinstance(found, Wait):
            self._flush()
            self._say_wait(lane, found, now)
            return
        self._pending.append((lane, found))
        for other in self.lanes:
            if other is not lane:
                other.changed(due)

    def _flush(self) -> None:
        window, self._pending = self._pending, []
        if not window:
            return
        for lane in self.lanes:
            if lane.journal:
                lane.journal.append([seen.event for each, seen in window if each is lane])
        self._send(window)
        for lane, seen in window:
            lane.tally.published += 1
            lane.tally.matched += bool(seen.matched)
        self._watcher.progress(self.lanes)

    def _resend(self) -> None:
        for lane in self.lanes:
            tail = lane.journal.tail() if lane.journal else []
            # A journal does not say which exits were matched.
            matched = True if lane.camera.kind == VehicleEntered.kind else None
            if tail:
                self._watcher.say(f"{lane.camera.kind} camera: sending {len(tail)} unconfirmed events again")
            for start in range(0, len(tail), WINDOW):
                part = tail[start : start + WINDOW]
                self._send([(lane, Seen(event, matched)) for event in part])
                lane.tally.resent += len(part)

    def _send(self, window: list[tuple[Lane, Seen]]) -> None:
        self._sending = window
        started = self._clock.monotonic()
        count = self._publisher.publish([seen.event for _, seen in window])
        seconds = self._clock.monotonic() - started
        confirmed = window[:count]
        for lane in self.lanes:
            mine = [seen for each, seen in confirmed if each is lane]
            if lane.journal and mine:
                lane.journal.confirm(len(mine))
            if lane.metrics and mine:
                lane.metrics.published([seen.matched for seen in mine], seconds)
        self._unkept += [seen.event for _, seen in confirmed]
        self._keep()
        if count < len(window):
            raise self._unconfirmed(len(window) - count)

    def _unconfirmed(self, count: int) -> BrokerUnavailable:
        journals = [lane.journal for lane in self.lanes if lane.journal]
        if len(journals) == len(self.lanes):
            count = sum(journal.count - journal.confirmed for journal in journals)
            fate = "they are sent again when a generator is started on the same journal"
        else:
            fate = "nothing keeps them; with --journal they would be sent again"
        events = "1 event is" if count == 1 else f"{count} events are"
        return BrokerUnavailable(f"stopped while RabbitMQ was away: {events} unconfirmed; {fate}")

    def _keep(self) -> None:
        """Tell the lot what is confirmed; if it cannot be told now, the next call does."""
        try:
            self._lot.keep(self._unkept, confirmed=True)
            self._unkept = []
        except RecordsUnavailable as error:
            if not self._stop.is_set():
                self._records_gone(error)

    def _hold(self) -> None:
        with contextlib.suppress(RecordsUnavailable):
            self._lot.keep([seen.event for _, seen in self._sending], confirmed=False)

    def _count_failed(self, places: Collection[int]) -> None:
        for place in places:
            lane, seen = self._sending[place]
            if lane.metrics:
                lane.metrics.failed(seen.matched)

    def _records_gone(self, error: RecordsUnavailable) -> None:
        if self._records_away is None:
            self._records_away = self._clock.monotonic()
            self._pauses = backoff(*BACKOFF_SECONDS)
            self._watcher.say(f"{error}; the cameras wait for it")
        self._clock.wait(min(next(self._pauses), max(0.0, self._until - self._clock.monotonic())), self._stop)

    def _records_back(self) -> None:
        if self._records_away is not None:
            self._watcher.say(f"Redis is back after {self._clock.monotonic() - self._records_away:.1f} s")
            self._records_away = None

    def _say_wait(self, lane: Lane, wait: Wait, now: float) -> None:
        key = (lane.camera.kind, wait.reason)
        if now - self._said.get(key, -math.inf) >= _SAY_AGAIN_SECONDS:
            self._watcher.say(f"{lane.camera.kind} camera waits: {wait.text}")
            self._said[key] = now
