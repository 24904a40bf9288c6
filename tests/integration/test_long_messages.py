"""Messages that are long, deep or heavy, in the memory that the containers of the stack have: they stop nobody."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping

import pika
import pytest
import redis
import requests
from pika.adapters.blocking_connection import BlockingChannel

from carpark.backend.processing import Backend
from carpark.backend.relay import summary_message
from carpark.broker import rabbitmq
from carpark.domain.events import MAX_BODY_BYTES, StaySummary
from carpark.ops.doctor.findings import Level
from carpark.ops.doctor.servers import check_message_size
from carpark.plugins import Plugins
from carpark.rabbitmq.topology import all_queues, declare_queues
from carpark.settings import Settings
from tests.deploy.files import compose, mebibytes
from tests.support.cgroup import container
from tests.support.dashboard_service import READY, post
from tests.support.helpers import eventually
from tests.support.mailbox import bodies, count, dead_letters, drain, fill
from tests.support.processes import Process, Processes
from tests.support.servers import RabbitmqServer

pytestmark = [pytest.mark.timeout(400)]

MEBIBYTE = MAX_MESSAGE_BYTES = 2**20
QUEUES = {"vehicle_entry": "entry_date_time", "vehicle_exit": "exit_date_time"}


@pytest.fixture(scope="module")
def lenient() -> Iterator[RabbitmqServer]:
    """A RabbitMQ with the limit that 3.x comes with."""
    server = RabbitmqServer(max_message_size=128 * MEBIBYTE)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def any_length(lenient: RabbitmqServer) -> Iterator[BlockingChannel]:
    with pika.BlockingConnection(pika.URLParameters(lenient.url)) as connection:
        channel = connection.channel()
        declare_queues(channel)
        for name in ("vehicle_entry", "vehicle_exit", "vehicle_entry.XQ", "vehicle_exit.XQ"):
            channel.queue_purge(name)
        yield channel


def event(queue: str, name: str, more: str = "") -> bytes:
    return (
        f'{{"id":"{name}","vehicle_plate":"{name}","{QUEUES[queue]}":"2026-11-23T18:00:00Z"'
        + (f',"x":{more}' if more else "")
        + "}"
    ).encode()


def heavy(queue: str, name: str, piece: str) -> bytes:
    """Make an event as long as events may be, of which Python makes much."""
    room = MAX_BODY_BYTES - len(event(queue, name, "[]"))
    return event(queue, name, f"[{','.join([piece] * (room // (len(piece.encode()) + 1)))}]")


def ready(store: redis.Redis, plates: set[str]) -> bool:
    return plates <= set(store.keys("*"))


def run_worker(processes: Processes, environ: Mapping[str, str], store: redis.Redis, plates: set[str]) -> str:
    """Run a worker in a container's memory until it has recorded what was behind all else; give what it said."""
    with container("worker") as (group, image):
        command = group.command("worker", "--processes", "1", "--threads", "4")
        worker = processes.start(command, env={**environ, **image})
        try:
            eventually(lambda: worker.status is not None or group.kills or ready(store, plates), 240, "all is recorded")
        finally:
            kills = group.kills
        assert (worker.status, kills) == (None, 0), worker.output[-2000:]
        worker.terminate(60)
    return worker.output


def test_hundreds_of_megabytes_of_what_is_too_long_pass_through_a_worker(
    processes: Processes, server_environ: dict[str, str], channel: BlockingChannel, store: redis.Redis
) -> None:
    deep = b'{"x":' + b"[" * (MAX_MESSAGE_BYTES - 5)
    for number in range(150):
        for queue in (*QUEUES, "vehicle_entry.DQ"):
            channel.basic_publish("", queue, deep if number % 2 else bytes(MAX_MESSAGE_BYTES))
    for queue in QUEUES:
        channel.basic_publish("", queue, event(queue, f"LAST{queue[-1].upper()}"))
    run_worker(processes, server_environ, store, {"LASTY", "LASTT"})
    assert (count(channel, "vehicle_entry.XQ"), count(channel, "vehicle_exit.XQ")) == (300, 150)
    counts = store.hgetall("carpark:counts")
    assert (counts["entry/rejected"], counts["exit/rejected"]) == ("300", "150")


@pytest.mark.parametrize("piece", ["{}", '{"":{}}', "1e9"])
def test_a_backlog_of_events_of_which_python_makes_much_is_recorded(
    processes: Processes, server_environ: dict[str, str], channel: BlockingChannel, store: redis.Redis, piece: str
) -> None:
    for number in range(350):
        for queue in QUEUES:
            channel.basic_publish("", queue, heavy(queue, f"{queue[-1].upper()}{number}", piece))
    run_worker(processes, server_environ, store, {"Y349", "T349"})
    assert int(store.hgetall("carpark:counts")["entry/recorded"]) == 350
    assert count(channel, "vehicle_entry.XQ") == 0
    assert len(json.loads(store.hget("Y349", "parking_enter_data") or "")["x"]) > 5_000


