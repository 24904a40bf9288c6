"""Which queue an event goes to: those of one kind go through one queue or several, all of a plate through the same one.

The queue with the plain name is partition 0; ``vehicle_entry.1``, ``vehicle_entry.2`` and so on stand beside it. Who
publishes to the plain names loses nothing. The exits of a partition wait for the entries of the same one, so all
readings of a plate have to go by the same rule.
"""

from __future__ import annotations

import re
import zlib
from functools import cache

from carpark.domain.events import EVENT_OF_QUEUE, Event, VehicleEntered, VehicleExited

WORK = "carpark_work"
"""The queue for what the backend sends itself; nobody else needs a right to it."""

DELIVER = "deliver_summaries"
"""The only actor of that queue: takes back a summary that was given up."""

_QUEUE = re.compile(rf"({'|'.join(EVENT_OF_QUEUE)})(?:\.([1-9]\d?))?")


def partition_queue(queue: str, partition: int) -> str:
    """Name the queue of a partition.

    Args:
        queue: The plain name, ``vehicle_entry`` or ``vehicle_exit``.
        partition: 0 or more.

    Returns:
        The plain name for 0, else it with the number behind a dot.
    """
    return f"{queue}.{partition}" if partition else queue


def queue_for(event: Event, partitions: int) -> str:
    """Choose the queue for an event: by the CRC-32 of its canonical plate in UTF-8.

    Args:
        event: The event.
        partitions: How many there are.

    Returns:
        The queue's name.
    """
    if partitions == 1:
        return event.queue
    return partition_queue(event.queue, zlib.crc32(event.vehicle_plate.encode()) % partitions)


def event_queues(partitions: int) -> tuple[str, ...]:
    """Name the queues of events.

    Args:
        partitions: How many partitions there are.

    Returns:
        Those of the entries, then those of the exits.
    """
    return tuple(partition_queue(queue, number) for queue in EVENT_OF_QUEUE for number in range(partitions))


def is_event_queue(name: str) -> bool:
    """Tell whether a queue is one of events, of whichever partition.

    Args:
        name: A queue; a companion is none.

    Returns:
        Whether it is.
    """
    return _QUEUE.fullmatch(name) is not None


@cache
def event_of(queue: str) -> type[VehicleEntered] | type[VehicleExited]:
    """Say which event a queue carries: the queue decides what a message is.

    Args:
        queue: A queue of events.

    Returns:
        The event's class.
    """
    return EVENT_OF_QUEUE[queue.partition(".")[0]]


def partition_of(queue: str) -> int:
    """Say which partition a queue is of.

    Args:
        queue: A queue of events.

    Returns:
        Its number.
    """
    return int(queue.partition(".")[2] or 0)
