"""The records of a Redis whose primary dies, found again through Sentinels."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from carpark.errors import RecordsUnavailable
from carpark.records import Outcome, open_records
from generators.clock import Clock
from generators.redis_lot import RedisLot
from tests.support.helpers import eventually, find_free_port
from tests.support.replicated import ReplicatedRedis, replicated_redis
from tests.support.stays import entered, exited

pytestmark = pytest.mark.servers


@pytest.fixture
def pair() -> Iterator[ReplicatedRedis]:
    with replicated_redis() as pair:
        yield pair


def test_records_and_claims_go_on_with_the_new_primary(pair: ReplicatedRedis) -> None:
    records = open_records(pair.url, 100.0, ["http-csv"])
    lot = RedisLot.connect(pair.url, Clock())
    assert [each.outcome for each in records.record([entered("e1", "AB1")])] == [Outcome.RECORDED]
    assert lot.leave("2026-11-23T18:30:00.000000Z") == "AB1"  # its claim is in database 1
    with redis.Redis.from_url(pair.primary.url) as client:
        assert client.wait(1, 10_000) == 1
    pair.primary.kill()

    def closes() -> bool:
        try:
            (effect,) = records.record([exited("x1", "AB1", 60)])
        except RecordsUnavailable:
            return False
        return effect.outcome is Outcome.MATCHED and effect.summary is not None

    eventually(closes, 60, "the exit finds its entry at the new primary")
    eventually(lambda: pair.primary_port == pair.replica.port, 20, "every Sentinel says so")
    records.close()
    lot.close()
    with redis.Redis.from_url(pair.replica.url.removesuffix("0") + "1", decode_responses=True) as client:
        assert client.hexists("carpark:leaving", "AB1")


def test_sentinels_that_are_away_are_named_as_redis_away() -> None:
    records = open_records(f"redis+sentinel://127.0.0.1:{find_free_port()}/stays/0", 100.0, attempts=0)
    with pytest.raises(RecordsUnavailable, match=r"^Redis: .*stays"):
        records.inside()
    records.close()
