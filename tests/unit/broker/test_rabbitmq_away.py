"""A RabbitMQ that cannot be connected to, in the ways that pika does not call an AMQP error."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import dramatiq
import pika
import pytest
from dramatiq.errors import ConnectionClosed

from carpark.broker import RabbitmqBroker

QUEUE = "vehicle_entry"


def _unknown(*_: object, **__: object) -> object:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.fixture
def make_broker() -> Callable[[str], RabbitmqBroker]:
    def make(url: str) -> RabbitmqBroker:
        broker = RabbitmqBroker(url, [])
        dramatiq.actor(broker=broker, actor_name=QUEUE, queue_name=QUEUE)(lambda *events: None)
        return broker

    return make


@pytest.fixture
def nameless(make_broker: Callable[[str], RabbitmqBroker], monkeypatch: pytest.MonkeyPatch) -> RabbitmqBroker:
    """A broker whose name nobody knows."""
    monkeypatch.setattr(socket, "getaddrinfo", _unknown)
    return make_broker("amqp://rabbitmq.invalid")


@pytest.fixture
def silent(make_broker: Callable[[str], RabbitmqBroker]) -> Iterator[RabbitmqBroker]:
    """A broker that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as server:
        port = server.getsockname()[1]
        yield make_broker(f"amqp://127.0.0.1:{port}/?stack_timeout=0.1&connection_attempts=1&retry_delay=0")


@pytest.fixture(params=["nameless", "silent"])
def broker(request: pytest.FixtureRequest) -> RabbitmqBroker:
    found: RabbitmqBroker = request.getfixturevalue(request.param)
    return found


def test_it_is_away_for_whoever_publishes(broker: RabbitmqBroker) -> None:
    with pytest.raises(ConnectionClosed):
        broker.publish(QUEUE, b"{}", pika.BasicProperties())


def test_it_is_away_for_whoever_consumes(broker: RabbitmqBroker) -> None:
    broker.queues_pending.clear()
    with pytest.raises(ConnectionClosed):
        broker.consume(QUEUE)
