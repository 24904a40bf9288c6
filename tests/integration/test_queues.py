"""`carpark queues` as a process, and its parts, on a real RabbitMQ."""

import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pika
import pytest
import requests
from pika.adapters.blocking_connection import BlockingChannel
from prometheus_client import CollectorRegistry

from carpark.errors import BrokerUnavailable, QueueMismatch
from carpark.rabbitmq.configurator import QueueConfigurator
from carpark.rabbitmq.management import ManagementApi, virtual_host_of
from carpark.rabbitmq.metrics import QueueMetrics
from carpark.rabbitmq.topology import EXCHANGE, all_queues, declare_queues, queue_arguments, with_companions
from carpark.settings import Settings
from tests.support.helpers import eventually
from tests.support.processes import Process, Processes
from tests.support.servers import RabbitmqServer

ALL = [name for queue in all_queues(1) for name in with_companions(queue)]
SHORT = ["--interval", "0.2"]


@pytest.fixture
def channel(broker_url: str) -> Iterator[BlockingChannel]:
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        yield connection.channel()


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def configure(
    make_settings: Callable[..., Settings], registry: CollectorRegistry, lines: list[str]
) -> Iterator[Callable[..., QueueConfigurator]]:
    made: list[QueueConfigurator] = []

    def configure(**settings: str) -> QueueConfigurator:
        read = make_settings(**settings)
        made.append(QueueConfigurator(read, QueueMetrics(registry, all_queues(read.partitions)), lines.append))
        return made[-1]

    yield configure
    for each in made:
        each.close()


def existing(management_url: str, broker_url: str) -> dict[str, dict[str, object]]:
    host = quote(virtual_host_of(broker_url), safe="")
    answer = requests.get(f"{management_url}/api/queues/{host}?disable_stats=true", timeout=10).json()
    return {queue["name"]: queue for queue in answer}


def delete(management_url: str, broker_url: str, name: str) -> None:
    host = quote(virtual_host_of(broker_url), safe="")
    requests.delete(f"{management_url}/api/queues/{host}/{name}", timeout=10).raise_for_status()


def samples(registry: CollectorRegistry, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels.values()): sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == f"queue_configurator_{name}"
    }


def page_of(process: Process) -> str:
    url = process.wait_for_line(r"^queues: metrics at (http://\S+)$")[1]
    text: str = requests.get(url, timeout=10).text
    return text


def test_once_declares_both_queues_with_their_companions_and_ends(
    processes: Processes, server_environ: dict[str, str], management_url: str, broker_url: str
) -> None:
    for expected in ("new are vehicle_entry, vehicle_entry.DQ, vehicle_entry.XQ,", "all were there already"):
        process = processes.start(["carpark", "queues", "--once"], env=server_environ)
        assert process.wait() == 0, process.output
        assert expected in process.output
        assert "guest:guest" not in process.output
    there = existing(management_url, broker_url)
    assert sorted(there) == sorted(ALL)
    for name, queue in there.items():
        assert queue["durable"] is True
        assert queue["arguments"] == queue_arguments(name)


def test_a_queue_that_vanishes_is_declared_again_and_said_once(
    processes: Processes, server_environ: dict[str, str], management_url: str, broker_url: str
) -> None:
    process = processes.start(["carpark", "queues", *SHORT], env=server_environ)
    process.wait_for_line("are declared with their companions")
    for name in ("vehicle_exit", "vehicle_entry.DQ", "vehicle_entry.XQ"):
        delete(management_url, broker_url, name)
        process.wait_for_line(rf"^queues: {name} was gone; declared it again$")
    assert sorted(existing(management_url, broker_url)) == sorted(ALL)
    assert process.output.count("was gone") == 3
    page = page_of(process)
    assert 'queue_configurator_declarations_total{outcome="declared",queue="vehicle_exit"} 2.0' in page
    assert 'queue_configurator_declarations_total{outcome="declared",queue="vehicle_entry"} 3.0' in page
    assert process.terminate() == 0


