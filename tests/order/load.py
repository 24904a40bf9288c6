"""A backlog of vehicles that come back, as a worker finds it that was away: each queue in the order of its times."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from carpark.domain.events import Event, VehicleEntered, VehicleExited, format_time
from carpark.domain.routing import queue_for
from generators.build import KINDS
from generators.journal import Journal
from generators.publisher import RabbitmqPublisher

MOST_STAYS = 6
"""Stays of one plate at most: no more of its entries, or exits, are ahead of the others than the records keep open."""

DAY = timedelta(hours=10)
EVENING = timedelta(hours=1)
SECOND = timedelta(seconds=1)
_WINDOW = 500

Stays = list[tuple[VehicleEntered, VehicleExited]]


@dataclass(frozen=True)
class Load:
    """How many vehicles come how often. It has a seed's events in `draw`.

    Args:
        name: What it is called.
        stays: Stays of plates that come back.
        plates: How many such plates there are; none of them has more than `MOST_STAYS` stays.
        missed: Share of the readings that are missing, at either gate.
        commuters: Further vehicles, each of which enters before all of the others and leaves after them: so many
            entries stand in front of the first one that belongs to the first exit.
    """

    name: str
    stays: int
    plates: int
    missed: float = 0.0
    commuters: int = 0

    def draw(self, seed: int) -> list[Event]:
        """Draw the day.

        Args:
            seed: Draws the same but for the date: the day ends now.

        Returns:
            Its events in the order of their times.
        """
        chance = random.Random(f"{self.name}/{seed}")
        stays = [*self._returning(chance), *self._commuters()]
        events: list[Event] = [event for stay in stays for event in stay if chance.random() >= self.missed]
        return sorted(events, key=lambda event: event.time)

    def _returning(self, chance: random.Random) -> Stays:
        morning = datetime.now(UTC) - EVENING - DAY
        visits = Counter(chance.sample([f"BACK{n:05}" for n in range(self.plates)] * MOST_STAYS, self.stays))
        stays: Stays = []
        for plate, count in visits.items():
            # A second and more apart: no two stays overlap or touch, and none is so short that its exit need not wait.
            moments = sorted(chance.sample(range(DAY // (2 * SECOND)), 2 * count))
            times = [morning + (2 * moment + chance.random()) * SECOND for moment in moments]
            stays += [
                _stay(f"{plate}/{n}", plate, *pair) for n, pair in enumerate(zip(times[::2], times[1::2], strict=True))
            ]
        return stays

    def _commuters(self) -> Stays:
        step = EVENING / max(1, self.commuters)
        now = datetime.now(UTC)
        return [
            _stay(f"ONCE{n:05}", f"ONCE{n:05}", now - DAY - 2 * EVENING + n * step, now - EVENING + n * step)
            for n in range(self.commuters)
        ]


def _stay(id_: str, plate: str, entered: datetime, left: datetime) -> tuple[VehicleEntered, VehicleExited]:
    fields = {"id": id_, "vehicle_plate": plate}
    return (
        VehicleEntered.parse({**fields, "entry_date_time": format_time(entered)}),
        VehicleExited.parse({**fields, "exit_date_time": format_time(left)}),
    )


def publish(
    events: Sequence[Event], url: str, journals: Sequence[Path], queue_type: str, partitions: int, name: str
) -> dict[str, list[str]]:
    """Write events down and send them, as the generators do.

    Args:
        events: Entries and exits, each kind in its order.
        url: The broker.
        journals: Those of the entries and of the exits.
        queue_type: ``CARPARK_QUEUE_TYPE``.
        partitions: ``CARPARK_PARTITIONS``.
        name: What the connections are called.

    Returns:
        Queue to ``<kind> <id>`` of its events in their order, all of them confirmed.
    """
    published: dict[str, list[str]] = {}
    for (kind, event_type), path in zip(KINDS.items(), journals, strict=False):
        journal = Journal(path, event_type)
        publisher = RabbitmqPublisher(url, threading.Event(), print, name, queue_type, partitions)
        its = [event for event in events if event.kind == kind]
        for start in range(0, len(its), _WINDOW):
            window = its[start : start + _WINDOW]
            journal.append(window)
            journal.confirm(publisher.publish(window))
        for event in its:
            published.setdefault(queue_for(event, partitions), []).append(f"{event.kind} {event.id}")
        publisher.close()
        journal.close()
    return published
