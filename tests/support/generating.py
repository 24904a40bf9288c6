"""What tests of the generators share: a clock moved by hand, plates from a list, publishers that only remember."""

from __future__ import annotations

import itertools
import json
import threading
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pika

from carpark.domain.events import Event, VehicleEntered, VehicleExited
from carpark.plugins import PlateGenerator
from generators.clock import Clock
from generators.publisher import Publisher

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


class HandClock(Clock):
    """A clock that moves only when something waits, or when it is told to.

    Args:
        booted: What the monotonic clock shows first, in seconds.
    """

    def __init__(self, booted: float = 1000.0) -> None:
        self.elapsed = 0.0
        self._booted = booted

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.elapsed)

    def monotonic(self) -> float:
        return self._booted + self.elapsed

    def wait(self, seconds: float, stop: threading.Event) -> None:
        if not stop.is_set():
            self.elapsed += seconds


class ListPlates(PlateGenerator):
    """Gives the plates of a list, over and over.

    Args:
        plates: The list.
        known: Whether it says how many there are.
    """

    def __init__(self, plates: Sequence[str], *, known: bool = True) -> None:
        self._plates = itertools.cycle(plates)
        self.population = len(set(plates)) if known else None

    def sample(self) -> str:
        return next(self._plates)

    def is_valid(self, plate: str) -> bool:
        return True


def numbered(count: int, first: int = 0) -> list[str]:
    """Make plates that can be told apart."""
    return [f"P{number:06}" for number in range(first, first + count)]


class ListPublisher(Publisher):
    """Remembers what was published.

    Args:
        meanwhile: Called with each window before it is confirmed; returns how many of its events are.
    """

    def __init__(self, meanwhile: Callable[[Sequence[Event]], int | None] | None = None) -> None:
        self.events: list[Event] = []
        self.windows: list[int] = []
        self._meanwhile = meanwhile

    def publish(self, events: Sequence[Event]) -> int:
        count = self._meanwhile(events) if self._meanwhile else None
        count = len(events) if count is None else count
        self.events += events[:count]
        self.windows.append(len(events))
        return count

    @property
    def plates(self) -> list[str]:
        """The plates of all events, in their order."""
        return [event.vehicle_plate for event in self.events]


def entered(plate: str, time: str, id_: str | None = None) -> VehicleEntered:
    """Make an entry event."""
    return VehicleEntered(id=id_ or str(uuid.uuid4()), vehicle_plate=plate, entry_date_time=time)


def exited(plate: str, time: str, id_: str | None = None) -> VehicleExited:
    """Make an exit event."""
    return VehicleExited(id=id_ or str(uuid.uuid4()), vehicle_plate=plate, exit_date_time=time)


class Wire:
    """The broker as another program sees it."""

    def __init__(self, url: str) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self.channel = self._connection.channel()

    def drain(self, queue: str) -> list[dict[str, Any]]:
        """Take everything from a queue; gives the Dramatiq messages."""
        messages = []
        while True:
            method, properties, body = self.channel.basic_get(queue, auto_ack=True)
            if method is None:
                return messages
            assert properties.delivery_mode == 2
            assert properties.content_type == "application/json"
            messages.append(json.loads(body))

    def count(self, queue: str) -> int:
        return int(self.channel.queue_declare(queue, passive=True).method.message_count)

    def close(self) -> None:
        self._connection.close()


def _lines_of(journal: Path) -> list[dict[str, Any]]:
    whole, _, _ = journal.read_text().rpartition("\n")  # the generator may be writing, or have died in it
    return [json.loads(line) for line in whole.splitlines()]


def events_of(journal: Path) -> list[dict[str, Any]]:
    """Read the events of a journal."""
    return [line for line in _lines_of(journal) if "confirmed" not in line]


def confirmed_in(journal: Path) -> int:
    """Read how many events of a journal are confirmed."""
    counts = [line["confirmed"] for line in _lines_of(journal) if "confirmed" in line]
    return int(counts[-1]) if counts else 0