def test_a_backlog_of_long_headers_stops_no_worker(
    processes: Processes, server_environ: dict[str, str], channel: BlockingChannel, store: redis.Redis
) -> None:
    many = pika.BasicProperties(headers={f"{number:x}": None for number in range(10_000)})
    for number in range(150):
        channel.basic_publish("", "vehicle_entry", event("vehicle_entry", f"N{number}"), many)
        channel.basic_publish("", "vehicle_exit", b"garbage", many)
    channel.basic_publish("", "vehicle_exit", event("vehicle_exit", "LAST"))
    run_worker(processes, server_environ, store, {"N149", "LAST"})
    assert (count(channel, "vehicle_entry.XQ"), count(channel, "vehicle_exit.XQ")) == (0, 150)
    [(_, properties)] = [drain(channel, "vehicle_exit.XQ")[0]]
    assert len(properties.headers) == 10_002


@pytest.mark.parametrize("partitions", [1, 4])
def test_what_a_worker_has_in_hand_at_most_is_a_third_of_its_memory(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, partitions: int
) -> None:
    backend = Backend(make_settings(broker_url="amqp://127.0.0.1:1", partitions=partitions), Plugins(()))
    asked: list[int] = []
    monkeypatch.setattr(rabbitmq, "EventConsumer", lambda broker, queue, prefetch, *_: asked.append(prefetch))
    monkeypatch.setattr(backend.broker, "declare_queue", lambda *_, **__: None)
    for queue in backend.broker.queues:
        backend.broker.consume(queue, prefetch=8)
        backend.broker.consume(f"{queue}.DQ", prefetch=4000)
    assert len(asked) == 2 * (2 * partitions + 1)
    assert sum(asked) * MAX_BODY_BYTES < mebibytes(compose()["services"]["worker"]["mem_limit"]) * MEBIBYTE / 3
    assert max(asked) >= 600 // (2 * partitions)


@pytest.mark.slow
@pytest.mark.parametrize("body", [b"x" * 100 * MEBIBYTE, b"[" * 15_000_000, b"[" * 7_500_000 + b"]" * 7_500_000])
def test_what_is_longer_than_the_memory_passes_where_rabbitmq_takes_it(
    processes: Processes,
    server_environ: dict[str, str],
    lenient: RabbitmqServer,
    any_length: BlockingChannel,
    store: redis.Redis,
    body: bytes,
) -> None:
    for queue in QUEUES:
        for part in (body, body, event(queue, queue[-1].upper())):
            any_length.basic_publish("", queue, part)
    environ = {**server_environ, "CARPARK_BROKER_URL": lenient.url, "CARPARK_MANAGEMENT_URL": lenient.management_url}
    said = run_worker(processes, environ, store, {"Y", "T"})
    assert f"the body has {len(body)} bytes; wanted at most 65536" in said
    for queue in QUEUES:
        assert count(any_length, f"{queue}.XQ") == 2
        method, properties, found = any_length.basic_get(f"{queue}.XQ", auto_ack=True)
        assert (method is not None, found) == (True, body)
        assert properties.headers["x-death"][0]["reason"] == "rejected"
    assert store.hget("carpark:counts", "exit/rejected") == "2"


def test_a_dead_letter_that_rabbitmq_does_not_take_any_more_is_one_all_the_same(
    processes: Processes,
    server_environ: dict[str, str],
    make_settings: Callable[..., Settings],
    store: redis.Redis,
) -> None:
    """Who has lowered the limit has longer messages in the queues."""
    server = RabbitmqServer()
    with contextlib.closing(server):
        server.start()
        with pika.BlockingConnection(pika.URLParameters(server.url)) as connection:
            channel = connection.channel()
            declare_queues(channel)
            for body in (b"x" * 5_000, b"y" * 70_000, event("vehicle_entry", "E")):
                channel.basic_publish("", "vehicle_entry", body, pika.BasicProperties(delivery_mode=2))
            eventually(lambda: count(channel, "vehicle_entry") == 3)
        server.stop()
        conf = server.folder / "rabbitmq.conf"
        text = conf.read_text(encoding="ascii")
        conf.write_text(re.sub(r"(?<=max_message_size = )\d+", "4000", text), encoding="ascii")
        server.start()
        environ = {**server_environ, "CARPARK_BROKER_URL": server.url, "CARPARK_MANAGEMENT_URL": server.management_url}
        worker = processes.start(["carpark", "worker", "--processes", "1"], env=environ)
        eventually(lambda: store.exists("E"), 60, "what is behind them is recorded")
        [finding] = check_message_size(make_settings(broker_url=server.url))
        assert finding.found == "RabbitMQ takes messages of 4000 bytes at most, and an event may have 65536"
        with pika.BlockingConnection(pika.URLParameters(server.url)) as connection:
            channel = connection.channel()
            eventually(lambda: count(channel, "vehicle_entry.XQ") == 2)
            assert [len(body) for body in bodies(channel, "vehicle_entry.XQ")] in ([5_000, 70_000], [70_000, 5_000])
        assert worker.terminate() == 0


