"""Quorum queues: every service declares the same ones, and they keep what classic ones keep."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pika
import pytest
import redis
from pika.adapters.blocking_connection import BlockingChannel

from carpark.rabbitmq.management import ManagementApi, virtual_host_of
from carpark.rabbitmq.topology import all_queues, declare_queues, queue_arguments, with_companions
from tests.support.helpers import eventually
from tests.support.processes import WORKER_READY, Processes
from tests.support.recorder import Recorder

EVENTS = 100
WORKER = ["carpark", "worker", "--processes", "1", "--threads", "2"]


@pytest.fixture
def environ(server_environ: dict[str, str]) -> dict[str, str]:
    return {**server_environ, "CARPARK_QUEUE_TYPE": "quorum"}


@pytest.fixture
def channel(broker_url: str) -> Iterator[BlockingChannel]:
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        yield connection.channel()


def test_dead_letters_stay_classic() -> None:
    for queue in all_queues(1):
        main, delayed, dead = with_companions(queue)
        for name in (main, delayed):
            assert queue_arguments(name, "quorum") == {
                **queue_arguments(name),
                "x-queue-type": "quorum",
                "x-delivery-limit": 100,
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            }
        assert queue_arguments(dead, "quorum") == queue_arguments(dead)


@pytest.mark.parametrize("first", ["worker", "generator"])
def test_whoever_comes_first_declares_what_the_others_take(
    processes: Processes, environ: dict[str, str], broker_url: str, management_url: str, redis_url: str, first: str
) -> None:
    commands = {
        "worker": [*WORKER, "--sinks", "stdout"],
        "generator": ["carpark", "generate", "entry", "--events", str(EVENTS), "--rate", "500"],
        "queues": ["carpark", "queues", "--once"],
    }
    ended = []
    for name in sorted(commands, key=lambda each: each != first):
        process = processes.start(commands[name], env=environ)
        if name == "worker":
            process.wait_for_line(WORKER_READY)
        else:
            ended.append(process.wait())
    assert ended == [0, 0]
    management = ManagementApi(management_url, virtual_host_of(broker_url))
    found = management.queues()
    management.close()
    assert {name: queue.arguments for name, queue in found.items()} == {
        name: queue_arguments(name, "quorum") for queue in all_queues(1) for name in with_companions(queue)
    }
    with redis.Redis.from_url(redis_url) as client:
        eventually(lambda: client.scard("entry_plates") == EVENTS, 30, "every entry is recorded")


def test_retries_and_dead_letters_work_as_on_classic_queues(
    processes: Processes, environ: dict[str, str], channel: BlockingChannel
) -> None:
    declare_queues(channel, queue_type="quorum")
    stay = [
        ("vehicle_entry", {"id": "e", "vehicle_plate": "AB1", "entry_date_time": "2026-11-23T18:00:00Z"}),
        ("vehicle_exit", {"id": "x", "vehicle_plate": "AB1", "exit_date_time": "2026-11-23T19:00:00Z"}),
    ]
    with Recorder() as sink:
        sink.status = 503
        environ |= {"CARPARK_WRITER_URL": sink.url, "CARPARK_SINK_RETRY_MIN": "0.5", "CARPARK_SINK_RETRY_MAX": "0.5"}
        processes.start(WORKER, env=environ)
        for queue, body in [*stay, ("vehicle_exit", {"id": "garbage"})]:
            channel.basic_publish("", queue, json.dumps(body).encode())

        def letter() -> Any:
            method, properties, body = channel.basic_get("vehicle_exit.XQ", auto_ack=True)
            return method and (properties.headers, body)

        headers, body = eventually(letter, 30, "the garbage is a dead letter")
        assert json.loads(body) == {"id": "garbage"}
        assert "x-carpark-error" in headers
        eventually(lambda: sink.refused > 1, 30, "the sink was tried again")
        sink.status = 201
        eventually(lambda: sink.taken == ["x"], 30, "the summary has arrived")


def test_a_queue_of_the_other_type_is_named_with_the_setting(
    processes: Processes, environ: dict[str, str], channel: BlockingChannel
) -> None:
    declare_queues(channel)
    process = processes.start(["carpark", "queues", "--once"], env=environ)
    assert process.wait() == 2
    assert "queue 'vehicle_entry' exists with other arguments" in process.output
    assert "CARPARK_QUEUE_TYPE" in process.output
