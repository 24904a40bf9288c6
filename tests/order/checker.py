"""Holds the order in which events took effect against the order in which they stood in their queue: exact, no sample.

The atomic step itself writes the first down, as ``<kind> <id>``, once a test has made the list `KEY`.
"""

from __future__ import annotations

from bisect import bisect, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import redis

KEY = "carpark:order"


@dataclass(frozen=True)
class Order:
    """How the events of one queue took effect.

    Args:
        overtaken: Events that took effect after one that stood behind them.
        furthest: How many places behind an event that overtook it stood at most.
        inversions: Pairs of events that took effect the wrong way round.
        missing: Events that had no effect.
        again: Effects that an event had beside its first.
    """

    overtaken: int = 0
    furthest: int = 0
    inversions: int = 0
    missing: int = 0
    again: int = 0

    @property
    def ok(self) -> bool:
        """Whether every event took effect once, and none overtook another."""
        return self == Order()


def begin(client: redis.Redis) -> None:
    """Have the step write the order down from now on.

    Args:
        client: The records, without a list of an earlier run.
    """
    client.rpush(KEY, "")


def effects(client: redis.Redis) -> list[str]:
    """List the events that have taken effect.

    Args:
        client: The records.

    Returns:
        ``<kind> <id>`` of each since `begin`, in their order.
    """
    return cast(list[str], client.lrange(KEY, 1, -1))


def check(client: redis.Redis, published: Mapping[str, Sequence[str]]) -> dict[str, Order]:
    """Say of each queue in which order its events took effect.

    Args:
        client: The records.
        published: Queue to the events in it, ``<kind> <id>`` each, in their order.

    Returns:
        Queue to what was found.

    Raises:
        KeyError: An event that nobody published took effect.
    """
    queue_of = {event: queue for queue, events in published.items() for event in events}
    done: dict[str, list[str]] = {queue: [] for queue in published}
    for event in effects(client):
        done[queue_of[event]].append(event)
    return {queue: compare(events, done[queue]) for queue, events in published.items()}


def compare(published: Sequence[str], done: Sequence[str]) -> Order:
    """Compare two orders of the same events.

    Args:
        published: The events as they stood in the queue.
        done: The same as they took effect.

    Returns:
        What was found.
    """
    place_of = {event: place for place, event in enumerate(published)}
    first = list(dict.fromkeys(done))
    before: list[int] = []
    overtaken = furthest = inversions = 0
    for place in (place_of[event] for event in first):
        if ahead := len(before) - bisect(before, place):
            overtaken += 1
            inversions += ahead
            furthest = max(furthest, before[-1] - place)
        insort(before, place)
    return Order(overtaken, furthest, inversions, len(published) - len(first), len(done) - len(first))
