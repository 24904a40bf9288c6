"""Reads queues of RabbitMQ in their order, and moves messages without ever having none of them safe.

AMQP cannot look: what is read is taken out, and goes back to its place when it is not acknowledged. So all that is
read here is taken on one channel, which gives the rest back in its order when it is closed, or when this process dies.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import pika
from dramatiq.common import q_name, xq_name
from pika import exceptions
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection

from carpark.errors import BrokerUnavailable, QueueMismatch
from carpark.rabbitmq.connection import (
    MAX_MESSAGE_BYTES,
    Beginning,
    acknowledge,
    close_in_place,
    connected,
    connection_parameters,
    keep_beginnings,
    look,
    resolvable,
    unavailable,
)
from carpark.rabbitmq.management import ManagementApi
from carpark.rabbitmq.properties import moved_properties, requeued_properties
from carpark.rabbitmq.publishing import ConfirmingPublisher, Outgoing
from carpark.rabbitmq.topology import why_not_to_look

BATCH = 100
"""How many messages are published before their confirms are waited for; a crash leaves at most so many twice."""

BATCH_BYTES = 8 * 1024 * 1024

PATIENCE = 30.0
"""Seconds that a confirm may take, and that a queue may take to hand out what it has."""

_INACTIVE = 1.0
_FIRST_WINDOW = 20


@dataclass(frozen=True)
class Taken:
    """A message that was taken out of its queue, for now."""

    queue_name: str
    tag: int
    body: bytes
    properties: pika.BasicProperties


Wanted = Callable[[Taken], bool]


class Mover:
    """Reads and moves the messages of queues; each call connects anew.

    Dead letters are only touched in a queue that is really a classic one: any other would count each look as a
    delivery, and throw them away in the end.
    """

    def __init__(self, urls: str, name: str = "carpark dashboard", management: ManagementApi | None = None) -> None:
        self._urls, self._name, self._management = urls, name, management

    def count(self, queue_name: str) -> int:
        """Count the messages that are ready in a queue."""
        with connected(self._urls, self._name) as connection:
            return _count(connection, queue_name)

    def walk(self, queue_name: str, keep: int | None = None) -> Generator[Taken, None, None]:
        """Read a queue from its beginning. All is back in its place when the iterator has ended or is closed."""
        with self._opened(queue_name) as connection, _Reader(connection, queue_name, keep) as reader:
            yield from reader

    def transfer(self, queue_name: str, target: str) -> int:
        """Move all messages to another queue, in their order and as they are. Nobody else may take from it then."""
        with connected(self._urls, self._name) as connection, self._publishing() as publish:
            channel, count = connection.channel(), self.count(queue_name)
            left = count
            channel.basic_qos(prefetch_count=BATCH)
            chunk = _Chunk()
            # One consumer to the end: of several a quorum queue takes back what each has in hand, one after the other.
            messages = channel.consume(queue_name, inactivity_timeout=_INACTIVE) if count else ()
            for method, properties, body in messages:
                if method is None or properties is None or body is None:
                    break
                chunk.add(Taken(queue_name, method.delivery_tag, body, properties))
                left -= 1
                if chunk.is_full or not left:
                    publish(target, chunk, moved_properties)
                    channel.basic_ack(method.delivery_tag, multiple=True)
                    chunk = _Chunk()
                if not left:
                    break
            close_in_place(connection)
        return count - left - len(chunk)

    def requeue(self, queue_name: str, wanted: Wanted, limit: int, body: bytes | None = None) -> int:
        """Send messages to their queue again, in their order; a crash may leave some of them in both places.

        One that is longer than `MAX_MESSAGE_BYTES` is left where it is, unless another body goes in its place.
        """
        with self._opened(queue_name) as connection, self._publishing() as publish:
            reader = _Reader(connection, queue_name, MAX_MESSAGE_BYTES)

            def can_be_sent(taken: Taken) -> bool:
                return wanted(taken) and (body is not None or not isinstance(taken.body, Beginning))

            def send(chunk: _Chunk) -> None:
                publish(q_name(queue_name), chunk, requeued_properties, body)

            return self._work(reader, can_be_sent, limit, send)

    def delete(self, queue_name: str, wanted: Wanted, limit: int) -> int:
        """Take messages away for good."""
        with self._opened(queue_name) as connection:
            return self._work(_Reader(connection, queue_name, MAX_MESSAGE_BYTES), wanted, limit, lambda chunk: None)

    @staticmethod
    def _work(reader: _Reader, wanted: Wanted, limit: int, settle: Callable[[_Chunk], None]) -> int:
        """Settle the wanted messages batch by batch, and acknowledge each chunk once it is settled."""
        done, chunk = 0, _Chunk()
        with reader, contextlib.closing(iter(reader)) as messages:
            for taken in messages if limit else ():
                if wanted(taken):
                    chunk.add(taken)
                if chunk and (chunk.is_full or done + len(chunk) == limit):
                    settle(chunk)
                    reader.acknowledge(chunk)
                    done, chunk = done + len(chunk), _Chunk()
                if done == limit:
                    break
            if chunk:
                settle(chunk)
                reader.acknowledge(chunk)
        return done + len(chunk)

    @contextlib.contextmanager
    def _opened(self, queue_name: str) -> Iterator[BlockingConnection]:
        """Connect, to put messages of a queue back; see to it that it bears that."""
        with connected(self._urls, self._name) as connection:
            is_dead = queue_name == xq_name(queue_name)  # others become dead letters at worst
            if is_dead and (what := why_not_to_look(connection, queue_name, self._management)):
                raise QueueMismatch(queue_name, what)
            yield connection

    @contextlib.contextmanager
    def _publishing(self) -> Iterator[Callable[..., None]]:
        """Connect once more, to publish: to wait for confirms on the connection that reads would be to read on."""
        publisher = ConfirmingPublisher(resolvable(connection_parameters(self._urls, self._name)))
        try:
            publisher.wait_open(PATIENCE)
            yield partial(self._publish, publisher)
        finally:
            publisher.close()

    def _publish(
        self,
        publisher: ConfirmingPublisher,
        queue_name: str,
        chunk: _Chunk,
        properties: Callable[[pika.BasicProperties], pika.BasicProperties],
        body: bytes | None = None,
    ) -> None:
        """Publish messages, and wait for all confirms."""
        publisher.send(
            [
                Outgoing(queue_name, each.body if body is None else body, properties(each.properties), "")
                for each in chunk
            ]
        )
        is_settled = publisher.wait(PATIENCE)
        confirmed, missing = publisher.outcome()
        if len(confirmed) == len(chunk):
            return
        if publisher.is_closed():
            raise unavailable(self._urls, publisher.reason or exceptions.AMQPConnectionError("connection lost"))
        if not is_settled:
            raise BrokerUnavailable(f"RabbitMQ did not confirm within {PATIENCE:g} s; look into its log and disks")
        problem = "there is no such queue; declare it with `carpark queues`"
        if not missing:
            problem = "it refused it; look into its log"
        raise BrokerUnavailable(f"RabbitMQ did not take a message for {queue_name}: {problem}")


class _Chunk(list[Taken]):
    """Messages that are settled together."""

    size = 0

    def add(self, taken: Taken) -> None:
        self.append(taken)
        self.size += len(taken.body)

    @property
    def is_full(self) -> bool:
        return len(self) >= BATCH or self.size >= BATCH_BYTES


class _Reader:
    """Takes as many messages of a queue as there were at the start, and gives back what is not acknowledged."""

    def __init__(self, connection: BlockingConnection, queue_name: str, keep: int | None = None) -> None:
        self._queue_name = queue_name
        self._channel: BlockingChannel = connection.channel()
        if keep is not None:
            keep_beginnings(self._channel, keep)
        self._held: set[int] = set()
        self._done: set[int] = set()
        self._count = _count(connection, queue_name)

    def _ready(self) -> int:
        return int(self._channel.queue_declare(self._queue_name, passive=True).method.message_count)

    def __iter__(self) -> Generator[Taken, None, None]:
        # A message at a time costs a round trip each. A window of them is taken, and no more: what a consumer is sent
        # counts as delivered.
        left, window = self._count, _FIRST_WINDOW
        while left > 0:
            wanted = min(window, left)
            if (yield from self._take(wanted)) < wanted:
                return
            left -= wanted
            window = BATCH

    def _take(self, wanted: int) -> Generator[Taken, None, int]:
        """Take messages, each as it comes, so that only one of them need be in memory; give how many there were."""
        self._channel.basic_qos(prefetch_count=wanted)
        taken, is_read = 0, True
        deadline = time.monotonic() + PATIENCE
        for method, properties, body in self._channel.consume(self._queue_name, inactivity_timeout=_INACTIVE):
            if method is None or properties is None or body is None:
                # What was sent before the answer has come before it, so all that is missing is somebody else's now.
                is_slow = self._ready() or self._channel.get_waiting_message_count()
                if is_slow and time.monotonic() < deadline:
                    continue
                break
            taken += 1
            self._held.add(method.delivery_tag)
            if is_read:
                try:
                    yield Taken(self._queue_name, method.delivery_tag, body, properties)
                except GeneratorExit:
                    is_read = False  # the rest has been sent, and comes: put back one by one it would lose its order
            if taken == wanted:
                break
        self._channel.cancel()
        self._acknowledge()
        return taken

    def acknowledge(self, chunk: Sequence[Taken]) -> None:
        self._done |= {taken.tag for taken in chunk}

    def _acknowledge(self) -> None:
        """Acknowledge what is done. Not while a consumer is there: it would be sent more."""
        self._held -= self._done
        acknowledge(self._channel, self._done, self._held)
        self._done.clear()

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._channel.is_open:
            self._acknowledge()
            self._channel.close()  # answered when the acknowledgements before it are done and the rest is back


def _count(connection: BlockingConnection, queue_name: str) -> int:
    found = look(connection, queue_name)
    return found.message_count if found else 0
