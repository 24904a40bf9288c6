"""Reads queues of RabbitMQ in their order, and moves messages without ever having none of them safe.

AMQP cannot look: what is read is taken out, and goes back to its place when it is not acknowledged. So all that is
read here is taken on one channel, which gives the rest back in its order when it is closed, or when this process dies.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pika
from dramatiq.common import q_name, xq_name
from pika import exceptions, spec
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection

from carpark.errors import BrokerUnavailable, QueueMismatch
from carpark.rabbitmq.connection import close_in_place, explain, open_connection
from carpark.rabbitmq.management import ManagementApi
from carpark.rabbitmq.properties import moved_properties, requeued_properties
from carpark.rabbitmq.topology import why_not_to_look
from carpark.settings.values import mask_urls

BATCH = 100
"""How many messages are published before their confirms are waited for; a crash leaves at most so many twice."""

BATCH_BYTES = 8 * 1024 * 1024

PATIENCE = 30.0
"""Seconds that a confirm may take, and that a queue may take to hand out what it has."""

_GLANCE = 0.005
_INACTIVE = 1.0
_FIRST_WINDOW = 20
_TOGETHER = 50
_NOT_FOUND = 404


@dataclass(frozen=True)
class Taken:
    """A message that was taken out of its queue, for now.

    Args:
        queue_name: The queue.
        tag: RabbitMQ's delivery tag.
        body: The bytes as they came.
        properties: As they came.
    """

    queue_name: str
    tag: int
    body: bytes
    properties: pika.BasicProperties


Wanted = Callable[[Taken], bool]


class Mover:
    """Reads and moves the messages of queues; each call connects anew.

    Dead letters are only touched in a queue that is really a classic one: any other would count each look as a
    delivery, and throw them away in the end.

    Args:
        urls: AMQP URLs separated by ``;``.
        name: What the connection is called in RabbitMQ.
        management: Who knows of what type a queue is, if anybody is asked beside RabbitMQ itself.
    """

    def __init__(self, urls: str, name: str = "carpark dashboard", management: ManagementApi | None = None) -> None:
        self._urls, self._name, self._management = urls, name, management

    def count(self, queue_name: str) -> int:
        """Count the messages that are ready in a queue.

        Args:
            queue_name: A queue or a companion.

        Returns:
            How many; none when there is no such queue.

        Raises:
            BrokerUnavailable: RabbitMQ cannot be used.
        """
        with self._opened() as connection, _Reader(connection, queue_name) as reader:
            return reader.count

    def walk(self, queue_name: str) -> Generator[Taken, None, None]:
        """Read a queue from its beginning. All is back in its place when the iterator has ended or is closed.

        Args:
            queue_name: A queue or a companion.

        Yields:
            The messages that were there at the start, in their order.

        Raises:
            QueueMismatch: They are dead letters, and their queue is not a classic one.
            BrokerUnavailable: RabbitMQ cannot be used.
        """
        with self._opened(queue_name) as connection, _Reader(connection, queue_name) as reader:
            yield from reader

    def transfer(self, queue_name: str, target: str) -> int:
        """Move all messages to another queue, in their order and as they are. Nobody else may take from it meanwhile.

        Args:
            queue_name: Where they are.
            target: Where they go.

        Returns:
            How many were moved.

        Raises:
            BrokerUnavailable: RabbitMQ cannot be used, or did not take a copy: that and what is behind it stays.
        """
        with self._opened() as connection:
            sender, channel = _Sender(connection), connection.channel()
            count = left = self.count(queue_name)
            channel.basic_qos(prefetch_count=_TOGETHER)
            batch: list[tuple[bytes, pika.BasicProperties]] = []
            # One consumer to the end: of several a quorum queue takes back what each has in hand, one after the other.
            messages = channel.consume(queue_name, inactivity_timeout=_INACTIVE) if count else ()
            for method, properties, body in messages:
                if method is None or properties is None or body is None:
                    break
                batch.append((body, moved_properties(properties)))
                left -= 1
                if len(batch) == _TOGETHER or not left:
                    sender.send(target, batch)
                    channel.basic_ack(method.delivery_tag, multiple=True)
                    batch.clear()
                if not left:
                    break
            close_in_place(connection)
        return count - left - len(batch)

    def requeue(self, queue_name: str, wanted: Wanted, limit: int, body: bytes | None = None) -> int:
        """Send messages to their queue again, in their order; a crash may leave some of them in both places.

        Args:
            queue_name: A ``.DQ`` or ``.XQ``.
            wanted: Tells which.
            limit: How many at most.
            body: What is sent instead of their own bodies.

        Returns:
            How many were sent.

        Raises:
            QueueMismatch: They are dead letters, and their queue is not a classic one.
            BrokerUnavailable: RabbitMQ cannot be used, or did not take a copy: that and what is behind it stays.
        """
        with self._opened(queue_name) as connection:
            sender = _Sender(connection)

            def send(batch: Sequence[Taken]) -> None:
                sender.send(
                    q_name(queue_name),
                    [(one.body if body is None else body, requeued_properties(one.properties)) for one in batch],
                )

            return self._work(connection, queue_name, wanted, limit, send)

    def delete(self, queue_name: str, wanted: Wanted, limit: int) -> int:
        """Take messages away for good.

        Args:
            queue_name: A ``.DQ`` or ``.XQ``.
            wanted: Tells which.
            limit: How many at most.

        Returns:
            How many were taken away.

        Raises:
            QueueMismatch: They are dead letters, and their queue is not a classic one.
            BrokerUnavailable: RabbitMQ cannot be used.
        """
        with self._opened(queue_name) as connection:
            return self._work(connection, queue_name, wanted, limit, lambda batch: None)

    @staticmethod
    def _work(
        connection: BlockingConnection,
        queue_name: str,
        wanted: Wanted,
        limit: int,
        settle: Callable[[Sequence[Taken]], None],
    ) -> int:
        """Settle the wanted messages batch by batch, and acknowledge each batch once it is settled."""
        done = held = 0
        batch: list[Taken] = []
        with _Reader(connection, queue_name) as reader:
            for taken in reader if limit else ():
                if wanted(taken):
                    batch.append(taken)
                    held += len(taken.body)
                full = len(batch) >= BATCH or held >= BATCH_BYTES or done + len(batch) == limit
                if batch and full:
                    settle(batch)
                    reader.acknowledge(batch)
                    done, held, batch = done + len(batch), 0, []
                if done == limit:
                    break
            if batch:
                settle(batch)
                reader.acknowledge(batch)
        return done + len(batch)

    @contextlib.contextmanager
    def _opened(self, to_look: str = "") -> Iterator[BlockingConnection]:
        """Connect; if messages of a queue shall be put back, see to it that it bears that."""
        connection = open_connection(self._urls, self._name)
        try:
            is_dead = bool(to_look) and to_look == xq_name(to_look)  # others become dead letters at worst
            if is_dead and (what := why_not_to_look(connection, to_look, self._management)):
                raise QueueMismatch(to_look, what)
            yield connection
        except exceptions.AMQPError as error:
            reason, remedy = explain(error)
            raise BrokerUnavailable(f"RabbitMQ at {mask_urls(self._urls)}: {reason}; {remedy}") from error
        finally:
            with contextlib.suppress(exceptions.AMQPError):
                connection.close()


class _Reader:
    """Takes as many messages of a queue as there were at the start, and gives back what is not acknowledged."""

    def __init__(self, connection: BlockingConnection, queue_name: str) -> None:
        self._queue_name = queue_name
        self._channel: BlockingChannel = connection.channel()
        self._held: set[int] = set()
        self.count = 0
        try:
            self.count = self._ready()
        except exceptions.ChannelClosedByBroker as error:
            if error.reply_code != _NOT_FOUND:
                raise

    def _ready(self) -> int:
        return int(self._channel.queue_declare(self._queue_name, passive=True).method.message_count)

    def __iter__(self) -> Iterator[Taken]:
        # A message at a time costs a round trip each. A window of them is taken, and no more: what a consumer is sent
        # counts as delivered.
        left, window = self.count, _FIRST_WINDOW
        while left > 0:
            wanted = min(window, left)
            taken = self._take(wanted)
            yield from taken
            if len(taken) < wanted:
                return
            left -= wanted
            window = max(1, min(BATCH, BATCH_BYTES // max(len(each.body) + 1 for each in taken)))

    def _take(self, wanted: int) -> list[Taken]:
        self._channel.basic_qos(prefetch_count=wanted)
        taken: list[Taken] = []
        deadline = time.monotonic() + PATIENCE
        for method, properties, body in self._channel.consume(self._queue_name, inactivity_timeout=_INACTIVE):
            if method is None or properties is None or body is None:
                # What was sent before the answer has come before it, so all that is missing is somebody else's now.
                is_slow = self._ready() or self._channel.get_waiting_message_count()
                if is_slow and time.monotonic() < deadline:
                    continue
                break
            taken.append(Taken(self._queue_name, method.delivery_tag, body, properties))
            self._held.add(method.delivery_tag)
            if len(taken) == wanted:
                break
        self._channel.cancel()
        return taken

    def acknowledge(self, batch: Sequence[Taken]) -> None:
        tags = {taken.tag for taken in batch}
        self._held -= tags
        # Where it can be, in one word: many of them a quorum queue forgets when the channel is closed behind them.
        if max(tags) < min(self._held, default=math.inf):
            self._channel.basic_ack(max(tags), multiple=True)
            return
        for tag in sorted(tags):
            self._channel.basic_ack(tag)

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._channel.is_open:
            self._channel.close()  # answered when the acknowledgements before it are done and the rest is back


class _Sender:
    """Publishes batches, and waits for the confirms of each.

    `BlockingChannel` has a confirm mode too, which waits for each message before the next is sent; so the channel
    below it is used.
    """

    def __init__(self, connection: BlockingConnection) -> None:
        self._connection = connection
        self._channel: Any = connection.channel()
        self._unconfirmed: set[int] = set()
        self._tag = 0
        self._problem = ""
        ready: list[object] = []
        self._channel._impl.add_on_return_callback(self._returned)
        self._channel._impl.confirm_delivery(self._settled, callback=ready.append)
        self._wait(lambda: bool(ready))

    def send(self, queue_name: str, messages: Sequence[tuple[bytes, pika.BasicProperties]]) -> None:
        for body, properties in messages:
            self._tag += 1
            self._unconfirmed.add(self._tag)
            self._channel.basic_publish("", queue_name, body, properties, mandatory=True)
        self._wait(lambda: not self._unconfirmed)
        if self._problem:
            raise BrokerUnavailable(f"RabbitMQ did not take a message for {queue_name}: {self._problem}")

    def _settled(self, frame: Any) -> None:
        method = frame.method
        last = method.delivery_tag
        self._unconfirmed -= {tag for tag in self._unconfirmed if tag <= last} if method.multiple else {last}
        if isinstance(method, spec.Basic.Nack):
            self._problem = self._problem or "it refused it; look into its log"

    def _returned(self, *_: object) -> None:
        self._problem = self._problem or "there is no such queue; declare it with `carpark queues`"

    def _wait(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not done():
            if time.monotonic() > deadline:
                raise BrokerUnavailable(f"RabbitMQ did not confirm within {PATIENCE:g} s; look into its log and disks")
            self._connection.process_data_events(_GLANCE)
            if not self._channel.is_open:
                raise self._channel._closing_reason or exceptions.ChannelClosed(0, "the channel is closed")
