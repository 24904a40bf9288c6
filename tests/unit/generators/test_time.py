"""Due times do not drift, and the times in events never go back."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carpark.domain.events import parse_time
from generators.clock import Clock, Stamps
from generators.schedule import Schedule


class HandClock(Clock):
    """Shows the times that it was given, one after the other."""

    def __init__(self, *times: datetime) -> None:
        self._times = list(times)

    def now(self) -> datetime:
        return self._times.pop(0)


@given(rate=st.floats(0.01, 100_000), number=st.integers(0, 1_000_000))
def test_the_due_time_of_an_event_does_not_depend_on_how_the_ones_before_went(rate: float, number: int) -> None:
    schedule = Schedule(rate, 1000.0)
    schedule._number = number
    assert schedule.due == pytest.approx(1000.0 + number / rate, abs=1e-6)


def test_a_million_events_drift_by_nothing() -> None:
    schedule = Schedule(7, 0.0)
    for _ in range(1_000_000):
        schedule.advance()
    assert schedule.due == pytest.approx(1_000_000 / 7, abs=1e-6)


def test_a_wait_moves_all_later_events() -> None:
    schedule = Schedule(10, 0.0)
    schedule.advance()
    schedule.shift(5.0)
    assert schedule.due == pytest.approx(5.1)
    schedule.advance()
    assert schedule.due == pytest.approx(5.2)


def test_what_was_due_and_did_not_happen_is_counted() -> None:
    schedule = Schedule(10, 0.0)
    assert schedule.overdue(0.0) == 0
    assert schedule.overdue(0.05) == 1
    assert schedule.overdue(1.05) == 11


@given(rate=st.integers(1, 20_000), seconds=st.integers(1, 3600), start=st.floats(0, 1e7))
def test_in_a_time_as_many_are_due_as_the_rate_says(rate: int, seconds: int, start: float) -> None:
    schedule = Schedule(rate, start)
    assert schedule.overdue(schedule.due + seconds) == rate * seconds
    schedule.advance()
    assert schedule.overdue(start + seconds) == rate * seconds - 1


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_a_rate_of_nothing_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        Schedule(rate, 0.0)


def test_stamps_go_on_when_the_clock_is_set_back() -> None:
    noon = datetime(2026, 11, 23, 12, tzinfo=UTC)
    stamps = Stamps(HandClock(noon, noon - timedelta(hours=1), noon, noon + timedelta(seconds=1)))
    assert [stamps.stamp() for _ in range(4)] == [
        "2026-11-23T12:00:00.000000Z",
        "2026-11-23T12:00:00.000001Z",
        "2026-11-23T12:00:00.000002Z",
        "2026-11-23T12:00:01.000000Z",
    ]


@given(st.lists(st.datetimes(timezones=st.just(UTC), min_value=datetime(2000, 1, 1)), min_size=2, max_size=20))
def test_each_stamp_is_later_than_the_one_before_whatever_the_clock_says(times: list[datetime]) -> None:
    stamps = Stamps(HandClock(*times))
    given_out = [parse_time(stamps.stamp()) for _ in times]
    assert all(earlier < later for earlier, later in itertools.pairwise(given_out))


def test_stamps_are_later_than_an_earlier_run_and_stand_still_at_the_end_of_time() -> None:
    noon = datetime(2026, 11, 23, 12, tzinfo=UTC)
    stamps = Stamps(HandClock(noon, noon, noon + timedelta(hours=2)), "2026-11-23T13:00:00.000000Z")
    assert [stamps.stamp() for _ in range(3)] == [
        "2026-11-23T13:00:00.000001Z",
        "2026-11-23T13:00:00.000002Z",
        "2026-11-23T14:00:00.000000Z",
    ]
    stamps = Stamps(HandClock(noon, noon), "9999-12-31T23:59:59.999998Z")
    assert {stamps.stamp(), stamps.stamp()} == {"9999-12-31T23:59:59.999999Z"}


def test_the_machines_time_is_utc_and_its_monotonic_clock_moves() -> None:
    clock = Clock()
    assert clock.now().utcoffset() == timedelta(0)
    assert clock.monotonic() <= clock.monotonic()
