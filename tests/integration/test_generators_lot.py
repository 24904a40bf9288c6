"""Who is inside, on a real Redis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from carpark.errors import RecordsUnavailable
from carpark.records.connection import connect
from carpark.records.redis import RedisRecords
from generators.clock import Clock
from generators.redis_lot import RedisLot
from tests.support.generating import HandClock
from tests.support.helpers import find_free_port
from tests.support.lots import RETENTION, EverySharedLot, World


class TestRedisLot(EverySharedLot):
    @pytest.fixture
    def client(self, redis_url: str) -> Iterator[redis.Redis]:
        client = connect(redis_url)
        yield client
        client.close()

    @pytest.fixture
    def world(self, client: redis.Redis) -> World:
        clock = HandClock()
        records = RedisRecords(client, RETENTION, [], lambda: clock.now().timestamp())
        return World(RedisLot(client, clock, capacity=10, retention=RETENTION), clock, records)


def test_a_redis_that_is_not_there_is_a_clear_error() -> None:
    lot = RedisLot.connect(f"redis://127.0.0.1:{find_free_port()}/0", Clock())
    with pytest.raises(RecordsUnavailable, match="refused"):
        lot.crowd()
    lot.close()


def test_who_leaves_is_found_as_fast_among_many_as_among_few(redis_url: str) -> None:
    client = connect(redis_url)
    lot = RedisLot(client, Clock())

    def commands_per_exit() -> float:
        client.config_resetstat()
        for _ in range(50):
            lot.leave("2026-11-23T13:00:00.000000Z")
        stats = client.info("commandstats")
        return sum(int(stat["calls"]) for stat in stats.values()) / 50  # type: ignore[union-attr]

    def fill(first: int, last: int) -> None:
        pipeline = client.pipeline(transaction=False)
        for number in range(first, last):
            pipeline.sadd("entry_plates", f"P{number}")
            pipeline.hset(f"P{number}", "entry_time", "2026-11-23T12:00:00.000000Z")
        pipeline.execute()

    fill(0, 1000)
    few = commands_per_exit()
    fill(1000, 30_000)
    many = commands_per_exit()
    client.close()
    assert many <= few + 1, (few, many)
