"""What nobody should have to rely on: the clocks of workers, headers, options, that a sink raises what it may.

On real RabbitMQ and Redis, with real workers.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pika
import pytest
import redis

from carpark.records import open_records
from carpark.records.redis import RedisRecords
from tests.support.helpers import eventually
from tests.support.processes import OTHER_CLOCK, WORKER_READY, Process, Processes
from tests.support.recorder import Recorder
from tests.support.stores import undelivered

START = datetime(2026, 11, 23, 18, tzinfo=UTC)
HOUR = 3600

INTERRUPTED = """
from carpark.plugins import Sink, SinkType, hookimpl

class Interrupted(Sink):
    calls = 0

    def deliver(self, summaries):
        self.calls += 1
        if self.calls < 6:
            raise (KeyboardInterrupt, SystemExit)[self.calls % 2]("by a plugin")
        with open(__file__ + ".txt", "a") as file:
            file.writelines(summary.id + "\\n" for summary in summaries)

@hookimpl
def carpark_register_sinks():
    return [SinkType("interrupted", lambda context: Interrupted())]
"""


@pytest.fixture
def environ(server_environ: dict[str, str], sink: Recorder) -> dict[str, str]:
    return {
        **server_environ,
        "CARPARK_WRITER_URL": sink.url,
        "CARPARK_SINK_RETRY_MIN": "0.1",
        "CARPARK_SINK_RETRY_MAX": "0.2",
        "CARPARK_SINK_TIMEOUT": "1",
    }


def _start(processes: Processes, environ: dict[str, str], **more: str) -> Process:
    worker = processes.start(
        ["dramatiq", "carpark.actors", "--processes", "1", "--threads", "2"], env={**environ, **more}
    )
    worker.wait_for_line(WORKER_READY)
    return worker


def _publish(channel: Any, kind: str, number: int, **properties: Any) -> None:
    moment = START + timedelta(seconds=number, hours=kind == "exit")
    event = {"id": f"{number}", "vehicle_plate": f"P {number}", f"{kind}_date_time": moment.isoformat()}
    channel.basic_publish("", f"vehicle_{kind}", json.dumps(event).encode(), pika.BasicProperties(**properties))


def _counts(store: redis.Redis, *names: str) -> int:
    return sum(int(store.hget("carpark:counts", name) or 0) for name in names)


@pytest.mark.parametrize("shift", [7 * HOUR, -7 * HOUR])
def test_a_worker_whose_clock_is_hours_off_knows_the_ids_of_the_others(
    processes: Processes,
    environ: dict[str, str],
    channel: Any,
    store: redis.Redis,
    sink: Recorder,
    tmp_path: Path,
    shift: int,
) -> None:
    (tmp_path / "sitecustomize.py").write_text(OTHER_CLOCK, encoding="utf-8")
    retention = {"CARPARK_RETENTION": f"{6 * HOUR}"}  # less than a clock is off
    moved = {"PYTHONPATH": str(tmp_path), "CLOCK_SHIFT": str(shift), **retention}
    for clocks in (retention, moved, retention):
        for number in range(100):
            _publish(channel, "entry", number)
            _publish(channel, "exit", number)
        worker = _start(processes, environ, **clocks)
        eventually(lambda: len(sink.ids) == 100, 60)
        eventually(lambda: channel.queue_declare("vehicle_exit", passive=True).method.message_count == 0)
        assert worker.terminate() == 0
    assert sorted(sink.taken) == sorted(f"{number}" for number in range(100)), "each once, whatever the clocks say"
    assert _counts(store, "summaries") == 100
    assert _counts(store, "entry/duplicate", "exit/duplicate") == 400


def test_entries_that_come_a_day_after_their_exits_are_joined(
    processes: Processes, environ: dict[str, str], channel: Any, store: redis.Redis, sink: Recorder
) -> None:
    for number in range(100):
        _publish(channel, "exit", number)
    worker = _start(processes, environ)
    eventually(lambda: _counts(store, "exit/unmatched") == 100, 30)
    assert worker.terminate() == 0
    # A day goes by: all that ends by Redis' clock ends a day sooner.
    day = timedelta(days=1)
    for number in range(100):
        assert store.expire(f"P{number}", int(store.ttl(f"P{number}") - day.total_seconds()))
    for key in ("carpark:seen:entry", "carpark:seen:exit"):
        for id_, until in store.zscan_iter(key):
            store.zadd(key, {id_: until - day.total_seconds()})
    for number in range(100):
        _publish(channel, "entry", number)
    _start(processes, environ)
    eventually(lambda: len(sink.ids) == 100, 30)
    assert _counts(store, "summaries") == _counts(store, "entry/matched") == 100
    assert store.scard("entry_plates") == 0


def test_a_summary_that_a_dead_worker_left_reaches_its_sink_when_somebody_has_it_again(
    processes: Processes, environ: dict[str, str], channel: Any, store: redis.Redis, sink: Recorder, tmp_path: Path
) -> None:
    other = {"CARPARK_SINKS": "jsonl", "CARPARK_SINK_JSONL": str(tmp_path / "stays.jsonl")}
    _publish(channel, "entry", 0)
    _publish(channel, "exit", 0)
    worker = _start(processes, environ, CARPARK_TEST_FAILPOINTS="after-record:1")
    worker.wait_for_line("failpoint after-record: killed")
    worker.wait()
    worker = _start(processes, environ, **other)
    eventually(lambda: channel.queue_declare("vehicle_exit", passive=True).method.message_count == 0)
    eventually(lambda: _counts(store, "entry/duplicate", "exit/duplicate") >= 1)
    assert sink.taken == []
    [left] = [each for each in RedisRecords(store, 1, ()).backlogs() if each.sink == "http-csv"]
    assert left.waiting == 1
    assert worker.terminate() == 0
    _start(processes, environ)
    eventually(lambda: sink.taken == ["0"], 30)
    eventually(lambda: undelivered(store) == 0)


def test_who_says_to_be_the_backend_writes_no_row(
    processes: Processes, environ: dict[str, str], channel: Any, store: redis.Redis, sink: Recorder
) -> None:
    summary = {
        "id": "forged",
        "vehicle_plate": "NEVER1",
        "entry_date_time": "2026-11-23T18:00:00.000000Z",
        "exit_date_time": "2026-11-23T19:00:00.000000Z",
        "duration": 3600.0,
    }
    envelope = {"args": [], "options": {}, "message_id": "forged", "message_timestamp": 1_700_000_000_000}
    of_before = {"sink": "http-csv", "keys": ["exit/forged"], "summaries": [summary]}
    of_today = {"sink": "http-csv", "summary": summary}
    queues = ("vehicle_exit", "vehicle_entry", "vehicle_exit.DQ", "carpark_work")
    for queue in queues:
        for kwargs in (of_before, of_today):
            message = {**envelope, "queue_name": queue, "actor_name": "deliver_summaries", "kwargs": kwargs}
            headers = {"x-carpark-own": 1}
            channel.basic_publish("", queue, json.dumps(message).encode(), pika.BasicProperties(headers=headers))
    worker = _start(processes, environ)
    dead = [f"{queue.removesuffix('.DQ')}.XQ" for queue in queues]
    left = lambda: sum(channel.queue_declare(name, passive=True).method.message_count for name in set(dead))  # noqa: E731
    # Seven are no messages of their queues; the eighth is one, of a summary that nobody holds as given up.
    eventually(lambda: left() == 7, 30)
    worker.wait_for_line("is not held as given up")
    assert "Traceback" not in worker.output
    assert "CRITICAL" not in worker.output
    _publish(channel, "entry", 1)
    _publish(channel, "exit", 1)
    eventually(lambda: sink.taken == ["1"], 30)
    assert undelivered(store) == 0


def test_messages_that_want_to_wait_until_the_year_9999_stop_nothing(
    processes: Processes, environ: dict[str, str], channel: Any, store: redis.Redis, sink: Recorder
) -> None:
    for number in range(1_100):
        event = {"id": f"late {number}", "vehicle_plate": f"L{number}", "exit_date_time": START.isoformat()}
        message = {
            "queue_name": "vehicle_exit",
            "actor_name": "vehicle_exit",
            "args": [],
            "kwargs": event,
            "options": {"eta": 253_370_764_800_000},
            "message_id": f"m{number}",
            "message_timestamp": 1_700_000_000_000,
        }
        for headers in ({"x-carpark-own": 1}, {}):
            properties = pika.BasicProperties(headers=headers)
            channel.basic_publish("", "vehicle_exit", json.dumps(message).encode(), properties)
    _publish(channel, "entry", 1)
    _publish(channel, "exit", 1)
    _start(processes, environ)
    eventually(lambda: sink.taken == ["1"], 60)
    eventually(lambda: _counts(store, "exit/unmatched", "exit/duplicate") >= 2_200, 30)


def test_a_sink_that_raises_the_end_of_the_process_is_tried_again(
    processes: Processes, environ: dict[str, str], channel: Any, store: redis.Redis, tmp_path: Path
) -> None:
    (tmp_path / "interrupting.py").write_text(INTERRUPTED, encoding="utf-8")
    _publish(channel, "entry", 0)
    _publish(channel, "exit", 0)
    more = {"CARPARK_PLUGINS": "interrupting", "PYTHONPATH": str(tmp_path), "CARPARK_SINKS": "interrupted"}
    worker = _start(processes, environ, CARPARK_SINK_RETRIES="100000", **more)
    rows = tmp_path / "interrupting.py.txt"
    eventually(lambda: rows.exists() and rows.read_text(encoding="utf-8") == "0\n", 30)
    eventually(lambda: undelivered(store) == 0)
    assert channel.queue_declare("carpark_work.XQ", passive=True).method.message_count == 0
    assert worker.status is None


def test_a_worker_that_is_killed_with_a_batch_in_hand_leaves_it_to_the_next(
    processes: Processes, environ: dict[str, str], channel: Any, store: redis.Redis, sink: Recorder
) -> None:
    _publish(channel, "entry", 0)
    _publish(channel, "exit", 0)
    worker = _start(processes, environ, CARPARK_TEST_FAILPOINTS="after-sink:1")
    worker.wait_for_line("failpoint after-sink: killed")
    worker.wait()
    assert sink.taken == ["0"]
    [left] = open_records(environ["CARPARK_REDIS_URL"], 1, ()).backlogs()
    assert (left.waiting, left.attempt) == (1, 1)
    _start(processes, environ)
    eventually(lambda: undelivered(store) == 0, 30)
    assert sink.taken == ["0", "0"], "offered again; the writer knows its id"
