"""The gate: how long exits wait for entries, and that they say so once when they go on without them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest
from dramatiq.errors import ConnectionClosed

from carpark.backend.gate import MARKED_EVERY, STANDSTILL, Gate
from carpark.broker.dispatch import MustWait
from carpark.domain.events import Event, VehicleExited
from carpark.errors import RecordsUnavailable
from carpark.records import ExitsHeld, Recorded
from carpark.records.memory import MemoryRecords, Store
from tests.support.stays import exited

SECOND = 1_000_000


class Entries(MemoryRecords):
    """Stands for the records: how far the entries have come is what the test says."""

    def __init__(self) -> None:
        super().__init__(Store(), 1)
        self.last, self.reached, self.lists, self.away = "", "", 0, False
        self.asked: list[tuple[str, str]] = []

    def record_exits(self, exits: Sequence[Event], after: str, marker: str, partition: int = 0) -> list[Recorded]:
        if self.away:
            raise RecordsUnavailable("away")
        self.asked.append((after, marker))
        if not (self.last and self.last >= after) and self.reached != marker:
            raise ExitsHeld(self.lists)
        return self.record(exits)

    def record(self, events: Sequence[Event]) -> list[Recorded]:
        return [Recorded(f"exit/{event.id}", None) for event in events]


class Stand:
    """A gate between entries and exits, and the time."""

    def __init__(self) -> None:
        self.now, self.is_broker_away = 0.0, False
        self.published: list[tuple[float, str]] = []
        self.entries = Entries()
        self.come = 0
        self.gate = Gate(self._mark, lambda: self.come, lambda: self.now)

    def _mark(self, marker: str) -> None:
        if self.is_broker_away:
            raise ConnectionClosed("away")
        assert marker in [asked for _, asked in self.entries.asked], "else it may be reached before anybody waits"
        self.published.append((self.now, marker))

    def reach(self) -> None:
        """The entries have come to the last marker."""
        self.entries.reached = self.published[-1][1]

    def passes(self, *exits: Event, last: int = 0) -> bool:
        """Look; the last of the exits is the one with that number from their queue."""
        self.come = max(self.come, last)
        try:
            return len(self.gate.record(self.entries, exits or [exited("x1")], last)) > 0
        except MustWait:
            return False

    def stand(self, seconds: float, every: float = 0.5) -> bool:
        """Look again and again for so long; says whether the exit passes in the end."""
        passed = False
        for _ in range(round(seconds / every)):
            self.now += every
            passed = self.passes()
        return passed


@pytest.fixture
def stand() -> Stand:
    return Stand()


def test_an_exit_waits_until_its_marker_is_reached(stand: Stand) -> None:
    assert not stand.passes()
    assert not stand.passes()
    stand.reach()
    assert stand.passes()


def test_exits_that_had_come_when_the_marker_was_published_pass_with_it(stand: Stand) -> None:
    stand.come = 30
    assert not stand.passes(last=10)
    stand.reach()
    for last in (10, 20, 30):
        assert stand.passes(exited(f"x{last}"), last=last)
    assert len(stand.published) == 1


def test_exits_that_came_later_wait_for_another_marker(stand: Stand) -> None:
    assert not stand.passes(last=10)
    stand.reach()
    assert stand.passes(last=10)
    assert not stand.passes(last=11), "an entry may have come before it"
    first, second = stand.published
    assert first[1] != second[1]
    assert not stand.passes(last=11)
    stand.reach()
    assert stand.passes(last=11)


def test_exits_that_came_before_a_marker_was_published_again_wait_for_another_all_the_same(stand: Stand) -> None:
    """The copy that was published first may be the one that is reached."""
    stand.is_broker_away = True  # or it has taken it, and only that is not known
    assert not stand.passes(last=10)
    stand.is_broker_away = False
    stand.come = 20
    stand.stand(MARKED_EVERY)
    stand.reach()
    assert stand.passes(last=10)
    assert not stand.passes(last=20)


def test_a_marker_is_published_again_every_five_seconds(stand: Stand) -> None:
    stand.passes()
    stand.stand(3 * MARKED_EVERY)
    assert [at for at, _ in stand.published] == [0, MARKED_EVERY, 2 * MARKED_EVERY, 3 * MARKED_EVERY]
    assert len({marker for _, marker in stand.published}) == 1


def test_a_marker_that_rabbitmq_did_not_take_is_published_again_as_soon(stand: Stand) -> None:
    stand.is_broker_away = True
    assert not stand.passes(), "they are held, the error is not theirs"
    stand.is_broker_away = False
    stand.stand(MARKED_EVERY)
    assert [at for at, _ in stand.published] == [MARKED_EVERY]


@pytest.mark.parametrize(("later", "passes"), [(0, True), (SECOND, True), (SECOND + 1, False)])
def test_an_exit_at_most_a_second_later_than_the_last_entry_does_not_wait(
    stand: Stand, later: int, passes: bool
) -> None:
    stand.entries.last = exited("x1", microseconds=0).time
    assert stand.passes(exited("x1", microseconds=later)) is passes
    assert len(stand.published) == (not passes)


def test_of_several_exits_the_latest_decides(stand: Stand) -> None:
    stand.entries.last = exited("x1", microseconds=0).time
    exits = [exited("x1", microseconds=2 * SECOND), exited("x2", "B2", microseconds=0)]
    assert not stand.passes(*exits)
    assert stand.passes(exits[1])


def test_in_the_first_second_of_the_year_1_any_entry_is_late_enough(stand: Stand) -> None:
    first = VehicleExited.parse({"id": "x", "vehicle_plate": "B1", "exit_date_time": "0001-01-01T00:00:00.5Z"})
    assert not stand.passes(first), "not before any entry is recorded"
    stand.entries.last = first.time
    assert stand.passes(first)
    assert {after for after, _ in stand.entries.asked} == {""}


def test_after_a_minute_without_an_entry_exits_go_on_and_say_so_once(
    stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    assert not stand.passes()
    assert not stand.stand(STANDSTILL - 0.5)
    assert caplog.messages == []
    assert stand.stand(0.5)
    assert stand.stand(10), "and they go on"
    assert stand.passes(exited("x2")), "others, too"
    assert len(caplog.messages) == 1
    assert "60 s: exits go on without them" in caplog.messages[0]


def test_when_entries_are_recorded_again_exits_wait_again_and_a_minute_anew(
    stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    stand.passes()
    assert stand.stand(STANDSTILL)
    stand.entries.lists += 1
    assert not stand.passes()
    assert not stand.stand(STANDSTILL - 0.5)
    stand.entries.lists += 1
    assert not stand.stand(STANDSTILL), "progress: the minute begins with it"
    assert stand.stand(0.5)
    assert len(caplog.messages) == 2


def test_time_in_which_the_records_could_not_be_asked_does_not_count(stand: Stand) -> None:
    stand.passes()
    assert not stand.stand(STANDSTILL / 2)
    stand.entries.away = True
    for _ in range(600):
        stand.now += 1
        with pytest.raises(RecordsUnavailable):
            stand.passes()
    stand.entries.away = False
    assert not stand.passes()
    assert not stand.stand(STANDSTILL / 2 - 1.5), "of ten minutes away a second counts at most"
    assert stand.stand(1.5)


@pytest.mark.slow
def test_while_rabbitmq_does_not_take_the_marker_no_standstill_is_counted(
    stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    stand.is_broker_away = True
    assert not stand.stand(10 * STANDSTILL)
    stand.is_broker_away = False
    assert not stand.stand(STANDSTILL - MARKED_EVERY), "a standstill can only be counted from when it takes it"
    assert caplog.messages == []
    assert stand.stand(MARKED_EVERY + 1)


def test_exits_that_pass_by_their_marker_do_not_add_up_to_a_standstill(
    stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    for number in range(200):  # the car park empties: nobody comes any more
        stand.now += 60
        assert not stand.passes(exited(f"x{number}"), last=number)
        stand.reach()
        assert stand.passes(exited(f"x{number}"), last=number)
    assert caplog.messages == []
