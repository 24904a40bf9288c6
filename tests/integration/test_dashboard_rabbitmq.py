"""The dashboard's view of a real RabbitMQ: looking changes nothing, and what is moved is as it was."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from carpark.broker.dead_letters import headers_for
from carpark.errors import BrokerUnavailable
from carpark.ops.dashboard import make_app
from carpark.ops.dashboard.base import has_id, matches
from carpark.ops.dashboard.jobs import Job
from carpark.ops.dashboard.rabbitmq import RabbitmqInterface
from carpark.rabbitmq.moving import Mover
from carpark.rabbitmq.topology import declare_queues
from carpark.settings import Settings
from tests.support.dashboards import Pages, text_of
from tests.support.garbage import dramatiq_body
from tests.support.helpers import eventually, find_free_port
from tests.support.mailbox import bodies, count, dead_letters, drain, fill
from tests.support.processes import WORKER_READY, Processes
from tests.support.proxy import TcpProxy

ALL = matches("")
LOOKS = 100


@pytest.fixture
def channel(broker_url: str) -> Iterator[BlockingChannel]:
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        yield connection.channel()


@pytest.fixture
def settings(make_settings: Callable[..., Settings], broker_url: str, management_url: str) -> Settings:
    return make_settings(broker_url=broker_url, management_url=management_url)


@pytest.fixture
def interface(settings: Settings) -> RabbitmqInterface:
    return RabbitmqInterface(settings)


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_looking_a_hundred_times_changes_nothing(settings: Settings, channel: BlockingChannel, kind: str) -> None:
    declare_queues(channel, queue_type=kind)
    queues = ("vehicle_entry", "vehicle_entry.DQ", "vehicle_entry.XQ")
    for queue in queues:
        fill(channel, queue, dead_letters(70))
    pages = Pages(make_app(settings))
    page = pages.get("/queues/vehicle_entry/failed").get_data(as_text=True)
    one = page.partition('href="/queues/vehicle_entry/failed/')[2][:16]
    standard, delayed, failed = (f"/queues/vehicle_entry/{tab}" for tab in ("standard", "delayed", "failed"))
    for number in range(LOOKS):
        paths = [f"{each}?cursor={number % 2 * 50}" for each in (standard, failed)]
        if number % 10 == 0:
            paths += ["/", delayed, f"{failed}/{one}"]
        for path in paths:
            assert pages.get(path).status_code == 200
    for queue in queues:
        found = drain(channel, queue)
        assert [(properties.headers["n"], body) for body, properties in found] == [
            (number, b"garbage %d" % number) for number in range(70)
        ]
        assert [properties.headers.get("x-delivery-count", 0) for _, properties in found] == [0] * 70


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_each_tab_lists_its_messages_or_says_why_not(
    interface: RabbitmqInterface, channel: BlockingChannel, kind: str
) -> None:
    declare_queues(channel, queue_type=kind)
    for queue in ("vehicle_exit", "vehicle_exit.DQ", "vehicle_exit.XQ"):
        fill(channel, queue, dead_letters(60))

    def counts() -> tuple[int, ...]:
        queue = interface.get_queue("vehicle_exit")
        return queue.ready, queue.unacked, queue.delayed, queue.dead

    eventually(lambda: counts() == (60, 0, 60, 60), 30, "all are counted; those of quorum queues lag behind")
    for name in ("vehicle_exit", "vehicle_exit.DQ", "vehicle_exit.XQ"):
        following, jobs = interface.get_jobs(name)
        if kind == "quorum" and not name.endswith(".XQ"):
            assert (following, list(jobs)) == (None, [])
            assert "quorum queue" in jobs.note
            assert (jobs.total, jobs.is_fixed) == (60, False)
        else:
            assert (following, len(jobs), jobs.total, jobs.note) == (50, 50, 60, "")
            assert [job.headers["n"] for job in jobs] == list(range(50))
            # What the first look took is put back by RabbitMQ when it has answered already.
            rest = lambda name=name: [job.headers["n"] for job in interface.get_jobs(name, 50)[1]]  # noqa: E731
            eventually(lambda rest=rest: rest() == list(range(50, 60)))


def test_a_message_is_moved_out_of_the_middle_and_the_rest_keeps_its_order(
    interface: RabbitmqInterface, channel: BlockingChannel
) -> None:
    declare_queues(channel)
    fill(channel, "vehicle_entry.XQ", dead_letters(300))
    jobs = interface.get_jobs("vehicle_entry.XQ", 150)[1]
    assert interface.delete("vehicle_entry.XQ", has_id(jobs[0].message_id), 1) == 1
    assert interface.requeue("vehicle_entry.XQ", has_id(jobs[1].message_id), 1) == 1
    assert interface.delete("vehicle_entry.XQ", has_id(jobs[0].message_id), 1) == 0
    left = [number for number in range(300) if number not in (150, 151)]
    assert bodies(channel, "vehicle_entry") == [b"garbage 151"]
    assert bodies(channel, "vehicle_entry.XQ") == [b"garbage %d" % number for number in left]


def test_messages_of_a_rabbitmq_that_stalls_are_waited_for(channel: BlockingChannel, broker_url: str) -> None:
    declare_queues(channel)
    fill(channel, "vehicle_entry.XQ", dead_letters(50))
    with contextlib.closing(TcpProxy(broker_url)) as proxy:
        proxy.stall_delivery(2.5)
        assert Mover(proxy.url).requeue("vehicle_entry.XQ", ALL, 50) == 50
    assert bodies(channel, "vehicle_entry") == [b"garbage %d" % number for number in range(50)]


def test_what_somebody_else_has_taken_is_not_waited_for(interface: RabbitmqInterface, channel: BlockingChannel) -> None:
    declare_queues(channel)
    fill(channel, "vehicle_entry.XQ", dead_letters(50))
    seen = []

    def wanted(job: Job) -> bool:
        if not seen:  # the first 20 are taken by now
            seen.extend(channel.basic_get("vehicle_entry.XQ") for _ in range(30))
        return True

    assert interface.requeue("vehicle_entry.XQ", wanted, 50) == 20
    assert bodies(channel, "vehicle_entry") == [b"garbage %d" % number for number in range(20)]


def test_what_is_requeued_is_as_it_came_without_its_reason(
    interface: RabbitmqInterface, channel: BlockingChannel
) -> None:
    declare_queues(channel)
    own = {
        "text": "Grüße", "bytes": b"\xff\x00", "number": 2**40, "flag": True, "none": None, "list": [1, "a", {"b": []}],
        "table": {"inner": Decimal("1.5")}, "time": datetime(2026, 11, 23, 18, tzinfo=UTC), "x-carpark-cc": ["kept"],
    }  # fmt: skip
    came = pika.BasicProperties(
        content_type="text/plain", content_encoding="utf-8", priority=3, correlation_id="c", reply_to="r",
        message_id="m", timestamp=1_700_000_000, type="t", app_id="a", delivery_mode=2,
        headers={**own, **headers_for("why"), "x-carpark-traceback": "Traceback"},
    )  # fmt: skip
    fill(channel, "vehicle_exit.XQ", [(b"\xff\x00 bare", came)])
    assert interface.requeue("vehicle_exit.XQ", ALL, 10) == 1
    ((body, properties),) = drain(channel, "vehicle_exit")
    assert body == b"\xff\x00 bare"
    assert properties.headers == own
    came.headers = own
    assert vars(properties) == vars(came)


def test_properties_that_would_do_harm_stay_behind_as_headers(
    interface: RabbitmqInterface, channel: BlockingChannel, broker_url: str
) -> None:
    declare_queues(channel)
    user = pika.URLParameters(broker_url).credentials.username
    came = pika.BasicProperties(expiration="600000", user_id=user, headers={"BCC": ["vehicle_entry"]})
    fill(channel, "vehicle_exit.XQ", [(b"x", came)])
    drain(channel, "vehicle_entry")
    assert interface.requeue("vehicle_exit.XQ", ALL, 10) == 1
    ((_, properties),) = drain(channel, "vehicle_exit")
    assert (properties.expiration, properties.user_id) == (None, None)
    assert properties.headers["x-carpark-expiration"] == "600000"
    assert bodies(channel, "vehicle_entry") == []


def test_all_that_match_are_requeued_in_their_order_and_no_others(
    interface: RabbitmqInterface, channel: BlockingChannel
) -> None:
    declare_queues(channel)
    red, blue = dead_letters(250, "red"), dead_letters(250, "blue")
    fill(channel, "vehicle_exit.XQ", [each for pair in zip(red, blue, strict=True) for each in pair])
    assert interface.requeue("vehicle_exit.XQ", matches("RED"), 230) == 230
    assert bodies(channel, "vehicle_exit") == [b"garbage %d" % number for number in range(230)]
    headers = [properties.headers for _, properties in drain(channel, "vehicle_exit.XQ")]
    left = [(each["n"], each["x-carpark-error"]) for each in headers]
    assert left == [(number, why) for number in range(250) for why in ("red", "blue") if number >= 230 or why == "blue"]


def test_what_somebody_has_put_on_a_delay_queue_can_be_requeued_as_it_is(
    interface: RabbitmqInterface, channel: BlockingChannel
) -> None:
    declare_queues(channel, queue_type="quorum")
    body = dramatiq_body(options={"eta": 4_000_000_000_000})
    fill(channel, "vehicle_entry.DQ", [(body, pika.BasicProperties(headers={"mine": 1}))] * 3)
    assert interface.requeue("vehicle_entry.DQ", ALL, 2) == 2
    for found, properties in drain(channel, "vehicle_entry"):
        assert found == body
        assert properties.headers.pop("x-delivery-count", 0) == 0  # the quorum queue counts anew
        assert properties.headers == {"mine": 1}
    assert count(channel, "vehicle_entry.DQ") == 1


def test_a_queue_that_is_not_there_loses_nothing(interface: RabbitmqInterface, channel: BlockingChannel) -> None:
    declare_queues(channel)
    fill(channel, "vehicle_exit.XQ", dead_letters(150))
    channel.queue_delete("vehicle_exit")
    with pytest.raises(BrokerUnavailable, match=r"did not take a message for vehicle_exit: there is no such queue"):
        interface.requeue("vehicle_exit.XQ", ALL, 150)
    assert len(bodies(channel, "vehicle_exit.XQ")) == 150
    channel.queue_delete("vehicle_exit.XQ")
    assert interface.requeue("vehicle_exit.XQ", ALL, 1) == 0
    assert interface.get_jobs("vehicle_exit.XQ")[1].note.startswith("This queue is not declared yet")
    assert not interface.get_queue("vehicle_exit").is_declared


def test_workers_are_listed_and_their_messages_are_left_in_order(
    interface: RabbitmqInterface, channel: BlockingChannel, processes: Processes, server_environ: dict[str, str]
) -> None:
    declare_queues(channel)
    assert interface.workers == []
    worker = processes.start(["dramatiq", "carpark.actors", "--processes", "1", "--threads", "1"], env=server_environ)
    worker.wait_for_line(WORKER_READY, 60)
    (found,) = eventually(lambda: interface.workers, 30)
    assert (found.name, found.host) == ("carpark backend", socket.gethostname())
    os.kill(int(found.process), 0)
    assert found.since
    assert abs((datetime.now(UTC) - found.since).total_seconds()) < 100
    # RabbitMQ's list of consumers is some seconds old, and this one's may be younger than that of the delayed messages.
    eventually(
        lambda: "a worker takes messages from this queue right now" in interface.get_jobs("vehicle_entry")[1].note
    )


@pytest.mark.parametrize("away", ["broker", "management"])
def test_a_server_that_is_away_is_a_page_that_says_what_to_do(
    settings: Settings, make_settings: Callable[..., Settings], away: str
) -> None:
    port = find_free_port()
    if away == "broker":
        urls = {"broker_url": f"amqp://127.0.0.1:{port}", "management_url": f"http://127.0.0.1:{find_free_port()}"}
    else:
        urls = {"broker_url": settings.broker_url, "management_url": f"http://127.0.0.1:{port}"}
    pages = Pages(make_app(make_settings(**urls)))
    for path in ("/", "/queues/vehicle_entry/failed", "/queues/vehicle_entry/failed/0123456789abcdef"):
        answer = pages.get(path)
        assert answer.status_code == 503
        assert "connection refused; turn it on (rabbitmq-plugins enable rabbitmq_management)" in text_of(answer)
        assert "Traceback" not in answer.get_data(as_text=True)
    assert "rabbitmq-plugins enable" in text_of(pages.get("/carpark"))
