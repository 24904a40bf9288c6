"""Headers that RabbitMQ takes and pika cannot read or write: they stop nothing, and the message is not lost."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pika
import pika.data
import pytest
import redis
from click.testing import CliRunner
from pika.adapters.blocking_connection import BlockingChannel

from carpark.broker import RabbitmqBroker
from carpark.broker.consumer import EventConsumer
from carpark.cli import carpark
from carpark.rabbitmq.headers import NOTE
from tests.support.garbage import bare
from tests.support.helpers import eventually
from tests.support.mailbox import count, drain
from tests.support.processes import WORKER_READY, Processes


class Raw(pika.BasicProperties):
    """Properties whose one header is given as RabbitMQ's bytes.

    Args:
        value: The type's letter and the value.
    """

    def __init__(self, value: bytes) -> None:
        super().__init__()
        self._value = value

    def encode(self) -> list[bytes]:
        """Write them; pika calls it."""
        table = b"\x03odd" + self._value
        return [struct.pack(">H", self.FLAG_HEADERS), struct.pack(">I", len(table)), table]


def _nested(levels: int) -> bytes:
    table = b""
    for _ in range(levels):
        table = b"\x01aF" + struct.pack(">I", len(table)) + table
    return b"F" + struct.pack(">I", len(table)) + table


ODD = {
    "milliseconds where seconds are wanted": b"T" + struct.pack(">Q", 1_795_457_300_123),
    "the last second that there is": b"T" + struct.pack(">Q", 2**64 - 1),
    "a number that pika reads and cannot write": b"d" + struct.pack(">d", 1e300),
    "nested deeper than Python goes": _nested(1_200),
}


@pytest.mark.parametrize("name", ODD)
def test_a_message_with_odd_headers_is_like_any_other(
    processes: Processes, server_environ: dict[str, str], channel: BlockingChannel, store: redis.Redis, name: str
) -> None:
    channel.basic_publish("", "vehicle_entry", bare(vehicle_plate="BEFORE"), Raw(ODD[name]))
    channel.basic_publish("", "vehicle_entry", b"garbage", Raw(ODD[name]))
    channel.basic_publish("", "vehicle_entry", bare(id="behind", vehicle_plate="BEHIND"))
    worker = processes.start(["dramatiq", "carpark.actors", "--processes", "1", "--threads", "2"], env=server_environ)
    worker.wait_for_line(WORKER_READY)
    eventually(lambda: store.smembers("entry_plates") == {"BEFORE", "BEHIND"}, 20)
    eventually(lambda: count(channel, "vehicle_entry.XQ") == 1)
    assert worker.terminate() == 0
    assert count(channel, "vehicle_entry") == 0
    [(body, properties)] = drain(channel, "vehicle_entry.XQ")
    assert body == b"garbage"
    assert properties.headers["x-carpark-error"].startswith("the body is not JSON")
    assert f"'{NOTE}': 'dropped: cannot be " in str(properties.headers), "it, or what of it is too deep"


@pytest.mark.parametrize("name", ODD)
def test_a_dead_letter_with_odd_headers_can_be_seen_and_sent_again(
    channel: BlockingChannel, broker_url: str, name: str
) -> None:
    channel.basic_publish("", "vehicle_entry.XQ", bare(), Raw(ODD[name]))

    def dlq(*arguments: str) -> Any:
        result = CliRunner().invoke(carpark, ["dlq", *arguments], env={"CARPARK_BROKER_URL": broker_url})
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    [letter] = dlq("list", "--json")
    assert dlq("show", letter["id"], "--json")["body"] == bare().decode()
    dlq("requeue", "--all", "--json")
    assert [body for body, _ in drain(channel, "vehicle_entry")] == [bare()]
    assert count(channel, "vehicle_entry.XQ") == 0


@pytest.fixture
def make_consumer(broker_url: str) -> Iterator[Callable[[], EventConsumer]]:
    broker = RabbitmqBroker(broker_url, [])
    yield lambda: EventConsumer(broker, "vehicle_entry", prefetch=4, timeout=200)
    broker.close()


@pytest.mark.parametrize("cut", ["before another connection", "after another connection"])
def test_garbage_in_hand_when_the_connection_breaks_is_dead_lettered_once(
    channel: BlockingChannel, make_consumer: Callable[[], EventConsumer], cut: str
) -> None:
    channel.basic_publish("", "vehicle_entry", b"garbage")
    first = make_consumer()
    in_hand = eventually(lambda: next(first))
    first.connection.close()
    assert next(first) is None
    second = make_consumer() if cut.startswith("after") else None
    (second or first).nack(in_hand)
    assert count(channel, "vehicle_entry.XQ") == 0
    second = second or make_consumer()
    second.nack(eventually(lambda: next(second)))
    second.close()
    assert [body for body, _ in drain(channel, "vehicle_entry.XQ")] == [b"garbage"]
    assert count(channel, "vehicle_entry") == 0


@pytest.mark.parametrize(("size", "said"), [(3_000, ""), (15_000, ""), (40_000, "dropped: more than 16 KiB")])
def test_an_event_that_dies_later_has_its_headers_as_they_came(
    processes: Processes,
    server_environ: dict[str, str],
    channel: BlockingChannel,
    store: redis.Redis,
    size: int,
    said: str,
) -> None:
    store.lpush("ODD", "the records cannot be made of this")
    headers = {"mine": "x" * size, "number": 7, "table": {"a": [1, None]}}
    channel.basic_publish("", "vehicle_entry", bare(vehicle_plate="ODD"), pika.BasicProperties(headers=headers))
    worker = processes.start(["dramatiq", "carpark.actors", "--processes", "1", "--threads", "2"], env=server_environ)
    worker.wait_for_line(WORKER_READY)
    eventually(lambda: count(channel, "vehicle_entry.XQ") == 1, 20)
    assert worker.terminate() == 0
    [(_, properties)] = drain(channel, "vehicle_entry.XQ")
    found = {name: value for name, value in properties.headers.items() if name in (*headers, NOTE)}
    assert found == ({NOTE: said} if said else headers)
