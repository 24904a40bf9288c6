"""Queues that are not what they were meant to be: of another type, with other arguments, with another default."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pika
import pytest
import requests
from click.testing import CliRunner
from pika.adapters.blocking_connection import BlockingChannel

from carpark.cli import carpark
from carpark.errors import BrokerUnavailable, QueueMismatch
from carpark.ops.audit.queued import read_queues
from carpark.ops.dashboard.rabbitmq import RabbitmqInterface
from carpark.rabbitmq.management import ManagementApi, virtual_host_of
from carpark.rabbitmq.moving import Mover
from carpark.rabbitmq.topology import all_queues, declare_queues, queue_arguments, why_not_to_look, with_companions
from carpark.settings import Settings
from tests.support.helpers import eventually
from tests.support.mailbox import bodies, count, dead_letters, fill
from tests.support.processes import WORKER_READY, Processes
from tests.support.servers import RabbitmqServer, VirtualHost

QUORUM = {"x-queue-type": "quorum"}
LOOKS = 25
LIMITED = {**QUORUM, "x-delivery-limit": 20}
"""As RabbitMQ 4 makes every quorum queue."""


@pytest.fixture
def channel(broker_url: str) -> Iterator[BlockingChannel]:
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        yield connection.channel()


@pytest.fixture(params=["with the management API", "without it"])
def api_url(request: pytest.FixtureRequest, management_url: str, free_port: int) -> str:
    return management_url if request.param == "with the management API" else f"http://127.0.0.1:{free_port}"


@pytest.fixture
def worn(channel: BlockingChannel) -> BlockingChannel:
    """A virtual host where somebody has made a quorum queue of the dead letters."""
    channel.queue_declare("vehicle_entry.XQ", durable=True, arguments=LIMITED)
    fill(channel, "vehicle_entry.XQ", dead_letters(3))
    return channel


@pytest.mark.parametrize(
    "command", [["list"], ["list", "--json"], ["show", "0" * 16], ["requeue", "--all"], ["purge", "--all", "--yes"]]
)
def test_dead_letters_that_would_not_bear_it_are_neither_looked_at_nor_moved(
    worn: BlockingChannel, broker_url: str, api_url: str, command: list[str]
) -> None:
    environ = {"CARPARK_BROKER_URL": broker_url, "CARPARK_MANAGEMENT_URL": api_url}
    for _ in range(LOOKS if command == ["list"] else 1):
        result = CliRunner().invoke(carpark, ["dlq", *command], env=environ, standalone_mode=False)
        assert isinstance(result.exception, QueueMismatch)
        assert "queue 'vehicle_entry.XQ'" in str(result.exception)
        assert "quorum" in str(result.exception)
        assert "carpark queues --migrate" in str(result.exception)
    assert bodies(worn, "vehicle_entry.XQ") == [b"garbage 0", b"garbage 1", b"garbage 2"]


def test_where_nobody_says_of_what_type_they_are_they_are_let_be(
    worn: BlockingChannel, make_user: Callable[..., str], management_url: str, free_port: int
) -> None:
    url = make_user(read=".*")
    host = virtual_host_of(url)
    for management in (None, ManagementApi(f"http://127.0.0.1:{free_port}", host)):
        with pytest.raises(BrokerUnavailable, match=r"of what type vehicle_entry\.XQ is; give the user the right to"):
            list(Mover(url, management=management).walk("vehicle_entry.XQ"))
    with pytest.raises(QueueMismatch, match="it is a quorum queue"):
        list(Mover(url, management=ManagementApi(management_url, host)).walk("vehicle_entry.XQ"))
    assert count(worn, "vehicle_entry.XQ") == 3


def test_a_queue_is_looked_at_only_if_it_is_really_a_classic_one(channel: BlockingChannel, management_url: str) -> None:
    declare_queues(channel, ("vehicle_exit",), "quorum")
    channel.queue_declare("vehicle_entry", durable=True, arguments={**queue_arguments("vehicle_entry")})
    api = ManagementApi(management_url, virtual_host_of("amqp://x/none"))  # which is none: RabbitMQ itself is asked
    looked_at = {
        name: why_not_to_look(channel.connection, name, api)
        for name in ("vehicle_entry", "vehicle_exit.XQ", "vehicle_exit", "vehicle_entry.XQ")
    }
    assert looked_at.pop("vehicle_exit").startswith("inequivalent arg 'x-")
    assert set(looked_at.values()) == {""}
    with pytest.raises(pika.exceptions.ChannelClosedByBroker):
        channel.queue_declare("vehicle_entry.XQ", passive=True)  # asking has made none


def test_the_dashboard_says_why_it_does_not_list_them(
    worn: BlockingChannel, make_settings: Callable[..., Settings], broker_url: str, management_url: str
) -> None:
    interface = RabbitmqInterface(make_settings(broker_url=broker_url, management_url=management_url))
    for _ in range(LOOKS):
        _, jobs = interface.get_jobs("vehicle_entry.XQ")
        assert "this is a quorum queue" in jobs.note
        assert "carpark queues --migrate" in jobs.note
        assert interface.get_job("vehicle_entry.XQ", "0" * 16) is None
    with pytest.raises(QueueMismatch):
        interface.requeue("vehicle_entry.XQ", lambda job: True, 1)
    assert count(worn, "vehicle_entry.XQ") == 3


def test_the_audit_does_not_wear_them_out(worn: BlockingChannel, broker_url: str, api_url: str) -> None:
    for _ in range(LOOKS):
        with pytest.raises(QueueMismatch, match=r"vehicle_entry\.XQ"):
            read_queues(broker_url, management_url=api_url)
    assert count(worn, "vehicle_entry.XQ") == 3


def test_the_audit_counts_what_is_in_a_quorum_queue_whatever_the_setting_says(
    channel: BlockingChannel, broker_url: str, api_url: str
) -> None:
    channel.queue_declare("carpark_work", durable=True, arguments=LIMITED)
    fill(channel, "carpark_work", dead_letters(4))
    for _ in range(LOOKS):
        queued = read_queues(broker_url, management_url=api_url)
        assert (queued.waiting, queued.unread) == (4, 4)
    assert len(bodies(channel, "carpark_work")) == 4


def test_they_are_migrated_with_all_that_is_in_them(
    worn: BlockingChannel, processes: Processes, server_environ: dict[str, str]
) -> None:
    migration = processes.start(["carpark", "queues", "--migrate"], env=server_environ)
    assert migration.wait(60) == 0, migration.output
    assert "queues: 3 messages are back in vehicle_entry.XQ" in migration.output
    listed = processes.start(["carpark", "dlq", "list", "--json"], env=server_environ, name="list")
    assert listed.wait() == 0
    assert [each["error"] for each in json.loads(listed.output)] == ["not wanted"] * 3


def test_all_are_of_the_type_that_the_setting_says_where_the_virtual_host_has_another_default(
    processes: Processes, server_environ: dict[str, str], broker_url: str, management_url: str
) -> None:
    host = virtual_host_of(broker_url)
    other = requests.put(f"{management_url}/api/vhosts/{host}", json={"default_queue_type": "quorum"}, timeout=10)
    other.raise_for_status()
    for name in ("worker", "queues"):
        options = ["--processes", "1", "--threads", "1"] if name == "worker" else ["--once"]
        process = processes.start(["carpark", name, *options], env=server_environ, name=name)
        if name == "worker":
            process.wait_for_line(WORKER_READY)
            assert process.terminate() == 0
        else:
            assert process.wait() == 0, process.output
            assert "all were there already" in process.output
    found = ManagementApi(management_url, host).queues()
    ours = [name for queue in all_queues(1) for name in with_companions(queue)]
    assert {name: found[name].kind for name in ours} == dict.fromkeys(ours, "classic")


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("vehicle_exit", QUORUM, "x-"),
        ("vehicle_entry", {"x-max-priority": 10}, "x-"),
        ("carpark_work.DQ", {**queue_arguments("carpark_work.DQ"), "x-expires": 3_600_000}, "x-expires"),
        ("vehicle_exit.XQ", LIMITED, "x-queue-type"),
    ],
)
@pytest.mark.parametrize("command", [["carpark", "worker"], ["dramatiq", "carpark.actors"]])
def test_a_worker_does_not_start_on_queues_with_other_arguments(
    processes: Processes,
    server_environ: dict[str, str],
    channel: BlockingChannel,
    command: list[str],
    name: str,
    arguments: Mapping[str, Any],
    said: str,
) -> None:
    channel.queue_declare(name, durable=True, arguments=dict(arguments))
    worker = processes.start([*command, "--processes", "1", "--threads", "1"], env=server_environ)
    assert worker.wait() == 2, worker.output
    lines = worker.output.splitlines()
    (line,) = [each for each in lines if each.startswith("carpark: ") or command[0] == "carpark"]
    assert f"queue '{name}' exists with other arguments than carpark's (inequivalent arg '{said}" in line
    assert "CARPARK_QUEUE_TYPE" in line
    assert "Traceback" not in worker.output
    assert "Consumer encountered" not in worker.output


def test_a_worker_says_the_other_type_when_the_setting_is_the_other(
    processes: Processes, server_environ: dict[str, str], channel: BlockingChannel
) -> None:
    declare_queues(channel)
    worker = processes.start(["carpark", "worker"], env={**server_environ, "CARPARK_QUEUE_TYPE": "quorum"})
    assert worker.wait() == 2
    (line,) = worker.output.splitlines()
    assert "queue 'vehicle_entry' exists with other arguments than carpark's (inequivalent arg 'x-" in line


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda url: url.replace("guest:guest", "guest:hidden"), "it refuses the user or the password"),
        (lambda url: url + "-of-nobody", "vhost"),
    ],
)
def test_a_worker_does_not_wait_for_a_rabbitmq_that_refuses_it(
    processes: Processes, server_environ: dict[str, str], broker_url: str, change: Callable[[str], str], said: str
) -> None:
    worker = processes.start(["carpark", "worker"], env={**server_environ, "CARPARK_BROKER_URL": change(broker_url)})
    assert worker.wait() == 2
    (line,) = worker.output.splitlines()
    assert line.startswith("carpark: CARPARK_BROKER_URL='amqp://guest:***@")
    assert said in line


def test_a_worker_that_may_not_declare_its_queues_is_told_so(
    processes: Processes, server_environ: dict[str, str], make_user: Callable[..., str]
) -> None:
    environ = {**server_environ, "CARPARK_BROKER_URL": make_user(write=".*", read=".*")}
    worker = processes.start(["carpark", "worker"], env=environ)
    assert worker.wait() == 2
    (line,) = worker.output.splitlines()
    assert "wanted a user with the right to configure vehicle_entry, configure vehicle_entry.DQ" in line
    assert line.endswith("(docs/reference/rights.md)")


def test_rights_are_tried_once_and_leave_a_few_lines_in_the_log_of_rabbitmq_however_many_partitions(
    processes: Processes, server_environ: dict[str, str], private_rabbitmq: RabbitmqServer
) -> None:
    # The log is behind, and what is looked for in the virtual hosts of others has lines in it, too.
    with contextlib.closing(VirtualHost(private_rabbitmq.url, private_rabbitmq.management_url)) as host:
        more = {"CARPARK_BROKER_URL": host.url, "CARPARK_PARTITIONS": "4"}
        process = processes.start(
            ["carpark", "worker", "--processes", "2", "--threads", "1"], env={**server_environ, **more}
        )
        process.wait_for_line(WORKER_READY)
        assert process.terminate() == 0

    def errors() -> int:
        (log,) = (private_rabbitmq.folder / "log").glob("*@localhost.log")
        text = log.read_text(encoding="utf-8")
        return len(re.findall(f"Channel error on connection .*vhost: '{host.name}'", text))

    eventually(lambda: errors() >= 7)
    assert errors() == 7
