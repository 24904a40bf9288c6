"""Exits do not overtake entries: where a queue of entries is behind, exits wait, so that each finds its own entry."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

from carpark.broker.lanes import Held
from carpark.events import Event, format_time, parse_time
from carpark.records import ExitsHeld, Recorded, Records

log = logging.getLogger(__name__)

SLACK = timedelta(seconds=1)
"""How much later than the entry recorded last an exit may be, so that it need not wait."""

STANDSTILL = 60.0
"""Seconds without any progress of the entries after which exits go on; longer than any failover."""


class Gate:
    """Lets the exits of a queue pass, or holds them.

    Args:
        ready: Counts the entries that are ready in their queue.
        clock: Seconds of a clock that never goes back.
    """

    def __init__(self, ready: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._ready, self._clock = ready, clock
        self._lists = -1
        self._stood, self._looked_at, self._goes_on = 0.0, 0.0, False

    def record(self, records: Records, exits: Sequence[Event]) -> list[Recorded]:
        """Record exits, unless entries wait that may be earlier than they.

        Args:
            records: The records.
            exits: The exits, in their order.

        Returns:
            One effect per exit.

        Raises:
            Held: They have to wait; nothing was recorded.
            RecordsUnavailable: Redis is not there; recording again later is safe.
            BrokerConnectionError: RabbitMQ cannot be asked; recording again later is safe.
        """
        after = _a_moment_before(max(event.time for event in exits))
        try:
            return records.record_exits(exits, after, none_ready=False)
        except ExitsHeld as held:
            lists = held.lists
        if self._ready() == 0:
            try:
                return records.record_exits(exits, after, none_ready=True)
            except ExitsHeld as held:
                lists = held.lists
        if not self._has_stood(lists):
            raise Held("entries wait that may be earlier")
        return records.record(exits)

    def _has_stood(self, lists: int) -> bool:
        """Count the time in which no entry is recorded; a second at most between two looks, as some may have failed."""
        now = self._clock()
        if lists != self._lists:
            self._lists, self._stood, self._goes_on = lists, 0.0, False
        else:
            self._stood += min(now - self._looked_at, SLACK.total_seconds())
        self._looked_at = now
        if self._stood >= STANDSTILL and not self._goes_on:
            self._goes_on = True
            log.warning("entries wait and none was recorded for %d s: exits go on without them", STANDSTILL)
        return self._goes_on


def _a_moment_before(canonical: str) -> str:
    try:
        return format_time(parse_time(canonical) - SLACK)
    except OverflowError:
        return ""
