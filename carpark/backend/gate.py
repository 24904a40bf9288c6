"""Exits do not overtake entries: where a queue of entries is behind, exits wait, so that each finds its own entry.

Whether entries wait, in their queue or in a worker's hand, RabbitMQ does not tell exactly. So who has exits to record
publishes a marker into the queue of entries. When it is reached there, all that was before it is recorded. It speaks
for all exits that had come to this process when it was published: for as many batches as the consumer holds.
"""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import timedelta

from dramatiq.errors import BrokerConnectionError

from carpark.broker.dispatch import MustWait
from carpark.domain.events import Event, VehicleEntered, format_time, parse_time
from carpark.domain.routing import partition_queue
from carpark.records import ExitsHeld, Recorded, Records

log = logging.getLogger(__name__)

SLACK = timedelta(seconds=1)
"""How much later than the entry recorded last an exit may be, so that it need not wait."""

STANDSTILL = 60.0
"""Seconds without any progress of the entries after which exits go on; longer than any failover."""

MARKED_EVERY = 5.0
"""Seconds after which a marker that was not reached is published again: its queue may be gone, or RabbitMQ was away."""


class Gate:
    """Lets the exits of a queue pass, or holds them."""

    def __init__(
        self,
        mark: Callable[[str], None],
        come: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
        partition: int = 0,
    ) -> None:
        self._mark, self._come, self._clock, self._partition = mark, come, clock, partition
        self._marker, self._marked_at = "", -math.inf
        self._speaks_for = -1  # how many messages had come when it was published
        self._lists, self._stood, self._looked_at, self._goes_on = -1, 0.0, 0.0, False

    def record(self, records: Records, exits: Sequence[Event], last: int) -> list[Recorded]:
        """Record exits, unless entries wait that may be earlier than they."""
        if last > self._speaks_for >= 0 or not self._marker:
            self._marker, self._marked_at, self._speaks_for = str(uuid.uuid4()), -math.inf, -1
        try:
            after = _a_moment_before(max(event.time for event in exits))
            recorded = records.record_exits(exits, after, self._marker, self._partition)
            self._stood = 0.0  # nothing stands still, though no entry may have come since long
            return recorded
        except ExitsHeld as held:
            if self._has_stood(held.lists):
                return records.record(exits)
        if self._clock() >= self._marked_at + MARKED_EVERY:
            self._publish()
        raise MustWait("entries wait that may be earlier")

    def _publish(self) -> None:
        """Publish the marker, of which the records know; while RabbitMQ does not take it no standstill is counted."""
        if self._speaks_for < 0:
            self._speaks_for = self._come()
        try:
            self._mark(self._marker)
        except BrokerConnectionError:
            self._stood = 0.0
        self._marked_at = self._clock()

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
            queue = partition_queue(VehicleEntered.queue, self._partition)
            log.warning("%s: none was recorded for %d s: exits go on without them", queue, STANDSTILL)
        return self._goes_on


def _a_moment_before(canonical: str) -> str:
    try:
        return format_time(parse_time(canonical) - SLACK)
    except OverflowError:
        return ""
