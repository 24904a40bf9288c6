"""What the cameras say, and why they wait."""

from __future__ import annotations

import random
import uuid

import pytest

from carpark.domain.events import VehicleEntered, VehicleExited
from carpark.errors import InvalidSetting, RecordsUnavailable
from carpark.plugins import PlateGenerator
from generators.cameras import MOST_OWED, Camera, EntryCamera, ExitCamera, Seen, Wait
from generators.chance import MatchSequence
from generators.clock import Stamps
from generators.lot import LocalLot, Lot, Refusal
from tests.support.generating import HandClock, ListPlates, numbered


def lot(capacity: int = 0) -> LocalLot:
    return LocalLot(capacity, random.Random(1))


def entry_camera(where: Lot, plates: PlateGenerator, capacity: int = 0) -> EntryCamera:
    return EntryCamera(where, plates, Stamps(HandClock()), capacity)


def exit_camera(where: Lot, plates: PlateGenerator, ratio: float = 0.8) -> ExitCamera:
    return ExitCamera(where, plates, Stamps(HandClock()), MatchSequence(ratio, random.Random(1)))


def saw(camera: Camera) -> Seen:
    seen = camera.look()
    assert isinstance(seen, Seen)
    return seen


def waits(camera: Camera) -> Wait:
    wait = camera.look()
    assert isinstance(wait, Wait)
    return wait


def test_an_entry_is_an_event_as_the_contract_has_it() -> None:
    event = saw(entry_camera(lot(), ListPlates(["ab-1 23"]))).event
    assert VehicleEntered.parse(event.to_dict()) == event
    assert event.to_dict().keys() == {"id", "vehicle_plate", "entry_date_time"}
    assert event.vehicle_plate == "AB123"
    assert event.time == "2026-11-23T12:00:00.000000Z"
    assert uuid.UUID(event.id).version == 4


def test_an_exit_is_an_event_as_the_contract_has_it() -> None:
    seen = saw(exit_camera(lot(), ListPlates(["ab-1 23"]), ratio=0))
    assert VehicleExited.parse(seen.event.to_dict()) == seen.event
    assert seen.event.to_dict().keys() == {"id", "vehicle_plate", "exit_date_time"}
    assert not seen.matched


def test_no_plate_enters_twice_while_it_is_inside() -> None:
    camera = entry_camera(lot(), ListPlates(["A", "A", "B", "A", "C"]))
    assert [saw(camera).event.vehicle_plate for _ in range(3)] == ["A", "B", "C"]


def test_when_the_car_park_is_full_the_entry_camera_waits_with_the_same_vehicle() -> None:
    where = lot(2)
    camera = entry_camera(where, ListPlates(numbered(5)), capacity=2)
    saw(camera), saw(camera)
    assert waits(camera) == Wait("full", "the car park is full: 2 inside, capacity 2")
    assert waits(camera).reason == "full"
    where.leave("")
    assert saw(camera).event.vehicle_plate == "P000002"


def test_when_every_plate_of_the_list_is_inside_the_entry_camera_waits() -> None:
    where = lot()
    camera = entry_camera(where, ListPlates(["A", "B"]))
    saw(camera), saw(camera)
    assert waits(camera) == Wait("no_plate", "every plate of the list is inside (2)")
    gone = where.leave("")
    assert saw(camera).event.vehicle_plate == gone


def test_a_generator_that_finds_no_free_plate_is_asked_again_later() -> None:
    camera = entry_camera(lot(), ListPlates(["A"], known=False))
    saw(camera)
    assert waits(camera).again


def test_while_nobody_is_inside_the_exit_camera_waits_rather_than_spoil_the_share() -> None:
    where = lot()
    camera = exit_camera(where, ListPlates(numbered(1000)), ratio=1)
    assert [waits(camera) for _ in range(5)] == [Wait("nobody", "nobody is inside")] * 5
    where.enter("A", "", "")
    assert saw(camera).event.vehicle_plate == "A"


def test_over_a_thousand_exits_the_share_is_kept_whatever_waits_there_were() -> None:
    where = lot()
    camera = exit_camera(where, ListPlates(numbered(1000)))
    seen: list[Seen] = []
    while len(seen) < 1000:
        found = camera.look()
        if isinstance(found, Seen):
            seen.append(found)
        else:
            for plate in numbered(3, first=10_000 + 3 * len(seen)):
                where.enter(plate, "", "")
    assert sum(each.matched for each in seen) == 800


def test_an_unmatched_exit_is_never_of_a_plate_that_is_inside() -> None:
    where = lot()
    where.enter("A", "", "")
    camera = exit_camera(where, ListPlates(["A", "B"]), ratio=0)
    assert {saw(camera).event.vehicle_plate for _ in range(10)} == {"B"}


def test_when_every_plate_of_the_list_is_inside_none_can_be_missed() -> None:
    where = lot()
    where.enter("A", "", "")
    assert waits(exit_camera(where, ListPlates(["A"]), ratio=0)).text == "every plate of the list is inside (1)"


def matched_where_all_are_inside_at_first(exits: int, at_first: int) -> list[bool | None]:
    """Let vehicles leave; before the first ones every plate of the list is inside."""
    where = lot()
    camera = exit_camera(where, ListPlates(["A", "B"]))
    seen = []
    for number in range(exits):
        for plate in ("A", "B") if number < at_first else ("A",):
            where.enter(plate, "", "")
        seen.append(saw(camera).matched)
    return seen


def test_when_every_plate_of_the_list_is_inside_somebody_leaves_and_a_missed_one_makes_up_for_it_later() -> None:
    seen = matched_where_all_are_inside_at_first(100, 50)
    assert all(seen[:50])
    assert sum(seen) == 80


def test_what_could_not_be_for_long_is_not_made_up_for_as_long() -> None:
    seen = matched_where_all_are_inside_at_first(2000, 1000)
    assert sum(map(bool, seen[:1000])) == 1000
    assert sum(map(bool, seen[1000:])) == 800 - MOST_OWED


def test_a_lot_that_cannot_be_asked_costs_no_plate_of_the_sequence() -> None:
    class Flickering(LocalLot):
        asked = 0

        def enter(self, plate: str, time: str, event_id: str) -> Refusal | None:
            self.asked += 1
            if self.asked % 2:
                raise RecordsUnavailable("away")
            return super().enter(plate, time, event_id)

    camera = entry_camera(Flickering(0, random.Random(1)), ListPlates(numbered(5)))
    plates = []
    while len(plates) < 5:
        try:
            plates.append(saw(camera).event.vehicle_plate)
        except RecordsUnavailable:
            continue
    assert plates == numbered(5)


def test_a_generator_that_makes_no_plates_is_named() -> None:
    with pytest.raises(InvalidSetting, match=r"CARPARK_PLATES='#!'"):
        entry_camera(lot(), ListPlates(["#!"])).look()
