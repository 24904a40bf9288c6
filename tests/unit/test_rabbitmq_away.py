"""A RabbitMQ that cannot be connected to, in the ways that pika does not call an AMQP error."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import dramatiq
import pika
import pytest
from dramatiq.errors import ConnectionClosed, Retry

from carpark.broker import RabbitmqBroker
from carpark.broker import retries as retries_module
from carpark.broker.batches import Batch, Folder
from carpark.broker.consumer import Delivery
from carpark.broker.reading import read_body
from carpark.broker.retries import Retries
from tests.garbage import bare

QUEUE = "vehicle_entry"


def _unknown(*_: object, **__: object) -> object:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.fixture
def make_broker(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], RabbitmqBroker]:
    def make(url: str) -> RabbitmqBroker:
        broker = RabbitmqBroker(url, [Retries()])
        dramatiq.actor(broker=broker, actor_name=QUEUE, queue_name=QUEUE)(lambda *events: None)
        return broker

    monkeypatch.setattr(retries_module, "RETURN_DELAY", 0)
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


def _batch() -> Batch:
    folder = Folder(10)
    deliveries = [
        Delivery(read_body(QUEUE, bare(id=str(tag))), None, tag, b"", pika.BasicProperties()) for tag in range(3)
    ]
    batch = folder.fold(deliveries[0])
    assert isinstance(batch, Batch)
    assert [folder.fold(each) for each in deliveries[1:]] == [None, None]
    return batch


def test_a_batch_that_cannot_be_queued_again_goes_back_to_its_queue(broker: RabbitmqBroker) -> None:
    batch = _batch()
    broker.emit_after("process_message", batch, exception=Retry("the records are away"))
    assert [(part.failed, part.returned) for part in batch.parts] == [(False, True)] * 3


def test_what_nobody_expected_while_queueing_loses_nothing(
    nameless: RabbitmqBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(nameless, "enqueue", explode)
    batch = _batch()
    nameless.emit_after("process_message", batch, exception=Retry("the records are away"))
    assert [part.returned for part in batch.parts] == [True] * 3
