"""The records in Redis: what people look at there, and what no other store does: forget scripts, refuse, hang, die."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, cast

import pytest
import redis

from carpark.domain.events import Event
from carpark.errors import RecordsUnavailable
from carpark.records import Batch, Outcome, Recorded, Records, Settlement
from carpark.records import connection as connection_module
from carpark.records.connection import connect
from carpark.records.redis import RedisRecords
from tests.support.conformance.join import NON_BMP, outcomes
from tests.support.helpers import eventually, find_free_port
from tests.support.servers import RedisServer
from tests.support.stays import at, entered, exited
from tests.support.stores import RETENTION, SINKS, Clock, RedisStore, Store

OURS = ["entry_plates", "carpark:counts", "carpark:seen:entry", "carpark:seen:exit", "carpark:sinks"]
OURS.append("carpark:outbox:http-csv")


@contextmanager
def opened(url: str) -> Iterator[tuple[redis.Redis, RedisRecords]]:
    client = connect(url)
    records = RedisRecords(client, RETENTION, ["http-csv"])
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
            records.forgotten,
            records.now,
            records.snapshot,
            lambda: list(records.vehicles()),
            lambda: list(records.known([("entry", "e1")])),
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


@pytest.fixture
def store(redis_store: RedisStore) -> Store:
    return redis_store


@pytest.fixture
def client(redis_store: RedisStore) -> Any:
    return redis_store.client


def hash_of(client: redis.Redis, plate: str) -> dict[str, str]:
    return cast(dict[str, str], client.hgetall(plate))


class TestRecordOfAPlate:
    """What people type to look inside."""

    def test_while_inside_it_has_the_entry_and_never_expires(self, client: redis.Redis, records: Records) -> None:
        entry = entered("e1", microseconds=5)
        assert records.record([entry]) == [Recorded("entry/e1", Outcome.RECORDED)]
        record = hash_of(client, "B123")
        assert record["entry_time"] == at(5)
        assert json.loads(record["parking_enter_data"]) == entry.to_dict()
        assert "parking_exit_data" not in record
        assert client.smembers("entry_plates") == {"B123"}
        assert client.ttl("B123") == -1

    def test_a_finished_stay_has_both_events_and_lasts_for_the_retention(
        self, client: redis.Redis, records: Records
    ) -> None:
        entry, exit_ = entered("e1", microseconds=5), exited("x1", microseconds=1_500_006)
        recorded = records.record([entry, exit_])
        assert outcomes(recorded) == ["recorded", "matched"]
        summary = recorded[1].summary
        assert summary
        assert summary.to_dict() == {
            "id": "x1",
            "vehicle_plate": "B123",
            "entry_date_time": at(5),
            "exit_date_time": at(1_500_006),
            "duration": 1.500001,
        }
        assert records.undelivered() == len(SINKS)
        record = hash_of(client, "B123")
        assert record["entry_time"] == at(5)
        assert record["parking_enter_data"] == entry.to_json()
        assert record["parking_exit_data"] == exit_.to_json()
        assert client.smembers("entry_plates") == set()
        assert RETENTION - 5 < client.ttl("B123") <= RETENTION

    def test_an_exit_before_its_entry_leaves_the_same_record(self, client: redis.Redis, records: Records) -> None:
        entry, exit_ = entered("e1", microseconds=5), exited("x1", microseconds=6)
        records.record([entry, exit_])
        usual = hash_of(client, "B123")
        client.flushdb()
        recorded = records.record([exit_, entry])
        assert outcomes(recorded) == ["unmatched", "matched"]
        assert recorded[1].key == "entry/e1"
        assert recorded[1].summary
        assert recorded[1].summary.id == "x1"
        assert hash_of(client, "B123") == usual
        assert RETENTION - 5 < client.ttl("B123") <= RETENTION

    def test_an_unmatched_exit_is_kept_for_the_retention(self, client: redis.Redis, records: Records) -> None:
        exit_ = exited("x1", microseconds=6)
        assert records.record([exit_]) == [Recorded("exit/x1", Outcome.UNMATCHED)]
        record = hash_of(client, "B123")
        assert record["parking_exit_data"] == exit_.to_json()
        assert "entry_time" not in record
        assert "parking_enter_data" not in record
        assert client.smembers("entry_plates") == set()
        assert RETENTION - 5 < client.ttl("B123") <= RETENTION

    def test_further_fields_are_kept_in_the_json_and_stay_out_of_the_summary(
        self, client: redis.Redis, records: Records
    ) -> None:
        further: dict[str, Any] = {
            "lane": 2,
            "vehicle": {"colour": f"grün {NON_BMP}", "axles": [1, 2.5, None]},
            "kind": "?",
            "self": 1,
        }
        recorded = records.record([entered("e1", **further), exited("x1", **further)])
        record = hash_of(client, "B123")
        for name in ("parking_enter_data", "parking_exit_data"):
            assert json.loads(record[name]).items() >= further.items()
        assert recorded[1].summary
        assert not recorded[1].summary.to_dict().keys() & further.keys()

    @pytest.mark.slow
    def test_there_are_a_handful_of_keys_however_many_events_came(
        self, client: redis.Redis, records: Records, clock: Clock
    ) -> None:
        for start in range(0, 5000, 250):
            events: list[Event] = []
            for n in range(start, start + 250):
                events += [entered(f"e{n}", f"P{n % 10}", 2 * n), exited(f"x{n}", f"P{n % 10}", 2 * n + 1)]
            records.record(events)
        keys = {key for key in client.scan_iter() if not key.startswith("P")}
        outboxes = {f"carpark:outbox:{sink}" for sink in SINKS}
        assert keys == {"carpark:counts", "carpark:seen:entry", "carpark:seen:exit", "carpark:sinks", *outboxes}
        assert records.counts()["summaries"] == 5000

    def test_a_key_of_another_kind_spoils_only_the_events_of_its_plate(
        self, client: redis.Redis, records: Records
    ) -> None:
        client.set("SPOILT", "by hand")
        events: list[Event] = [entered("e1"), entered("e2", "SPOILT"), exited("x2", "SPOILT"), exited("x1")]
        recorded = records.record(events)
        assert [effect.outcome for effect in recorded] == [Outcome.RECORDED, None, None, Outcome.MATCHED]
        for effect in recorded[1:3]:
            assert "WRONGTYPE" in effect.error
            assert effect.summary is None
        counts = records.counts()
        assert counts == {"entry/recorded": 1, "exit/matched": 1, "summaries": 1}
        assert client.get("SPOILT") == "by hand"
        client.delete("SPOILT")
        assert [str(effect.outcome) for effect in records.record(events)] == [
            "duplicate",
            "recorded",
            "matched",
            "duplicate",
        ]
