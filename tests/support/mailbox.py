"""Queues of a real RabbitMQ as tests fill and read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel

from carpark.broker.dead_letters import headers_for
from tests.support.helpers import eventually


def dead_letters(count: int, why: str = "not wanted", **properties: Any) -> list[tuple[bytes, pika.BasicProperties]]:
    """Make dead letters with ids ``0`` to ``count - 1`` in a header."""
    return [
        (
            b"garbage %d" % number,
            pika.BasicProperties(headers={"n": number, **headers_for(why)}, delivery_mode=2, **properties),
        )
        for number in range(count)
    ]


def fill(channel: BlockingChannel, queue: str, letters: Sequence[tuple[bytes, pika.BasicProperties]]) -> None:
    """Publish to a queue, and wait until all is there."""
    before = count(channel, queue)
    for body, properties in letters:
        channel.basic_publish("", queue, body, properties)
    eventually(lambda: count(channel, queue) == before + len(letters), 30, f"{queue} has its messages")


def count(channel: BlockingChannel, queue: str) -> int:
    """Count what is ready in a queue."""
    found: int = channel.queue_declare(queue, passive=True).method.message_count
    return found


def drain(channel: BlockingChannel, queue: str) -> list[tuple[bytes, pika.BasicProperties]]:
    """Take all out of a queue, as its consumer: some queues have nothing for anybody else."""
    taken: list[tuple[bytes, pika.BasicProperties]] = []
    while left := count(channel, queue):
        consumer = channel.connection.channel()
        for _, properties, body in consumer.consume(queue, auto_ack=True):
            assert properties is not None
            assert body is not None
            taken.append((body, properties))
            left -= 1
            if not left:
                break
        consumer.close()
    return taken


def bodies(channel: BlockingChannel, queue: str) -> list[bytes]:
    """Take all out of a queue and give the bodies."""
    return [body for body, _ in drain(channel, queue)]