DEAD = b'{"x":' + b"[1.5,\xff" * 2_500_000


@pytest.fixture
def dead(any_length: BlockingChannel, lenient: RabbitmqServer, server_environ: dict[str, str]) -> dict[str, str]:
    """Three dead letters of 15 MB each and a short one; gives the environment."""
    for body in (DEAD, DEAD, b"short", DEAD):
        any_length.basic_publish("", "vehicle_entry.XQ", body, dead_letters(1)[0][1])
    eventually(lambda: count(any_length, "vehicle_entry.XQ") == 4)
    return {**server_environ, "CARPARK_BROKER_URL": lenient.url, "CARPARK_MANAGEMENT_URL": lenient.management_url}


def test_the_dashboard_opens_a_long_dead_letter_as_text(processes: Processes, dead: dict[str, str]) -> None:
    with container("dashboard") as (group, image):
        dashboard = processes.start(group.command("dashboard", "--port", "0"), env={**dead, **image})
        url = dashboard.wait_for_line(READY, 60)[1]
        page = requests.get(f"{url}/queues/vehicle_entry/failed", timeout=60).text
        ids = re.findall(r'href="/queues/vehicle_entry/failed/([0-9a-f]{16})"', page)
        assert len(ids) == 4
        for each in ids:
            started = time.monotonic()
            shown = requests.get(f"{url}/queues/vehicle_entry/failed/{each}", timeout=60).text
            assert "short" in shown or "Shortened: the body has 15,000,005 bytes" in shown
            assert len(shown) < 400_000
            assert time.monotonic() - started < 10
        assert "1 message was sent" in post(url, "/requeue-message", id=ids[2], queue="vehicle_entry.XQ").text
        assert post(url, "/delete-all", queue="vehicle_entry.XQ", count=9).status_code == 200
        assert group.kills == 0


def test_the_dashboards_twentieth_page_fits_into_its_memory(
    processes: Processes, server_environ: dict[str, str], channel: BlockingChannel
) -> None:
    fill(channel, "vehicle_entry.XQ", [(b'{"":[' + b"{}," * 21_000 + b"{}]}", dead_letters(1)[0][1])] * 1000)
    with container("dashboard") as (group, image):
        dashboard = processes.start(group.command("dashboard", "--port", "0"), env={**server_environ, **image})
        url = dashboard.wait_for_line(READY, 60)[1]
        for query in ("cursor=950", "match=not+wanted"):
            answer = requests.get(f"{url}/queues/vehicle_entry/failed?{query}", timeout=60)
            assert (answer.status_code, group.kills) == (200, 0)
        assert post(url, "/requeue-all", queue="vehicle_entry.XQ", count=1000).status_code == 200
        assert group.kills == 0
        assert count(channel, "vehicle_entry") == 1000


def test_a_terminal_is_shown_long_dead_letters_in_little_memory(processes: Processes, dead: dict[str, str]) -> None:
    with container("dashboard") as (group, image):

        def dlq(*words: str) -> Process:
            process = processes.start(group.command("dlq", *words), env={**dead, **image})
            assert (process.wait(60), group.kills) == (0, 0)
            return process

        lines = dlq("list").output.splitlines()
        assert len(lines) == 5
        assert len(json.loads(dlq("list", "--json").output)) == 4
        left = processes.start(group.command("dlq", "requeue", "--all"), env={**dead, **image})
        assert (left.wait(60), group.kills) == (1, 0)
        assert left.output.startswith("requeued 1 dead letter\ncarpark dlq: 3 stay: longer than 1048576 bytes")
        assert dlq("purge", "--all", "--yes").output == "purged 3 dead letters\n"


def test_all_of_a_long_dead_letter_is_shown_in_a_few_times_its_memory(
    processes: Processes, dead: dict[str, str]
) -> None:
    with container("worker") as (group, image):
        listed = processes.start(group.command("dlq", "list", "--json"), env={**dead, **image})
        assert listed.wait(60) == 0
        shown = processes.start(group.command("dlq", "show", json.loads(listed.output)[0]["id"]), env={**dead, **image})
        assert (shown.wait(60), group.kills) == (0, 0)
        assert shown.output.count("[1.5,\\xff") == 2_500_000


@pytest.mark.servers
def test_the_doctor_says_that_rabbitmq_takes_too_much(
    make_settings: Callable[..., Settings], lenient: RabbitmqServer, any_length: BlockingChannel
) -> None:
    [finding] = check_message_size(make_settings(broker_url=lenient.url))
    assert (finding.level, finding.found) == (Level.WARNING, "RabbitMQ takes messages of more than 1048576 bytes")
    assert [count(any_length, queue) for queue in all_queues(1)] == [0, 0, 0]


def test_our_own_messages_are_far_from_the_limit() -> None:
    longest = StaySummary.of_stay("🚗" * 128, "𐐀" * 16, "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z")
    assert len(summary_message("s" * 200, longest).encode()) < MAX_MESSAGE_BYTES / 100
