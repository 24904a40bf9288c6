"""A worker whose RabbitMQ is away, comes, goes and comes back: a plain line for each change."""

from __future__ import annotations

import pika
import pytest
import redis
import requests
from pika.adapters.blocking_connection import BlockingChannel

from carpark.rabbitmq.management import virtual_host_of
from carpark.rabbitmq.topology import QUORUM, declare_queues
from tests.support.garbage import bare
from tests.support.helpers import eventually
from tests.support.mailbox import count
from tests.support.processes import WORKER_READY, Process, Processes
from tests.support.servers import RabbitmqServer

pytestmark = pytest.mark.slow

AWAY = r"\[WARNING\] RabbitMQ at amqp://(guest:\*\*\*@)?127\.0\.0\.1:\d+: .+; events wait$"
REFUSED = r"\[WARNING\] RabbitMQ at \S+: it refuses a message; `carpark doctor` says .+; events wait$"
RAW = ("CRITICAL", "Restarting consumer", "Traceback", "ConnectionClosed", "AMQPConnect", "Failed to post_process")


def plain(worker: Process) -> str:
    """Give what a worker has said, none of which is Dramatiq's or pika's own words."""
    said = worker.output
    assert [words for words in RAW if words in said] == [], said
    return said


def publish(url: str, plate: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        declare_queues(channel)
        channel.confirm_delivery()
        channel.basic_publish("", "vehicle_entry", bare(id=plate, vehicle_plate=plate), mandatory=True)


def test_it_says_once_that_rabbitmq_is_away_and_once_that_it_is_back(
    processes: Processes, private_rabbitmq: RabbitmqServer, redis_url: str, store: redis.Redis
) -> None:
    private_rabbitmq.kill()
    environ = {
        "CARPARK_BROKER_URL": private_rabbitmq.url,
        "CARPARK_REDIS_URL": redis_url,
        "CARPARK_SINKS": "stdout",
        "CARPARK_METRICS_PORT": "0",
    }
    worker = processes.start(["carpark", "worker", "--processes", "1", "--threads", "2"], env=environ)
    worker.wait_for_line(WORKER_READY)
    worker.wait_for_line(AWAY)
    private_rabbitmq.start()
    worker.wait_for_line(r"\[WARNING\] RabbitMQ is there after [0-9.]+ s$", 30)
    publish(private_rabbitmq.url, "FIRST")
    eventually(lambda: store.sismember("entry_plates", "FIRST"))
    private_rabbitmq.kill()
    eventually(lambda: plain(worker).count("; events wait") == 2, 30, "it is said that RabbitMQ is away again")
    private_rabbitmq.start()
    worker.wait_for_line(r"\[WARNING\] RabbitMQ is back after [0-9.]+ s$", 30)
    publish(private_rabbitmq.url, "SECOND")
    eventually(lambda: store.sismember("entry_plates", "SECOND"))
    assert worker.terminate() == 0
    said = plain(worker)
    assert (said.count("; events wait"), said.count("] RabbitMQ is ")) == (2, 2), said


def test_one_whose_rabbitmq_is_away_ends_at_once(processes: Processes, redis_url: str, free_port: int) -> None:
    environ = {"CARPARK_BROKER_URL": f"amqp://127.0.0.1:{free_port}", "CARPARK_REDIS_URL": redis_url}
    worker = processes.start(
        ["dramatiq", "carpark.actors", "--processes", "1", "--threads", "1"],
        env={**environ, "CARPARK_SINKS": "stdout", "CARPARK_METRICS_PORT": "0"},
    )
    worker.wait_for_line(AWAY)
    assert worker.terminate() == 0
    assert plain(worker).count("; events wait") == 1


@pytest.mark.parametrize("command", ["dramatiq carpark.actors", "carpark worker"])
def test_it_says_once_that_a_variable_is_no_setting(
    processes: Processes, redis_url: str, free_port: int, command: str
) -> None:
    environ = {"CARPARK_BROKER_URL": f"amqp://127.0.0.1:{free_port}", "CARPARK_REDIS_URL": redis_url}
    worker = processes.start(
        [*command.split(), "--processes", "2", "--threads", "1"],
        env={**environ, "CARPARK_SINKS": "stdout", "CARPARK_METRICS_PORT": "0", "CARPARK_REDIS_ULR": "x"},
    )
    worker.wait_for_line(AWAY)
    assert worker.terminate() == 0
    assert worker.output.count("CARPARK_REDIS_ULR is not a setting; did you mean CARPARK_REDIS_URL?") == 1


def test_a_queue_that_gets_other_arguments_while_it_runs_is_one_line_and_waited_for(
    processes: Processes, server_environ: dict[str, str], channel: BlockingChannel, store: redis.Redis
) -> None:
    worker = processes.start(
        ["carpark", "worker", "--processes", "1", "--threads", "2", "--sinks", "stdout"], env=server_environ
    )
    worker.wait_for_line(WORKER_READY)
    eventually(lambda: channel.queue_declare("vehicle_entry", passive=True).method.consumer_count)
    channel.queue_delete("vehicle_entry")
    channel.queue_declare("vehicle_entry", durable=True, arguments={"x-queue-type": QUORUM})
    worker.wait_for_line(
        r"\[WARNING\] queue 'vehicle_entry' exists with other arguments than carpark's \(.+; events wait"
    )
    channel.basic_publish("", "vehicle_exit", b"garbage")
    eventually(lambda: count(channel, "vehicle_exit.XQ") == 1, what="the other queue is worked on")
    channel.queue_delete("vehicle_entry")
    worker.wait_for_line(r"\[WARNING\] vehicle_entry is (back|there) after [0-9.]+ s$")
    channel.basic_publish("", "vehicle_entry", bare(vehicle_plate="HERE"))
    eventually(lambda: store.sismember("entry_plates", "HERE"))
    assert worker.terminate() == 0
    assert plain(worker).count("; events wait") == 1


@pytest.fixture
def full(channel: BlockingChannel, broker_url: str, management_url: str) -> str:
    """The address of a policy under which there is no room for a dead letter."""
    url = f"{management_url}/api/policies/{virtual_host_of(broker_url)}/full"
    policy = {"pattern": "XQ$", "apply-to": "queues", "definition": {"max-length": 1, "overflow": "reject-publish"}}
    requests.put(url, json=policy, timeout=10).raise_for_status()
    channel.basic_publish("", "vehicle_entry.XQ", b"the one that there is room for")
    eventually(lambda: count(channel, "vehicle_entry.XQ") == 1)
    return url


@pytest.mark.parametrize("body", [b"garbage", b"[" * 70_000], ids=["short", "long"])
def test_dead_letters_that_rabbitmq_does_not_take_are_one_line_and_kept(
    processes: Processes, server_environ: dict[str, str], channel: BlockingChannel, full: str, body: bytes
) -> None:
    channel.basic_publish("", "vehicle_entry", body)
    worker = processes.start(
        ["carpark", "worker", "--processes", "1", "--threads", "2", "--sinks", "stdout"], env=server_environ
    )
    worker.wait_for_line(REFUSED)
    requests.delete(full, timeout=10).raise_for_status()
    worker.wait_for_line(r"\[WARNING\] RabbitMQ is (back|there) after [0-9.]+ s$")
    eventually(lambda: count(channel, "vehicle_entry.XQ") == 2)
    assert worker.terminate() == 0
    assert (plain(worker).count("; events wait"), worker.output.count("dead-lettered: ")) == (1, 1)


def test_what_came_before_a_long_body_takes_effect_though_rabbitmq_takes_no_dead_letter(
    processes: Processes, server_environ: dict[str, str], channel: BlockingChannel, full: str, store: redis.Redis
) -> None:
    for number in range(20):
        channel.basic_publish("", "vehicle_entry", bare(id=f"e{number}", vehicle_plate=f"BEFORE{number}"))
    channel.basic_publish("", "vehicle_entry", b"[" * 70_000)
    channel.basic_publish("", "vehicle_entry", bare(id="after", vehicle_plate="AFTER"))
    eventually(lambda: count(channel, "vehicle_entry") == 22)
    worker = processes.start(
        ["carpark", "worker", "--processes", "1", "--threads", "2", "--sinks", "stdout"], env=server_environ
    )
    worker.wait_for_line(REFUSED)
    eventually(lambda: store.scard("entry_plates") == 20, what="what came before it is recorded")
    requests.delete(full, timeout=10).raise_for_status()
    eventually(lambda: count(channel, "vehicle_entry.XQ") == 2, what="it is tried again")
    eventually(lambda: store.sismember("entry_plates", "AFTER"))
    assert worker.terminate() == 0
    assert (plain(worker).count("; events wait"), worker.output.count("dead-lettered: ")) == (1, 1)


def test_one_whose_dead_letters_rabbitmq_does_not_take_ends_when_it_shall_and_leaves_them(
    processes: Processes, server_environ: dict[str, str], channel: BlockingChannel, full: str
) -> None:
    channel.basic_publish("", "vehicle_entry", b"garbage")
    worker = processes.start(
        ["carpark", "worker", "--processes", "1", "--threads", "2", "--sinks", "stdout"], env=server_environ
    )
    worker.wait_for_line(REFUSED)
    assert worker.terminate() == 0
    assert "is back" not in plain(worker)
    eventually(lambda: count(channel, "vehicle_entry") == 1)
