"""The backend as it is started, on real RabbitMQ and Redis."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pika
import pika.exceptions
import pytest
import redis

from tests.support.garbage import GARBAGE, ODD, bare
from tests.support.helpers import eventually
from tests.support.processes import WORKER_READY, Processes
from tests.support.recorder import Recorder
from tests.support.stores import undelivered

START = datetime(2026, 11, 23, 18, tzinfo=UTC)


def _stays(count: int) -> list[tuple[str, bytes]]:
    messages = []
    for number in range(count):
        entered = START + timedelta(seconds=number)
        fields = {"vehicle_plate": f"PL {number:05}"}
        entry = {"id": f"e{number}", **fields, "entry_date_time": entered.isoformat()}
        exit_ = {"id": f"x{number}", **fields, "exit_date_time": (entered + timedelta(hours=1)).isoformat()}
        messages += [("vehicle_entry", json.dumps(entry).encode()), ("vehicle_exit", json.dumps(exit_).encode())]
    return messages


def _count(channel: Any, queue: str) -> int:
    count: int = channel.queue_declare(queue, passive=True).method.message_count
    return count


def _consumers(connection: Any, queue: str) -> int:
    """Count the consumers of a queue that may be gone: asking for one that is gone costs the channel."""
    channel = connection.channel()
    try:
        count: int = channel.queue_declare(queue, passive=True).method.consumer_count
    except pika.exceptions.ChannelClosedByBroker:
        return 0
    channel.close()
    return count


def _drain(channel: Any, queue: str) -> list[tuple[Any, bytes]]:
    messages = []
    while (got := channel.basic_get(queue, auto_ack=True))[0] is not None:
        messages.append((got[1], got[2]))
    return messages


def _start(processes: Processes, environ: dict[str, str], sink: Recorder, *options: str, **more: str) -> Any:
    options = options or ("--processes", "1", "--threads", "4")
    worker = processes.start(
        ["dramatiq", "carpark.actors", *options], env={**environ, "CARPARK_WRITER_URL": sink.url, **more}
    )
    worker.wait_for_line(WORKER_READY)
    return worker


def test_bare_events_shuffled_twice_and_mixed_with_garbage(
    processes: Processes, server_environ: dict[str, str], channel: Any, store: redis.Redis, sink: Recorder
) -> None:
    garbage = list(GARBAGE.values())
    messages = _stays(300) * 2 + [(random.choice(["vehicle_entry", "vehicle_exit"]), body) for body in garbage]
    random.shuffle(messages)
    for queue, body in messages:
        channel.basic_publish("", queue, body)
    for body in ODD.values():
        channel.basic_publish("", "vehicle_entry", body)
    _start(processes, server_environ, sink, "--processes", "2", "--threads", "4")
    eventually(lambda: len(sink.ids) >= 300, 60)
    dead = lambda: _count(channel, "vehicle_entry.XQ") + _count(channel, "vehicle_exit.XQ")  # noqa: E731
    eventually(lambda: dead() == len(garbage), 30, "all garbage is dead-lettered")
    eventually(lambda: undelivered(store) == 0)

    def counts() -> dict[str, int]:
        counted = {name: int(value) for name, value in store.hgetall("carpark:counts").items()}
        assert counted["summaries"] == counted["summaries/http-csv/delivered"] == 300
        assert counted["entry/duplicate"] + counted["exit/duplicate"] == 600
        assert counted["entry/rejected"] + counted["exit/rejected"] == len(garbage)
        return counted

    eventually(counts, 30)
    eventually(lambda: store.scard("entry_plates") == len(ODD))
    assert sink.ids == {f"x{number}" for number in range(300)}
    assert store.hget("PL00007", "entry_time") == "2026-11-23T18:00:07.000000Z"
    assert json.loads(store.hget("PL00007", "parking_exit_data") or "")["id"] == "x7"


def test_rejected_messages_keep_body_and_properties_and_say_why(
    processes: Processes, server_environ: dict[str, str], channel: Any, broker_url: str, sink: Recorder
) -> None:
    properties = pika.BasicProperties(
        content_type="text/plain",
        correlation_id="c-1",
        app_id="camera",
        expiration="600000",
        user_id=pika.URLParameters(broker_url).credentials.username,
        headers={"mine": "yes", "CC": ["vehicle_exit"]},
    )
    channel.basic_publish("", "vehicle_entry", b"not an event", properties)
    worker = _start(processes, server_environ, sink)
    eventually(lambda: _count(channel, "vehicle_entry.XQ") == 1 and _count(channel, "vehicle_exit.XQ") == 1)
    [(dead, body)] = _drain(channel, "vehicle_entry.XQ")
    assert body == b"not an event"
    assert (dead.content_type, dead.correlation_id, dead.app_id) == ("text/plain", "c-1", "camera")
    assert dead.headers["mine"] == "yes"
    assert dead.headers["x-carpark-error"].startswith("the body is not JSON")
    assert dead.headers["x-carpark-dead-at"].endswith("Z")
    assert "x-carpark-traceback" not in dead.headers
    assert dead.expiration is None, "a dead letter must not vanish"
    assert dead.headers["x-carpark-expiration"] == "600000"
    worker.wait_for_line("dead-lettered: the body is not JSON")


def test_headers_as_long_as_a_frame_do_not_stop_the_consumer(
    processes: Processes, server_environ: dict[str, str], channel: Any, sink: Recorder
) -> None:
    channel.basic_publish("", "vehicle_entry", b"nope", pika.BasicProperties(headers={"long": "x" * 130_000}))
    _start(processes, server_environ, sink)
    eventually(lambda: _count(channel, "vehicle_entry.XQ") == 1)
    [(dead, body)] = _drain(channel, "vehicle_entry.XQ")
    assert body == b"nope"
    assert dead.headers["x-carpark-error"].startswith("the body is not JSON")


def test_the_log_shows_at_most_200_bytes_of_a_body(
    processes: Processes, server_environ: dict[str, str], channel: Any, sink: Recorder
) -> None:
    channel.basic_publish("", "vehicle_entry", b"y" * 5_000)
    worker = _start(processes, server_environ, sink)
    worker.wait_for_line("dead-lettered")
    assert "y" * 200 in worker.output
    assert "y" * 201 not in worker.output


def test_an_event_that_the_records_refuse_is_dead_lettered_and_harms_no_other(
    processes: Processes, server_environ: dict[str, str], channel: Any, store: redis.Redis, sink: Recorder
) -> None:
    store.set("BROKEN", "not a hash")
    channel.basic_publish("", "vehicle_entry", bare(id="1", vehicle_plate="BROKEN"))
    channel.basic_publish("", "vehicle_entry", bare(id="2", vehicle_plate="FINE"))
    _start(processes, server_environ, sink)
    eventually(lambda: store.sismember("entry_plates", "FINE"))
    eventually(lambda: _count(channel, "vehicle_entry.XQ") == 1)
    [(dead, body)] = _drain(channel, "vehicle_entry.XQ")
    assert body == bare(id="1", vehicle_plate="BROKEN")
    assert "WRONGTYPE" in dead.headers["x-carpark-error"]


def test_a_sink_that_fails_gets_each_summary_once_it_is_back(
    processes: Processes, server_environ: dict[str, str], channel: Any, store: redis.Redis, sink: Recorder
) -> None:
    sink.status = 503
    _start(processes, server_environ, sink, CARPARK_SINK_RETRY_MIN="0.2", CARPARK_SINK_RETRY_MAX="1")
    for queue, body in _stays(20):
        channel.basic_publish("", queue, body)
    eventually(lambda: undelivered(store) == 20)
    eventually(lambda: int(store.hget("carpark:counts", "summaries/http-csv/retried") or 0) > 0)
    sink.status = 201
    eventually(lambda: undelivered(store) == 0, 30)
    assert Counter(sink.taken) == Counter({f"x{number}": 1 for number in range(20)})
    assert _count(channel, "carpark_work.XQ") == 0


def test_a_summary_whose_retries_are_used_up_is_dead_lettered_and_can_be_sent_again(
    processes: Processes, server_environ: dict[str, str], channel: Any, store: redis.Redis, sink: Recorder
) -> None:
    sink.status = 503
    retry = {"CARPARK_SINK_RETRIES": "2", "CARPARK_SINK_RETRY_MIN": "0.1", "CARPARK_SINK_RETRY_MAX": "0.2"}
    _start(processes, server_environ, sink, **retry)
    for queue, body in _stays(1):
        channel.basic_publish("", queue, body)
    eventually(lambda: _count(channel, "carpark_work.XQ") == 1, 30)
    [(dead, body)] = _drain(channel, "carpark_work.XQ")
    assert "http-csv" in dead.headers["x-carpark-error"]
    assert "given up after 2 retries" in dead.headers["x-carpark-error"]
    assert store.hget("carpark:counts", "summaries/http-csv/failed") == "1"
    sink.status = 201
    channel.basic_publish("", "carpark_work", body, dead)
    eventually(lambda: sink.ids == {"x0"}, 30)
    eventually(lambda: undelivered(store) == 0)


def test_a_refused_summary_is_dead_lettered_at_once(
    processes: Processes, server_environ: dict[str, str], channel: Any, sink: Recorder
) -> None:
    sink.status = 422
    _start(processes, server_environ, sink)
    for queue, body in _stays(1):
        channel.basic_publish("", queue, body)
    eventually(lambda: _count(channel, "carpark_work.XQ") == 1)
    [(dead, _)] = _drain(channel, "carpark_work.XQ")
    assert "refused" in dead.headers["x-carpark-error"]
    assert "422" in dead.headers["x-carpark-error"]


def test_a_queue_deleted_under_the_consumers_is_declared_again(
    processes: Processes, server_environ: dict[str, str], channel: Any, store: redis.Redis, sink: Recorder
) -> None:
    _start(processes, server_environ, sink)
    channel.queue_delete("vehicle_entry")
    eventually(lambda: _consumers(channel.connection, "vehicle_entry"))
    channel.basic_publish("", "vehicle_entry", bare(vehicle_plate="BACK"))
    eventually(lambda: store.sismember("entry_plates", "BACK"))


def test_sigterm_ends_the_worker_within_ten_seconds_and_loses_nothing(
    processes: Processes, server_environ: dict[str, str], channel: Any, store: redis.Redis, sink: Recorder
) -> None:
    worker = _start(processes, server_environ, sink)
    for queue, body in _stays(200):
        channel.basic_publish("", queue, body)
    eventually(lambda: int(store.hget("carpark:counts", "summaries") or 0) > 10)
    started = time.monotonic()
    assert worker.terminate() == 0
    assert time.monotonic() - started < 10
    _start(processes, server_environ, sink)
    eventually(lambda: len(sink.ids) == 200, 30)
    eventually(lambda: undelivered(store) == 0)


@pytest.mark.parametrize("command", [["dramatiq", "carpark.actors"], ["carpark", "worker"]])
def test_wrong_settings_are_a_line_each_and_status_2(
    command: list[str], processes: Processes, server_environ: dict[str, str]
) -> None:
    wrong = {
        "CARPARK_SINK_RETRIES": "many",
        "CARPARK_REDIS_URL": "redis://:hunter2@",
        "CARPARK_WRITER_TOKEN": "hunter2 hunter2",
        "CARPARK_METRICS_PORT": "99999",
    }
    worker = processes.start([*command, "--processes", "1"], env={**server_environ, **wrong})
    assert worker.wait(20) == 2
    said = [line.partition(": wanted ")[0] for line in worker.output.splitlines() if line.startswith("carpark: ")]
    assert said == [
        "carpark: CARPARK_REDIS_URL='redis://:***@'",
        "carpark: CARPARK_WRITER_TOKEN='***'",
        "carpark: CARPARK_SINK_RETRIES='many'",
        "carpark: CARPARK_METRICS_PORT='99999'",
    ]
    assert "Traceback" not in worker.output
    assert "hunter2" not in worker.output


def test_carpark_worker_becomes_dramatiq(
    processes: Processes, server_environ: dict[str, str], channel: Any, store: redis.Redis, tmp_path: Path
) -> None:
    worker = processes.start(
        [
            "carpark",
            "worker",
            "--processes",
            "1",
            "--threads",
            "1",
            "--broker-url",
            server_environ["CARPARK_BROKER_URL"],
        ],
        env={**server_environ, "CARPARK_BROKER_URL": "amqp://nobody@localhost:1"},
    )
    worker.wait_for_line(WORKER_READY)
    channel.basic_publish("", "vehicle_entry", bare(vehicle_plate="HERE"))
    eventually(lambda: store.sismember("entry_plates", "HERE"))
    assert worker.terminate() == 0
