"""Markers in the queue of entries, on a real RabbitMQ: a thread publishes one now and then, and says nothing else."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from carpark.broker import RabbitmqBroker
from carpark.broker.reading import MARKER, Marker
from carpark.domain.routing import partition_queue
from tests.support.helpers import eventually
from tests.support.proxy import TcpProxy


def test_a_connection_that_was_closed_meanwhile_is_replaced_without_a_word(channel: Any, broker_url: str) -> None:
    with closing(TcpProxy(broker_url)) as proxy:
        broker = RabbitmqBroker(proxy.url, [])
        broker.publish_marker("vehicle_entry", "m0")
        for number in (1, 2, 3):
            assert proxy.cut() == 1
            eventually(lambda: proxy.connections == 0)
            broker.publish_marker("vehicle_entry", f"m{number}")
        broker.close()
    for number in range(4):
        _, properties, body = channel.basic_get("vehicle_entry", auto_ack=True)
        assert (properties.type, body) == (MARKER, b"m%d" % number)


@pytest.mark.parametrize("partition", [0, 3])
def test_a_marker_comes_to_its_actor_and_anybodys_on_another_queue_is_garbage(
    channel: Any, broker_url: str, partition: int
) -> None:
    broker = RabbitmqBroker(broker_url, [], batch=100)
    names = [partition_queue(queue, partition) for queue in ("vehicle_entry", "vehicle_exit")]
    for queue in names:
        broker.declare_queue(queue, ensure=True)
        broker.publish_marker(queue, "m")
    entries, exits = (broker.consume(queue, timeout=1000) for queue in names)
    marker = eventually(lambda: next(entries))
    assert (marker.actor_name, marker.args) == (names[0], (Marker("m"),))
    assert eventually(lambda: next(exits)).failed
    for consumer in (entries, exits):
        consumer.close()
    broker.close()
