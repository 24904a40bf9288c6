"""Publishing with confirms, on a real RabbitMQ."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from carpark.domain.events import VehicleEntered
from carpark.errors import ExchangeMismatch
from carpark.rabbitmq import connection
from carpark.rabbitmq.connection import connection_parameters
from carpark.rabbitmq.publishing import ConfirmingPublisher
from carpark.rabbitmq.topology import EXCHANGE, declare_exchange, declare_queues
from generators.publisher import RabbitmqPublisher
from tests.support.generating import Wire, entered, numbered
from tests.support.helpers import eventually, find_free_port

TIME = "2026-11-23T12:00:00.000000Z"


@pytest.fixture(autouse=True)
def _quiet_pika(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "pika")


class Sender:
    """A publisher, what it said, and the way to stop it."""

    def __init__(self, urls: str) -> None:
        self.stop, self.said, self.failed = threading.Event(), list[str](), list[int]()
        self.publisher = RabbitmqPublisher(urls, self.stop, self.said.append)
        self.publisher.failed = self.failed.extend

    def send(self, count: int, first: int = 0) -> int:
        return self.publisher.publish([entered(plate, TIME) for plate in numbered(count, first)])


@pytest.fixture
def sender(broker_url: str) -> Iterator[Sender]:
    sender = Sender(broker_url)
    yield sender
    sender.publisher.close()


@pytest.fixture
def wire(broker_url: str) -> Iterator[Wire]:
    wire = Wire(broker_url)
    yield wire
    wire.close()


def declare_short_queue(wire: Wire) -> None:
    """The queue of entries, that takes no more than 5."""
    full = {"x-max-length": 5, "x-overflow": "reject-publish"}
    wire.channel.queue_declare(VehicleEntered.queue, durable=True, arguments=full)
    declare_exchange(wire.channel)
    wire.channel.queue_bind(VehicleEntered.queue, EXCHANGE, VehicleEntered.queue)


def arrived(wire: Wire) -> list[str]:
    return [message["kwargs"]["vehicle_plate"] for message in wire.drain(VehicleEntered.queue)]


def test_a_window_is_confirmed_as_a_whole_and_keeps_its_order(sender: Sender, wire: Wire) -> None:
    declare_queues(wire.channel)
    assert sender.send(250) == 250
    assert sender.send(250, first=250) == 250
    assert wire.count(VehicleEntered.queue) == 500
    assert arrived(wire) == numbered(500)
    assert sender.said == sender.failed == []


def test_of_several_brokers_the_first_that_answers_is_used(broker_url: str, wire: Wire) -> None:
    declare_queues(wire.channel)
    sender = Sender(f"amqp://guest:guest@127.0.0.1:{find_free_port()}; {broker_url}")
    assert sender.send(10) == 10
    sender.publisher.close()
    assert arrived(wire) == numbered(10)
    assert sender.said == []


def test_a_name_that_is_unknown_when_a_queue_is_missing_is_waited_for(
    sender: Sender, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, tries = connection.BlockingConnection, []

    def unknown_at_first(*arguments: Any) -> Any:
        tries.append(1)
        if len(tries) < 3:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return connect(*arguments)

    monkeypatch.setattr(connection, "BlockingConnection", unknown_at_first)
    assert sender.send(10) == 10
    assert set(arrived(wire)) == set(numbered(10))
    assert "is missing and cannot be declared: " in sender.said[0]
    assert sender.said[0].endswith("10 events are kept and sent when it is back")


def test_what_a_full_queue_refuses_is_sent_again_until_it_is_taken(sender: Sender, wire: Wire) -> None:
    declare_short_queue(wire)
    result: list[int] = []
    thread = threading.Thread(target=lambda: result.append(sender.send(12)))
    thread.start()
    eventually(lambda: sender.said)
    got: list[str] = []
    eventually(lambda: got.extend(arrived(wire)) or not thread.is_alive(), 30)
    thread.join()
    got += arrived(wire)
    assert result == [12]
    assert set(got) == set(numbered(12))
    assert "is away (it does not take messages)" in sender.said[0]
    assert sender.said[1].startswith("RabbitMQ is back after")
    assert len(sender.failed) >= 7


def test_a_stop_gives_the_leading_events_that_are_confirmed(sender: Sender, wire: Wire) -> None:
    declare_short_queue(wire)
    result: list[int] = []
    thread = threading.Thread(target=lambda: result.append(sender.send(12)))
    thread.start()
    eventually(lambda: sender.said)
    sender.stop.set()
    thread.join(30)
    assert result == [5]


@pytest.mark.slow
def test_a_broker_that_is_not_there_is_given_up_soon_after_a_stop() -> None:
    sender = Sender(f"amqp://guest:guest@127.0.0.1:{find_free_port()}")
    sender.stop.set()
    assert sender.send(3) == 0
    assert len(sender.said) == 1
    assert sender.said[0].endswith("3 events are kept and sent when it is back")
    assert "guest:***@" in sender.said[0]


def test_what_is_missing_on_the_way_of_the_events_is_declared_again(sender: Sender, wire: Wire) -> None:
    sent = 0
    for harm in (
        lambda: None,  # nothing is there yet
        lambda: wire.channel.queue_delete(VehicleEntered.queue),
        lambda: wire.channel.queue_unbind(VehicleEntered.queue, EXCHANGE, VehicleEntered.queue),
        lambda: wire.channel.exchange_delete(EXCHANGE),
    ):
        harm()
        assert sender.send(5, sent) == 5
        assert sender.said.pop() == "queue vehicle_entry was missing, or not bound to vehicle_events; declared it"
        assert set(arrived(wire)) == set(numbered(5, sent))
        sent += 5
    assert sender.said == []


def test_an_exchange_of_another_type_is_named(sender: Sender, wire: Wire) -> None:
    wire.channel.exchange_declare(EXCHANGE, "fanout", durable=True)
    with pytest.raises(ExchangeMismatch, match=r"exchange 'vehicle_events' exists with other arguments"):
        sender.send(1)


@pytest.mark.parametrize("gone", ["queue", "exchange"])
def test_a_camera_that_may_write_to_the_exchange_alone_waits_for_what_is_missing(
    make_user: Callable[..., str], wire: Wire, gone: str
) -> None:
    sender = Sender(make_user(write="^vehicle_events$"))
    declare_queues(wire.channel)
    assert sender.send(5) == 5
    assert sender.said == []
    assert arrived(wire) == numbered(5)
    if gone == "queue":
        wire.channel.queue_delete(VehicleEntered.queue)
    else:
        wire.channel.exchange_delete(EXCHANGE)
    thread = threading.Thread(target=sender.send, args=(5, 5))
    thread.start()
    (line,) = eventually(lambda: sender.said)
    assert "has no queue vehicle_entry behind vehicle_events, and this user may not declare it" in line
    assert line.endswith("start `carpark queues`; 5 events are kept and sent when it is there")
    declare_queues(wire.channel)
    thread.join(30)
    assert not thread.is_alive()
    assert set(arrived(wire)) == set(numbered(5, 5))
    assert sender.said[1].startswith("the queue is there after ")
    assert len(sender.said) == 2
    sender.publisher.close()


@pytest.mark.slow
def test_what_is_held_for_the_events_is_held_while_the_broker_is_away() -> None:
    sender, held = Sender(f"amqp://guest:guest@127.0.0.1:{find_free_port()}"), list[None]()

    def hold() -> None:
        held.append(None)
        if len(held) == 3:
            sender.stop.set()

    sender.publisher.holding = hold
    assert sender.send(1) == 0
    assert len(held) >= 3


def test_an_idle_connection_answers_heartbeats_by_itself(broker_url: str) -> None:
    def survives() -> bool:
        publisher = ConfirmingPublisher(connection_parameters(f"{broker_url}?heartbeat=1", "test"))
        assert publisher.wait_open(10)
        try:
            eventually(publisher.is_closed, 4)
        except AssertionError:
            return True
        else:
            return False
        finally:
            publisher.close()
            assert publisher.is_closed()

    # RabbitMQ closes after two missed ones, as this process's are when it gets no processor for 2 s; but not each time.
    assert any(survives() for _ in range(3))
