"""How many entries are ready is asked now and then, by a thread that says nothing to RabbitMQ in between."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from carpark.broker import RabbitmqBroker
from tests.faults.proxy import TcpProxy
from tests.garbage import bare
from tests.helpers import eventually


def test_a_connection_that_was_closed_meanwhile_is_replaced_without_a_word(channel: Any, broker_url: str) -> None:
    channel.basic_publish("", "vehicle_entry", bare())
    with closing(TcpProxy(broker_url)) as proxy:
        broker = RabbitmqBroker(proxy.url, [])
        eventually(lambda: broker.ready("vehicle_entry") == 1)
        for _ in range(3):
            assert proxy.cut() == 1
            eventually(lambda: proxy.connections == 0)
            assert broker.ready("vehicle_entry") == 1
        broker.close()
