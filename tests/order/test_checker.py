"""The checker of order: it sees each event that was overtaken, and each that is missing or took effect twice."""

from __future__ import annotations

import pytest
import redis

from carpark.records.redis import RedisRecords
from tests.order import checker
from tests.order.checker import Order, compare
from tests.order.load import Load
from tests.support.stays import entered, exited

QUEUE = [f"entry {number}" for number in range(5)]


def test_the_order_of_the_queue_is_well() -> None:
    assert compare(QUEUE, QUEUE).ok


@pytest.mark.parametrize(
    ("places", "found"),
    [
        ([1, 0, 2, 3, 4], Order(overtaken=1, furthest=1, inversions=1)),
        ([1, 2, 3, 4, 0], Order(overtaken=1, furthest=4, inversions=4)),
        ([4, 0, 1, 2, 3], Order(overtaken=4, furthest=4, inversions=4)),
        ([4, 3, 2, 1, 0], Order(overtaken=4, furthest=4, inversions=10)),
        ([0, 1, 3, 4], Order(missing=1)),
        ([0, 1, 2, 1, 3, 4], Order(again=1)),
    ],
)
def test_what_is_not_in_order_is_counted(places: list[int], found: Order) -> None:
    assert compare(QUEUE, [QUEUE[place] for place in places]) == found


def test_the_step_writes_down_first_effects_where_a_list_was_made(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        records = RedisRecords(client, 100.0, ())
        records.record([entered("before")])
        assert not client.exists(checker.KEY)
        checker.begin(client)
        records.record([exited("b", "B1"), entered("a"), entered("before")])
        records.record([exited("b", "B2"), exited("a")])
        assert checker.effects(client) == ["exit b", "entry a", "exit a"]
        assert checker.check(client, {"in": ["entry a"], "out": ["exit a", "exit b"]}) == {
            "in": Order(),
            "out": Order(overtaken=1, furthest=1, inversions=1),
        }


def test_stays_of_a_plate_do_not_touch_and_a_seed_draws_them_again() -> None:
    load = Load("a few", 40, 8, missed=0.1, commuters=5)
    events = load.draw(3)
    drawn = [(event.kind, event.id) for event in events]
    assert drawn == [(event.kind, event.id) for event in load.draw(3)]
    assert drawn != [(event.kind, event.id) for event in load.draw(4)]
    assert 0 < 90 - len(events) < 30
    for plate in {event.vehicle_plate for event in events}:
        its = [event for event in Load("a few", 40, 8).draw(3) if event.vehicle_plate == plate]
        assert [event.kind for event in its] == ["entry", "exit"] * (len(its) // 2)
        assert len({event.time for event in its}) == len(its) <= 12
