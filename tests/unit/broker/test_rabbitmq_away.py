"""A RabbitMQ that cannot be connected to, in the ways that pika does not call an AMQP error."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import dramatiq
import pika
import pytest
from dramatiq.errors import ConnectionClosed

from carpark.broker import RabbitmqBroker
from carpark.errors import QueueMismatch

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
        yield make_broker(f"amqp://127.0.0.1:{port}/?stack_timeout=0.02&connection_attempts=1&retry_delay=0")


@pytest.fixture(params=["nameless", "silent"])
def broker(request: pytest.FixtureRequest) -> RabbitmqBroker:
    found: RabbitmqBroker = request.getfixturevalue(request.param)
    return found


def test_it_is_away_for_whoever_publishes(broker: RabbitmqBroker) -> None:
    with pytest.raises(ConnectionClosed):
        broker.publish(QUEUE, b"{}", pika.BasicProperties())


def test_whoever_consumes_waits_for_it_and_says_so_once(
    broker: RabbitmqBroker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carpark.rabbitmq.outage.BACKOFF_SECONDS", (0.01,))
    consumers = [broker.consume(queue, timeout=20) for queue in (QUEUE, f"{QUEUE}.DQ")]
    assert [next(consumer) for _ in range(3) for consumer in consumers] == [None] * 6
    said = [each.getMessage() for each in caplog.records if each.name == "carpark.broker.rabbitmq"]
    assert len(said) == 1
    assert said[0].startswith("RabbitMQ at amqp://")
    assert said[0].endswith("start RabbitMQ, or name another one in CARPARK_BROKER_URL; events wait")
    for consumer in consumers:
        consumer.close()


def test_an_outage_is_a_line_at_its_beginning_for_each_thing_to_do_and_one_at_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = RabbitmqBroker("amqp://me:hidden@there", [])
    lost, gone = pika.exceptions.StreamLostError("x"), pika.exceptions.AMQPConnectionError()
    refused = pika.exceptions.ChannelClosedByBroker(403, "ACCESS_REFUSED - access to queue 'a' refused")
    broker.goes_on("a")
    for who, error in (("a", lost), ("b", gone), ("b", ConnectionClosed(refused)), ("a", lost), ("b", refused)):
        broker.waits(who, error)
    broker.goes_on("a")
    broker.goes_on("a")
    assert [each.getMessage().partition("; ")[0] for each in caplog.records] == [
        "RabbitMQ at amqp://me:***@there: the connection was lost",
        "RabbitMQ at amqp://me:***@there: access to queue 'a' refused",
    ]
    caplog.clear()
    broker.goes_on("b")
    broker.goes_on("b")
    (last,) = caplog.records
    assert last.getMessage().startswith("RabbitMQ is back after 0.")
    broker.waits("a", ConnectionClosed(QueueMismatch("a", "of another type")))
    assert "queue 'a' exists with other arguments than carpark's (of another type)" in caplog.records[-1].getMessage()
