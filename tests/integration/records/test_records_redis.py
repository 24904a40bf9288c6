"""The records when Redis does what the store in this process never does: forgets scripts, refuses, hangs, dies."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import redis

from carpark.domain.events import Event
from carpark.errors import RecordsUnavailable
from carpark.records import Batch, Outcome, Records, Settlement, connect
from carpark.records import connection as connection_module
from tests.support.helpers import eventually, find_free_port
from tests.support.servers import RedisServer
from tests.support.stays import entered, exited

RETENTION = 100.0
OURS = ["entry_plates", "carpark:counts", "carpark:seen:entry", "carpark:seen:exit", "carpark:sinks"]
OURS.append("carpark:outbox:http-csv")


@contextmanager
def opened(url: str) -> Iterator[tuple[redis.Redis, Records]]:
    client = connect(url)
    records = Records(client, RETENTION, ["http-csv"])
    yield client, records
    records.close()


def state_of(client: redis.Redis) -> dict[str, object]:
    """Everything that the database holds."""
    return {key: client.dump(key) for key in client.scan_iter()}


def test_a_script_that_redis_forgot_is_sent_again(redis_url: str) -> None:
    with opened(redis_url) as (client, records):
        records.record([entered("e1")])
        client.script_flush()
        records.record([exited("x1")])
        client.script_flush()
        assert isinstance(records.outbox("http-csv").take(1), Batch)
        assert records.counts()["summaries"] == 1


@pytest.mark.slow
def test_a_redis_that_is_not_there_is_said_quickly_and_in_one_line() -> None:
    with opened(f"redis://127.0.0.1:{find_free_port()}/0") as (_, records):
        steps = [
            lambda: records.record([entered("e1")]),
            lambda: records.outbox("http-csv").take(1),
            lambda: records.outbox("http-csv").settle(Batch(1, 1, 0, False, ()), Settlement()),
            lambda: list(records.outbox("http-csv").stays()),
            records.backlogs,
            lambda: records.reject("entry"),
            records.counts,
            records.inside,
            records.undelivered,
            records.ping,
        ]
        for step in steps:
            started = time.monotonic()
            with pytest.raises(RecordsUnavailable) as raised:
                step()
            assert time.monotonic() - started < 3
            assert str(raised.value).startswith("Redis: ")
            assert "\n" not in str(raised.value)


def test_recording_goes_on_after_a_crash_of_redis(private_redis: RedisServer) -> None:
    with opened(private_redis.url) as (_, records):
        records.record([entered("e1")])
        private_redis.kill()
        with pytest.raises(RecordsUnavailable):
            records.record([exited("x1")])
        private_redis.start()
        assert records.record([entered("e1"), exited("x1")])[1].outcome is Outcome.MATCHED
        assert records.counts()["entry/duplicate"] == 1


def test_a_redis_that_hangs_is_given_up_once_and_its_late_work_is_not_done_twice(
    private_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "TIMEOUT", 0.3)
    with opened(private_redis.url) as (client, records):
        records.record([])  # the script is there and has not to be sent first
        process = private_redis._group[-1].pid
        os.kill(process, signal.SIGSTOP)
        try:
            with pytest.raises(RecordsUnavailable):
                records.record([entered("e1")])
        finally:
            os.kill(process, signal.SIGCONT)
        eventually(lambda: client.sismember("entry_plates", "B123"), what="Redis has done what it was told")
        assert records.counts()["entry/recorded"] == 1
        assert "entry/duplicate" not in records.counts()
        assert records.record([entered("e1")])[0].outcome is Outcome.DUPLICATE


def test_a_full_redis_is_waited_for_and_nothing_is_half_done(private_redis: RedisServer) -> None:
    with opened(private_redis.url) as (client, records):
        records.record([exited("x1"), entered("e2", "C1"), exited("x2", "C1")])
        outbox = records.outbox("http-csv")
        batch = outbox.take(100)
        assert isinstance(batch, Batch)
        before = state_of(client)
        client.config_set("maxmemory", 1)
        # Taking the waiting exit away would still be allowed; putting the stay in its place would not.
        with pytest.raises(RecordsUnavailable, match="maxmemory"):
            records.record([entered("e1")])
        assert state_of(client) == before
        assert outbox.settle(batch, Settlement(delivered=None)) == (1, 0, 0), "what fills it can be delivered"
        assert outbox.take(100) == -1
        client.config_set("maxmemory", 0)
        assert records.record([entered("e1")])[0].outcome is Outcome.MATCHED


def test_a_redis_that_takes_no_writes_is_waited_for(private_redis: RedisServer) -> None:
    with opened(private_redis.url) as (client, records):
        client.config_set("min-replicas-to-write", 1)
        with pytest.raises(RecordsUnavailable, match="NOREPLICAS"):
            records.record([entered("e1")])
        client.config_set("min-replicas-to-write", 0)
        client.replicaof("127.0.0.1", str(find_free_port()))
        with pytest.raises(RecordsUnavailable, match="read only"):
            records.record([entered("e1")])
        client.replicaof("NO", "ONE")
        assert records.record([entered("e1")])[0].outcome is Outcome.RECORDED


@pytest.mark.parametrize("key", OURS)
def test_a_key_of_ours_that_holds_something_else_stops_everything_before_anything_changed(
    redis_url: str, key: str
) -> None:
    with opened(redis_url) as (client, records):
        records.record([exited("x1")])
        client.delete(key)
        client.set(key, "by hand")
        before = state_of(client)
        with pytest.raises(RecordsUnavailable, match="WRONGTYPE"):
            records.record([entered("e1")])
        after = state_of(client)
        assert after == before


def test_two_clients_at_once_come_to_one_summary_per_stay(redis_url: str) -> None:
    def record_all(records: Records, events: Sequence[Event]) -> int:
        return sum(records.record([event])[0].outcome is Outcome.MATCHED for event in events)

    entries = [entered(f"e{n}", f"P{n % 7}", 10 * n) for n in range(200)]
    exits = [exited(f"x{n}", f"P{n % 7}", 10 * n + 1) for n in range(200)]
    with opened(redis_url) as (_, one), opened(redis_url) as (_, other), ThreadPoolExecutor(2) as pool:
        # One client works on the entries, the other on the exits; pieces of 56, because 8 per plate may be ahead.
        for start in range(0, 200, 56):
            end = start + 56
            racing = [
                pool.submit(record_all, one, entries[start:end]),
                pool.submit(record_all, other, exits[start:end]),
            ]
            assert sum(future.result() for future in racing) == len(entries[start:end])
        assert one.counts()["summaries"] == 200
        assert one.inside() == 0
