"""The two cameras: what the next event says, or why there is none now."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

from carpark.domain.events import Event, VehicleEntered, VehicleExited, canonical_plate
from carpark.errors import InvalidSetting
from carpark.plugins import PlateGenerator
from generators.chance import MatchSequence
from generators.clock import Stamps
from generators.lot import Lot, Refusal

TRIES = 1000
"""How many made-up plates are tried in a row before the camera says that it finds no free one."""

MOST_OWED = 20
"""How many missed vehicles an exit camera makes up for at most: as many as the share over 1,000 exits may be off by."""


@dataclass(frozen=True)
class Seen:
    """The camera saw a vehicle."""

    event: Event
    matched: bool | None = True


@dataclass(frozen=True)
class Wait:
    """The camera sees nobody, and why."""

    reason: str
    text: str
    again: bool = False


class _Source:
    """Made-up plates, of which one is kept until it is used or refused, so that a failure never skips one."""

    def __init__(self, plates: PlateGenerator) -> None:
        self._plates = plates
        self._kept: str | None = None
        self.population = plates.population

    def peek(self) -> str:
        if self._kept is None:
            text = self._plates.sample()
            try:
                self._kept = canonical_plate(text)
            except ValueError as error:
                raise InvalidSetting("CARPARK_PLATES", text, f"a generator of plates; {error}") from None
        return self._kept

    def drop(self) -> None:
        self._kept = None

    def forward(self, plates: Iterable[str]) -> bool:
        """Draw until each of these came, in their order; False if one does not come."""
        for plate in plates:
            for _ in range(TRIES * 100):
                found = self.peek() == plate
                self.drop()
                if found:
                    break
            else:
                return False
        return True


class Camera(ABC):
    """One camera at one gate."""

    event_type: type[VehicleEntered] | type[VehicleExited]
    kind: str

    def __init__(self, lot: Lot, plates: PlateGenerator, stamps: Stamps) -> None:
        self.lot = lot
        self._source = _Source(plates)
        self._stamps = stamps
        self._id: str | None = None

    @abstractmethod
    def look(self) -> Seen | Wait:
        """Look for the next vehicle."""

    @abstractmethod
    def forward(self, plates: Iterable[str]) -> bool:
        """Go on where an earlier run with the same seed stopped."""

    def _next_id(self) -> str:
        if self._id is None:
            self._id = str(uuid.uuid4())
        return self._id

    def _exhausted(self) -> Wait | None:
        population = self._source.population
        if population is not None and self.lot.crowd().total >= population:
            return Wait("no_plate", f"every plate of the list is inside ({population})")
        return None


class EntryCamera(Camera):
    """Sees vehicles enter: made-up plates, none of which is inside."""

    event_type = VehicleEntered
    kind = VehicleEntered.kind

    def __init__(self, lot: Lot, plates: PlateGenerator, stamps: Stamps, capacity: int = 0) -> None:
        super().__init__(lot, plates, stamps)
        self._capacity = capacity

    def look(self) -> Seen | Wait:
        """Look for the next vehicle that wants in."""
        for tries in range(TRIES):
            plate, time, id_ = self._source.peek(), self._stamps.stamp(), self._next_id()
            refusal = self.lot.enter(plate, time, id_)
            if refusal is None:
                self._source.drop()
                self._id = None
                return Seen(VehicleEntered.model_construct(id=id_, vehicle_plate=plate, entry_date_time=time))
            if refusal is Refusal.FULL:
                return self._full()
            self._source.drop()
            if tries % 100 == 20 and (wait := self._exhausted()):
                return wait
        return Wait("no_plate", f"no free plate among {TRIES} that were made up", again=True)

    def forward(self, plates: Iterable[str]) -> bool:
        """Go on where an earlier run with the same seed stopped; see `Camera.forward`."""
        return self._source.forward(plates)

    def _full(self) -> Wait:
        crowd = self.lot.crowd()
        entering = f" and {crowd.entering} on their way in" if crowd.entering else ""
        return Wait("full", f"the car park is full: {crowd.inside} inside{entering}, capacity {self._capacity}")


class ExitCamera(Camera):
    """Sees vehicles leave: most of them were seen entering, the others were missed by the entry camera."""

    event_type = VehicleExited
    kind = VehicleExited.kind

    def __init__(self, lot: Lot, plates: PlateGenerator, stamps: Stamps, sequence: MatchSequence) -> None:
        super().__init__(lot, plates, stamps)
        self._sequence = sequence
        self._matched: bool | None = None
        self._owed = 0

    def look(self) -> Seen | Wait:
        """Look for the next vehicle that wants out."""
        if self._matched is None:
            self._matched = self._sequence.sample()
        if self._matched:
            return (self._make_up() if self._owed else None) or self._leaving()
        missed = self._missed()
        if isinstance(missed, Wait) and self._sequence.ratio > 0 and isinstance(leaving := self._leaving(), Seen):
            self._owed = min(self._owed + 1, MOST_OWED)
            return leaving
        return missed

    def forward(self, plates: Iterable[str]) -> bool:
        """Go on where an earlier run with the same seed stopped; see `Camera.forward`."""
        return self._source.forward(plate for plate in plates if not self._sequence.sample())

    def _make_up(self) -> Seen | None:
        missed = self._missed()
        if isinstance(missed, Wait):
            return None
        self._owed -= 1
        return missed

    def _leaving(self) -> Seen | Wait:
        time = self._stamps.stamp()
        plate = self.lot.leave(time)
        if isinstance(plate, Refusal):
            return Wait("nobody", plate.value, again=plate is Refusal.SEARCHING)
        return self._seen(plate, time, matched=True)

    def _missed(self) -> Seen | Wait:
        for tries in range(TRIES):
            plate, time = self._source.peek(), self._stamps.stamp()
            free = self.lot.slip_out(plate, time)
            self._source.drop()
            if free:
                return self._seen(plate, time, matched=False)
            if tries % 100 == 20 and (wait := self._exhausted()):
                return wait
        return Wait("no_plate", f"no plate that is not inside among {TRIES} that were made up", again=True)

    def _seen(self, plate: str, time: str, *, matched: bool) -> Seen:
        self._matched = None
        event = VehicleExited.model_construct(id=self._next_id(), vehicle_plate=plate, exit_date_time=time)
        self._id = None
        return Seen(event, matched)
