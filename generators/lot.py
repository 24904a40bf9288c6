"""Who is inside, as the cameras need to know it; and the lot of a run that has everything in one process."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from carpark.domain.events import Event


class Refusal(Enum):
    """Why a vehicle cannot enter, or leave, now."""

    TAKEN = "a vehicle with this plate is inside or on its way in"
    FULL = "the car park is full"
    NOBODY = "nobody is inside"
    LEAVING = "everybody inside is leaving already"
    AHEAD = "everybody inside entered in the future of this machine's clock"
    SEARCHING = "nearly everybody inside is leaving already"


@dataclass(frozen=True)
class Crowd:
    """How many vehicles there are."""

    inside: int
    entering: int = 0

    @property
    def total(self) -> int:
        """Both together: what counts against the capacity."""
        return self.inside + self.entering


class Lot(ABC):
    """The car park as the cameras see it: every plate inside at most once, every vehicle leaving at most once."""

    shared: bool

    @abstractmethod
    def enter(self, plate: str, time: str, event_id: str) -> Refusal | None:
        """Let a vehicle in, if there is room and its plate is free."""

    @abstractmethod
    def leave(self, time: str) -> str | Refusal:
        """Choose a vehicle that leaves. No camera will choose the same stay again."""

    @abstractmethod
    def slip_out(self, plate: str, time: str) -> bool:
        """Ask whether a vehicle that no entry camera saw may leave: its plate is neither inside nor entering."""

    @abstractmethod
    def crowd(self) -> Crowd:
        """Count."""

    def keep(self, events: Sequence[Event], *, confirmed: bool) -> None:  # noqa: B027 - one process needs no claims
        """Hear about events that were made here, so that nobody else makes up the same ones."""

    def close(self) -> None:  # noqa: B027 - nothing to do is the ordinary case
        """Let go of connections. May be called again."""


class LocalLot(Lot):
    """The lot of a run in one process: it knows by what the cameras saw, not by what the backend has got round to.

    Who leaves is drawn from those who entered before, in the order of the cameras' due times, so that a seed repeats it
    however fast or slow the rest of the process is.
    """

    shared = False

    def __init__(self, capacity: int, chance: random.Random) -> None:
        self._capacity = capacity
        self._chance = chance
        self._plates: list[str] = []
        self._position: dict[str, int] = {}

    def enter(self, plate: str, time: str, event_id: str) -> Refusal | None:
        """Let a vehicle in, if there is room and its plate is free."""
        if self._capacity and len(self._plates) >= self._capacity:
            return Refusal.FULL
        if plate in self._position:
            return Refusal.TAKEN
        self._position[plate] = len(self._plates)
        self._plates.append(plate)
        return None

    def leave(self, time: str) -> str | Refusal:
        """Choose a vehicle that leaves."""
        if not self._plates:
            return Refusal.NOBODY
        place = self._chance.randrange(len(self._plates))
        plate, last = self._plates[place], self._plates.pop()
        if place < len(self._plates):
            self._plates[place] = last
            self._position[last] = place
        del self._position[plate]
        return plate

    def slip_out(self, plate: str, time: str) -> bool:
        """Ask whether a plate is not inside."""
        return plate not in self._position

    def crowd(self) -> Crowd:
        """Count."""
        return Crowd(len(self._plates))
