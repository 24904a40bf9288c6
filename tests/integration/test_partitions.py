"""Several queues for the events of a kind, on real servers: nothing is lost, whoever publishes to which of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing

import pika
import pytest
import redis
from click.testing import CliRunner
from pika.adapters.blocking_connection import BlockingChannel
from prometheus_client import CollectorRegistry

from carpark.broker.reading import EventMessage, read_body
from carpark.cli import carpark
from carpark.domain.routing import event_queues, partition_of, queue_for
from carpark.errors import InvalidSetting
from carpark.ops.audit.queued import read_queues
from carpark.ops.dashboard import make_app
from carpark.ops.doctor.servers import check_broker
from carpark.rabbitmq.configurator import QueueConfigurator
from carpark.rabbitmq.management import ManagementApi
from carpark.rabbitmq.metrics import QueueMetrics
from carpark.rabbitmq.topology import EXCHANGE, all_queues, declare_queues, with_companions
from carpark.records.connection import connect
from carpark.records.redis import RedisRecords
from carpark.settings import Settings
from generators.wire import message_body
from tests.support.dashboards import Pages, text_of
from tests.support.helpers import eventually
from tests.support.mailbox import dead_letters, fill
from tests.support.processes import Processes
from tests.support.stays import entered, exited

FOUR = {"CARPARK_PARTITIONS": "4"}


def test_events_at_the_plain_names_are_processed_like_those_of_our_generators(
    processes: Processes, server_environ: dict[str, str], channel: BlockingChannel, store: redis.Redis
) -> None:
    env = {**server_environ, **FOUR, "CARPARK_SINKS": "stdout"}
    declare_queues(channel, all_queues(4))
    channel.confirm_delivery()
    plates = [f"OURS{n}" for n in range(40)]
    for n, plate in enumerate(plates):
        for event in (entered(plate, plate, 10 * n), exited(plate, plate, 10 * n + 5)):
            channel.basic_publish(EXCHANGE, queue_for(event, 4), message_body(event), mandatory=True)
        theirs = f"THEIRS{n}"
        for event in (entered(theirs, theirs, 10 * n), exited(theirs, theirs, 10 * n + 5)):
            channel.basic_publish("", event.queue, event.to_json().encode(), mandatory=True)
    assert all(channel.queue_declare(queue, passive=True).method.message_count for queue in event_queues(4))
    worker = processes.start(["carpark", "worker", "--processes", "1", "--threads", "2"], env=env)
    with closing(connect(server_environ["CARPARK_REDIS_URL"])) as client:
        records = RedisRecords(client, 3600, ())
        eventually(lambda: records.counts().get("summaries") == 80, 30, "all stays are finished")
        assert records.inside() == 0
    assert {field for field in store.hkeys("carpark:entries") if field.endswith("time")} == {
        *("time", "1/time", "2/time", "3/time")
    }
    assert worker.terminate() == 0


def test_generators_spread_plates_over_all_partitions_and_both_kinds_alike(
    processes: Processes, server_environ: dict[str, str], channel: BlockingChannel
) -> None:
    env = {**server_environ, **FOUR, "CARPARK_MATCH_RATIO": "0"}
    for kind in ("entry", "exit"):
        generator = processes.start(["carpark", "generate", kind, "--rate", "500", "--events", "200"], env=env)
        assert generator.wait() == 0, generator.output
    seen: dict[str, set[int]] = {}
    for queue in event_queues(4):
        bodies = iter(lambda queue=queue: channel.basic_get(queue, auto_ack=True)[2], None)
        for body in bodies:
            read = read_body(queue, body)
            assert isinstance(read, EventMessage)
            assert queue_for(read.event, 4) == queue
            seen.setdefault(read.event.vehicle_plate, set()).add(partition_of(queue))
    assert all(len(partitions) == 1 for partitions in seen.values())
    assert {partition for partitions in seen.values() for partition in partitions} == {0, 1, 2, 3}


@pytest.fixture
def configure(
    make_settings: Callable[..., Settings], broker_url: str, management_url: str
) -> Callable[[int], tuple[list[str], list[str]]]:
    """Declare the queues of so many partitions: gives what was missing, and what was said."""

    def configure(partitions: int) -> tuple[list[str], list[str]]:
        said: list[str] = []
        settings = make_settings(broker_url=broker_url, management_url=management_url, partitions=partitions)
        metrics = QueueMetrics(CollectorRegistry(), all_queues(partitions))
        with closing(QueueConfigurator(settings, metrics, said.append)) as configurator:
            missing = configurator.declare()
            configurator.count()
        return missing, said

    return configure


def test_another_number_is_said_and_messages_that_it_would_leave_behind_are_refused(
    configure: Callable[[int], tuple[list[str], list[str]]], broker_url: str
) -> None:
    assert configure(2)[1] == []
    missing, said = configure(3)
    assert (missing[0], said) == ("vehicle_entry.2", [])
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish("", "vehicle_entry", b"{}")
        missing, (line,) = configure(4)
        assert missing[0] == "vehicle_entry.3"
        assert line.startswith("queues: 4 partitions instead of 3: drain before the number changes")
        assert line.endswith(" what is left in vehicle_entry (1 message)")
        assert configure(4) == ([], [])
        for name in ("vehicle_entry.2", "vehicle_exit.3.XQ"):
            channel.basic_publish("", name, b"{}")
            with pytest.raises(InvalidSetting, match=rf"^CARPARK_PARTITIONS='2': wanted 4 as before: .*{name} \(1 m"):
                configure(2)
            channel.queue_purge(name)
        consumer = channel.basic_consume("vehicle_exit.3", lambda *_: None)
        with pytest.raises(InvalidSetting, match=r"vehicle_exit\.3 \(a worker\)"):
            configure(2)
        channel.basic_cancel(consumer)
        assert configure(2) == ([], [])


def test_messages_beyond_the_number_are_found_without_the_management_api_too(
    make_settings: Callable[..., Settings], broker_url: str, channel: BlockingChannel, free_port: int
) -> None:
    declare_queues(channel, ["vehicle_exit.9"])
    channel.confirm_delivery()
    channel.basic_publish("", "vehicle_exit.9", b"{}")
    settings = make_settings(broker_url=broker_url, management_url=f"http://localhost:{free_port}")
    metrics = QueueMetrics(CollectorRegistry(), all_queues(1))
    wanted = pytest.raises(InvalidSetting, match=r"wanted 10 as before: .*: vehicle_exit\.9 \(1 message\)$")
    with closing(QueueConfigurator(settings, metrics, print)) as configurator, wanted:
        configurator.declare()
    for name in with_companions("vehicle_exit.9"):
        channel.queue_delete(name)


def test_what_comes_into_a_queue_beyond_the_number_is_seen_in_the_metrics(
    make_settings: Callable[..., Settings], broker_url: str, management_url: str, channel: BlockingChannel
) -> None:
    registry = CollectorRegistry()
    settings = make_settings(broker_url=broker_url, management_url=management_url)
    with closing(QueueConfigurator(settings, QueueMetrics(registry, all_queues(1)), print)) as configurator:
        configurator.declare()
        declare_queues(channel, ["vehicle_exit.3"])
        channel.confirm_delivery()
        channel.basic_publish("", "vehicle_exit.3", b"{}")

        def is_unattended() -> bool:
            configurator.count()
            of = {"queue": "vehicle_exit.3"}
            messages = registry.get_sample_value("queue_configurator_queue_messages", {**of, "state": "ready"})
            return (messages, registry.get_sample_value("queue_configurator_queue_consumers", of)) == (1, 0)

        eventually(is_unattended)


def test_the_command_refuses_with_status_2_and_one_line(
    processes: Processes, server_environ: dict[str, str], channel: BlockingChannel
) -> None:
    declare_queues(channel, all_queues(3))
    channel.confirm_delivery()
    channel.basic_publish("", "vehicle_exit.2", b"{}")
    for options in (["--once"], []):
        process = processes.start(["carpark", "queues", *options, "--partitions", "2"], env=server_environ)
        assert process.wait() == 2, process.output
        assert process.output.splitlines()[-1].endswith("not yet empty: vehicle_exit.2 (1 message)")
        assert "Traceback" not in process.output


def test_a_migration_says_and_refuses_what_another_number_would_leave_behind_before_it_begins(
    processes: Processes, server_environ: dict[str, str], channel: BlockingChannel
) -> None:
    def migrate(partitions: int) -> tuple[int, str]:
        command = ["carpark", "queues", "--migrate", "--partitions", str(partitions)]
        process = processes.start(command, env=server_environ)
        return process.wait(), process.output

    channel.confirm_delivery()
    channel.basic_publish("", "vehicle_entry", b"{}")
    status, output = migrate(2)
    assert (status, "2 partitions instead of 1: drain" in output) == (0, True), output
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "vehicle_exit.XQ"}
    channel.queue_delete("vehicle_exit")
    channel.queue_declare("vehicle_exit", durable=True, arguments=arguments)
    channel.basic_publish("", "vehicle_exit.1", b"{}")
    status, output = migrate(1)
    assert status == 2, output
    assert "declared anew" not in output
    assert output.splitlines()[-1].endswith("not yet empty: vehicle_exit.1 (1 message)")


def test_every_tool_looks_into_the_queues_of_all_partitions(
    make_settings: Callable[..., Settings], broker_url: str, management_url: str, channel: BlockingChannel
) -> None:
    declare_queues(channel, all_queues(2))
    channel.confirm_delivery()
    event = entered("e1", "A")
    channel.basic_publish(EXCHANGE, "vehicle_entry.1", message_body(event), mandatory=True)
    fill(channel, "vehicle_exit.1.XQ", dead_letters(2))
    settings = make_settings(broker_url=broker_url, management_url=management_url, partitions=2)

    queued = read_queues(broker_url, partitions=2)
    assert (queued.events, queued.dead) == ({(0, event.id)}, 2)

    assert read_queues(broker_url) == queued, "what waits beyond the number is not lost"

    pages = Pages(make_app(settings))
    assert "vehicle_entry.1" in text_of(pages.get("/"))
    assert text_of(pages.get("/queues/vehicle_exit.1/failed")).count("not wanted") == 2

    def dlq(*arguments: str) -> str:
        options = ["--broker-url", broker_url, "--partitions", "2"]
        return CliRunner().invoke(carpark, ["dlq", *arguments, *options], standalone_mode=False).stdout

    assert {letter["queue"] for letter in json.loads(dlq("list", "--json"))} == {"vehicle_exit.1.XQ"}
    assert dlq("purge", "--all", "--yes", "--queue", "vehicle_exit.1") == "purged 2 dead letters\n"

    assert "nobody consumes vehicle_entry.1, where 1 wait" in [finding.found for finding in check_broker(settings)]
    eventually(lambda: ManagementApi.of(settings).queues()["vehicle_entry.1"].ready, 15, "RabbitMQ has counted it")
    fewer = settings.model_copy(update={"partitions": 1})
    (left,) = [finding for finding in check_broker(fewer) if "left" in finding.found]
    assert left.found == "messages are left beyond CARPARK_PARTITIONS=1: vehicle_entry.1 (1)"