def test_an_exchange_or_a_binding_that_vanishes_is_declared_again_and_said_once(
    processes: Processes, server_environ: dict[str, str], channel: BlockingChannel, management_url: str, broker_url: str
) -> None:
    process = processes.start(["carpark", "queues", *SHORT], env=server_environ)
    process.wait_for_line("new are .*, vehicle_events$")
    channel.queue_unbind("vehicle_exit", EXCHANGE, "vehicle_exit")
    process.wait_for_line(r"^queues: vehicle_events's binding to vehicle_exit was gone; declared it again$")
    channel.exchange_delete(EXCHANGE)
    process.wait_for_line(r"^queues: vehicle_events was gone; declared it again$")
    channel.queue_delete("vehicle_entry")
    process.wait_for_line(r"^queues: vehicle_entry was gone; declared it again$")
    with contextlib.closing(ManagementApi(management_url, virtual_host_of(broker_url))) as api:
        eventually(lambda: api.bound(EXCHANGE) == {"vehicle_entry", "vehicle_exit"}, what="both are bound again")
    page = page_of(process)
    assert 'queue_configurator_declarations_total{outcome="declared",queue="vehicle_events"} 3.0' in page
    assert process.terminate() == 0
    assert process.output.count("was gone") == 3


def test_a_binding_that_vanishes_is_made_again_without_the_management_api(
    configure: Callable[..., QueueConfigurator], broker_url: str, free_port: int, channel: BlockingChannel
) -> None:
    configurator = configure(broker_url=broker_url, management_url=f"http://127.0.0.1:{free_port}")
    configurator.declare()
    channel.queue_unbind("vehicle_exit", EXCHANGE, "vehicle_exit")
    configurator.declare()
    channel.confirm_delivery()
    channel.basic_publish(EXCHANGE, "vehicle_exit", b"{}", mandatory=True)


def test_an_exchange_of_another_type_is_status_2(
    processes: Processes, server_environ: dict[str, str], channel: BlockingChannel
) -> None:
    channel.exchange_declare(EXCHANGE, "fanout", durable=True)
    process = processes.start(["carpark", "queues", "--once"], env=server_environ)
    assert process.wait() == 2, process.output
    last = process.output.splitlines()[-1]
    assert "exchange 'vehicle_events' exists with other arguments than carpark's" in last
    assert "delete it, and it is declared again" in last


@pytest.mark.parametrize("name", ["vehicle_entry", "vehicle_exit.DQ", "vehicle_exit.XQ"])
def test_a_queue_with_other_arguments_is_status_2_and_named_with_the_way_out(
    processes: Processes, server_environ: dict[str, str], channel: BlockingChannel, name: str
) -> None:
    channel.queue_declare(name, durable=True, arguments={"x-max-length": 5})
    for options in (["--once"], SHORT):
        process = processes.start(["carpark", "queues", *options], env=server_environ)
        assert process.wait() == 2, process.output
        last = process.output.splitlines()[-1]
        assert f"queue '{name}' exists with other arguments" in last
        assert "inequivalent arg 'x-" in last
        assert "run `carpark queues --migrate`" in last
        assert "Traceback" not in process.output


def test_a_queue_that_comes_back_with_other_arguments_is_noticed(
    configure: Callable[..., QueueConfigurator],
    broker_url: str,
    management_url: str,
    channel: BlockingChannel,
    registry: CollectorRegistry,
) -> None:
    configurator = configure(broker_url=broker_url, management_url=management_url)
    configurator.declare()
    channel.queue_delete("vehicle_exit.XQ")
    channel.queue_declare("vehicle_exit.XQ", durable=False)
    with pytest.raises(QueueMismatch, match=r"vehicle_exit\.XQ.*'durable'"):
        configurator.declare()
    assert samples(registry, "declarations_total")["vehicle_exit", "failed"] == 1
    assert samples(registry, "declarations_total")["vehicle_entry", "failed"] == 0


def test_unreachable_with_once_is_status_1_and_one_line(processes: Processes, free_port: int) -> None:
    env = {"CARPARK_BROKER_URL": f"amqp://me:hidden@127.0.0.1:{free_port}"}
    process = processes.start(["carpark", "queues", "--once"], env=env)
    assert process.wait() == 1
    assert len(process.output.splitlines()) == 1
    assert f"amqp://me:***@127.0.0.1:{free_port}" in process.output
    assert "CARPARK_BROKER_URL" in process.output


