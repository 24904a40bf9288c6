"""Batches on a real RabbitMQ: fewer round trips, and nothing that an event could notice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
import requests

from carpark.broker import RabbitmqBroker, consumer
from carpark.rabbitmq.management import ManagementApi, virtual_host_of
from tests.support.garbage import bare
from tests.support.helpers import eventually
from tests.support.processes import WORKER_READY, Process, Processes
from tests.support.recorder import Recorder
from tests.support.stores import undelivered

START = datetime(2026, 11, 23, 18, tzinfo=UTC)
STAYS = 1_000


@pytest.fixture
def start(processes: Processes, server_environ: dict[str, str], sink: Recorder) -> Callable[..., Process]:
    def start_worker(**more: str) -> Process:
        worker = processes.start(
            ["dramatiq", "carpark.actors", "--processes", "1", "--threads", "2"],
            env={**server_environ, "CARPARK_WRITER_URL": sink.url, **more},
        )
        worker.wait_for_line(WORKER_READY)
        return worker

    return start_worker


def _fill(channel: Any, stays: int = STAYS) -> None:
    for number in range(stays):
        entered = START + timedelta(seconds=number)
        times = {"entry": entered, "exit": entered + timedelta(hours=1)}
        for kind, moment in times.items():
            event = {"id": f"{number}", "vehicle_plate": f"P{number}", f"{kind}_date_time": moment.isoformat()}
            channel.basic_publish("", f"vehicle_{kind}", json.dumps(event).encode())


def _left(channel: Any, *suffixes: str) -> int:
    names = [f"vehicle_{kind}{suffix}" for kind in ("entry", "exit") for suffix in suffixes]
    return sum(channel.queue_declare(name, passive=True).method.message_count for name in names)


def _events_left(channel: Any) -> list[bytes]:
    """Take what is in the queues."""
    bodies = []
    for name in ("vehicle_entry", "vehicle_exit"):
        while (got := channel.basic_get(name, auto_ack=True))[0] is not None:
            bodies.append(got[2])
    return bodies


def test_a_full_queue_is_worked_off_in_batches_and_what_is_wrong_leaves_them_alone(
    start: Callable[..., Process], channel: Any, store: redis.Redis, sink: Recorder
) -> None:
    store.set("BROKEN", "not a hash")
    channel.basic_publish("", "vehicle_entry", b"garbage")
    _fill(channel)
    channel.basic_publish("", "vehicle_entry", bare(id="refused", vehicle_plate="BROKEN"))
    worker = start()
    eventually(lambda: len(sink.ids) == STAYS, 60)
    eventually(lambda: _left(channel, ".XQ") == 2)
    assert worker.terminate() == 0
    assert sink.ids == {str(number) for number in range(STAYS)}
    assert sink.posts < STAYS / 4, "a delivery carries many summaries"
    assert _events_left(channel) == [], "all are acknowledged"
    assert store.hgetall("carpark:counts")["summaries"] == str(STAYS)


def test_half_a_prefetch_does_not_wait_to_be_acknowledged(
    channel: Any, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "ACKNOWLEDGED_AFTER", 3600.0)
    for number in range(10):
        channel.basic_publish("", "vehicle_entry", bare(id=str(number)))
    broker = RabbitmqBroker(broker_url, [])
    one = consumer.EventConsumer(broker, "vehicle_entry", prefetch=4, timeout=1000)
    for number in range(10):
        message = eventually(lambda: next(one))
        assert message.args[0].id == str(number)
        one.ack(message)
    one.close()
    broker.close()
    assert _events_left(channel) == [], "all are acknowledged"


@pytest.fixture
def api(broker_url: str, management_url: str) -> Iterator[ManagementApi]:
    with closing(ManagementApi(management_url, virtual_host_of(broker_url))) as client:
        yield client


def test_connections_that_break_under_batches_lose_nothing(
    start: Callable[..., Process],
    channel: Any,
    api: ManagementApi,
    management_url: str,
    store: redis.Redis,
    sink: Recorder,
) -> None:
    def consumers() -> list[str]:
        return [one.name for one in api.connections() if one.title.startswith("carpark")]

    def there() -> int:
        return sum((queue.ready or 0) + (queue.unacked or 0) for queue in api.queues().values())

    worker = start()
    names = eventually(consumers, 30, "the management API knows the connections")
    _fill(channel)
    eventually(lambda: len(sink.ids) > STAYS / 10)
    for name in names:
        requests.delete(f"{management_url}/api/connections/{name}", timeout=10)
    eventually(lambda: int(store.hget("carpark:counts", "summaries") or 0) == STAYS, 60)
    eventually(lambda: len(sink.ids) == STAYS, 30)
    eventually(lambda: undelivered(store) == 0, 30)
    # What RabbitMQ delivers a second time is still in hand when the last summary has long been delivered.
    eventually(lambda: there() == 0, 60, "all are acknowledged, and nothing was given up")
    assert store.hgetall("carpark:counts")["summaries"] == str(STAYS)
    assert worker.terminate() == 0
    assert "Closed via management plugin" in worker.output
    assert _left(channel, "", ".DQ", ".XQ") == 0
