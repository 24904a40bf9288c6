"""A process that has more than its share of the queues gives one back when nothing of it is in hand."""

from __future__ import annotations

from typing import Any

import pytest

from carpark.broker import RabbitmqBroker, consumer
from tests.support.garbage import GARBAGE, bare
from tests.support.helpers import eventually


@pytest.fixture
def two(broker_url: str) -> Any:
    """Two brokers: two processes as RabbitMQ sees them; each consumes a queue and its delay queue."""
    brokers = [RabbitmqBroker(broker_url, [], batch=100) for _ in range(2)]
    yield brokers
    for broker in brokers:
        broker.close()


def test_a_dead_letter_of_a_queue_that_is_given_back_is_one(
    channel: Any, two: list[RabbitmqBroker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "LOOK_EVERY", 0.0)
    for queue in ("vehicle_entry", "vehicle_exit"):
        channel.basic_publish("", queue, GARBAGE["null"])
        channel.basic_publish("", queue, bare(id="behind"))
    first, second = two
    ours = [first.consume(queue, timeout=100) for queue in ("vehicle_entry", "vehicle_exit")]
    in_hand = [eventually(lambda each=each: next(each)) for each in ours]  # type: ignore[misc]
    assert all(message.failed for message in in_hand)
    # Somebody else comes: the second queue of the first process is one too many.
    theirs = [
        second.consume(queue, timeout=100)
        for queue in ("vehicle_entry", "vehicle_entry.DQ", "vehicle_exit", "vehicle_exit.DQ")
    ]
    waits = [first.consume(queue, timeout=100) for queue in ("vehicle_entry.DQ", "vehicle_exit.DQ")]
    for each in (*theirs, *waits):
        assert next(each) is None, "only now RabbitMQ knows of it"
    entries, dispatcher = ours[0], first.dispatchers.of("vehicle_entry")

    def is_leaving() -> bool:
        assert next(entries) is None
        return dispatcher.is_halted

    eventually(is_leaving)
    for _ in range(20):
        assert next(entries) is None, "what is behind stays in the queue"
        assert next(theirs[0]) is None, "nobody else has the queue while something of it is in hand"
    entries.nack(in_hand[0])
    dispatcher.done(in_hand[0])
    eventually(lambda: next(entries) is None and not dispatcher.is_halted)
    message = eventually(lambda: next(theirs[0]))
    assert [event.id for event in message.args] == ["behind"]
    assert channel.queue_declare("vehicle_entry.XQ", passive=True).method.message_count == 1
    for each in (*ours, *theirs, *waits):
        each.close()