@pytest.mark.parametrize("options", [["--once"], []])
def test_a_wrong_password_is_not_waited_for(processes: Processes, broker_url: str, options: list[str]) -> None:
    env = {"CARPARK_BROKER_URL": broker_url.replace("guest:guest", "guest:hidden"), "CARPARK_METRICS_PORT": "0"}
    process = processes.start(["carpark", "queues", *options], env=env)
    assert process.wait() == 2
    assert "refuses the user or the password; check both in CARPARK_BROKER_URL" in process.output
    assert "hidden" not in process.output


def test_a_missing_virtual_host_is_not_waited_for(processes: Processes, broker_url: str) -> None:
    env = {"CARPARK_BROKER_URL": f"{broker_url}-not", "CARPARK_METRICS_PORT": "0"}
    process = processes.start(["carpark", "queues"], env=env)
    assert process.wait() == 2
    assert "-not not found; create the virtual host" in process.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once_even_while_a_server_does_not_answer(
    processes: Processes, number: signal.Signals
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        env = {"CARPARK_BROKER_URL": f"amqp://127.0.0.1:{mute.getsockname()[1]}", "CARPARK_METRICS_PORT": "0"}
        process = processes.start(["carpark", "queues"], env=env)
        process.wait_for_line("metrics at")
        mute.settimeout(10)
        mute.accept()[0].close()
        connection, _ = mute.accept()  # it tries again, and now waits for the answer
        with connection:
            process.signal(number)
            assert process.wait(timeout=4) == 0, process.output  # connecting would take 5 s at least
    assert "Traceback" not in process.output


def test_a_taken_metrics_port_is_status_2(processes: Processes, server_environ: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        env = {**server_environ, "CARPARK_METRICS_PORT": str(held.getsockname()[1])}
        process = processes.start(["carpark", "queues"], env=env)
        assert process.wait() == 2
    assert "CARPARK_METRICS_PORT" in process.output
    assert len(process.output.splitlines()) == 1


def test_a_killed_rabbitmq_is_waited_for_with_one_line_for_each_change(
    processes: Processes, private_rabbitmq: RabbitmqServer
) -> None:
    env = {
        "CARPARK_BROKER_URL": private_rabbitmq.url,
        "CARPARK_MANAGEMENT_URL": private_rabbitmq.management_url,
        "CARPARK_METRICS_PORT": "0",
    }
    process = processes.start(["carpark", "queues", *SHORT], env=env)
    process.wait_for_line("are declared with their companions")
    private_rabbitmq.kill()
    process.wait_for_line(r"^queues: RabbitMQ at amqp://guest:\*\*\*@.*; waiting for it$")

    def failed() -> bool:
        page = page_of(process)
        assert "queue_configurator_queue_messages{" not in page
        return 'declarations_total{outcome="failed",queue="vehicle_exit"} 0.0' not in page

    eventually(failed, what="failed declarations are counted and no stale number is shown")
    private_rabbitmq.start()
    process.wait_for_line(r"^queues: RabbitMQ is back after [0-9.]+ s$")
    # The management API is left alone for half a minute if a question to it was cut short.
    eventually(lambda: 'queue_messages{queue="vehicle_exit",state="unacked"} 0.0' in page_of(process), 45)
    assert process.output.count("waiting for it") == 1
    assert process.output.count("is back") == 1
    # A queue declared a moment before the kill may not have reached RabbitMQ's disk: then it is declared again.
    assert process.terminate() == 0


def test_the_counts_are_those_of_the_queues(
    configure: Callable[..., QueueConfigurator],
    broker_url: str,
    management_url: str,
    channel: BlockingChannel,
    registry: CollectorRegistry,
) -> None:
    declare_queues(channel)
    channel.confirm_delivery()
    for name, count in {"vehicle_entry": 5, "vehicle_entry.DQ": 3, "vehicle_entry.XQ": 2, "vehicle_exit": 1}.items():
        for _ in range(count):
            channel.basic_publish("", name, b"{}")
    for name in ("vehicle_entry", "vehicle_entry", "vehicle_entry.DQ"):
        assert channel.basic_get(name)[0] is not None
    channel.basic_consume("vehicle_exit", lambda *_: None)
    configurator = configure(broker_url=broker_url, management_url=management_url)
    eventually(
        lambda: (configurator.declare(), configurator.count(), counted(registry))[2], what="the counts are right"
    )


def counted(registry: CollectorRegistry) -> bool:
    messages = samples(registry, "queue_messages")
    entries = [messages["vehicle_entry", state] for state in ("ready", "unacked", "delayed", "dead")]
    assert entries == [3, 2, 3, 2]
    exits = [messages["vehicle_exit", state] for state in ("ready", "unacked", "delayed", "dead")]
    assert exits == [0, 1, 0, 0]
    consumers = samples(registry, "queue_consumers")
    assert consumers == {("vehicle_entry",): 0, ("vehicle_exit",): 1, ("carpark_work",): 0}
    return True


def test_without_the_management_api_messages_in_hand_are_left_out_and_it_is_said_once(
    configure: Callable[..., QueueConfigurator],
    broker_url: str,
    free_port: int,
    registry: CollectorRegistry,
    lines: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("carpark.rabbitmq.configurator.ASK_AGAIN_SECONDS", 0.0)
    configurator = configure(broker_url=broker_url, management_url=f"http://me:hidden@127.0.0.1:{free_port}")
    for _ in range(3):
        configurator.declare()
        configurator.count()
    messages = samples(registry, "queue_messages")
    assert set(messages) == {(queue, state) for queue in all_queues(1) for state in ("ready", "delayed", "dead")}
    assert len(lines) == 1
    assert lines[0].startswith("queues: unacknowledged messages are not counted. RabbitMQ's management API at")
    assert "hidden" not in lines[0]


def test_a_user_who_may_not_declare_is_told_so(
    configure: Callable[..., QueueConfigurator], make_user: Callable[..., str], management_url: str
) -> None:
    url = make_user(write=".*", read=".*")
    with pytest.raises(BrokerUnavailable, match=r"access to queue 'vehicle_entry'.*; give the user"):
        configure(broker_url=url).declare()
    login = url.partition("//")[2].partition("@")[0]
    api = ManagementApi(management_url.replace("guest:guest", login), virtual_host_of(url))
    with contextlib.closing(api), pytest.raises(BrokerUnavailable, match="set_user_tags"):
        api.queues()


def test_the_management_api_says_who_is_connected_and_who_consumes(
    broker_url: str, management_url: str, channel: BlockingChannel
) -> None:
    declare_queues(channel)
    channel.basic_qos(prefetch_count=7)
    channel.basic_consume("vehicle_exit", lambda *_: None)
    with contextlib.closing(ManagementApi(management_url, virtual_host_of(broker_url))) as api:
        assert api.version()[0].isdigit()
        assert api.alarms() == []
        # RabbitMQ lists a consumer before it knows of its connection, or the other way round.
        (consumer,) = eventually(
            lambda: [each for each in api.consumers() if each.connection], what="the consumer is listed"
        )
        assert (consumer.queue, consumer.prefetch) == ("vehicle_exit", 7)
        (connection,) = eventually(api.connections, what="the connection is listed")
        assert (connection.name, connection.user) == (consumer.connection, "guest")
        assert connection.since is not None
        assert api.queues()["vehicle_exit"].arguments == queue_arguments("vehicle_exit")


def test_the_management_api_refuses_clearly(broker_url: str, management_url: str) -> None:
    host = virtual_host_of(broker_url)
    wrong = management_url.replace("guest:guest", "guest:hidden")
    port = broker_url.rpartition("@")[2].partition("/")[0]
    for url, virtual_host, message in (
        (wrong, host, "refuses the user or the password; check both in CARPARK_MANAGEMENT_URL"),
        (management_url, "no such/host", "there is no virtual host 'no such/host'"),
        (f"{management_url}/somewhere", host, "something else|no virtual host"),
        (f"http://guest:guest@{port}", host, "CARPARK_MANAGEMENT_URL"),
    ):
        api = ManagementApi(url, virtual_host)
        with contextlib.closing(api), pytest.raises(BrokerUnavailable, match=message) as caught:
            api.queues()
        assert "hidden" not in str(caught.value)
