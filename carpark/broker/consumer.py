"""The consumer of a RabbitMQ queue: reads bodies, folds events into batches, lets go of them once for each batch."""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Sequence
from typing import Any

import pika
import pika.exceptions
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.brokers import rabbitmq as base
from dramatiq.common import q_name, xq_name
from dramatiq.errors import ConnectionClosed
from dramatiq.message import Message

from carpark.broker import letters
from carpark.broker.batches import Folder, parts_of
from carpark.broker.connection import NO_AMQP_ERRORS
from carpark.broker.properties import dead_properties
from carpark.broker.reading import RejectedMessage, read_body

READ_AT_ONCE = 100
"""How many messages that have arrived are read before acknowledgements get their turn."""

ACKNOWLEDGED_AFTER = 0.05
"""Seconds after which what is done is acknowledged together: one acknowledgement for each event that comes alone would
cost more than the event. What was done out of order waits as long again for what came before it. Half a prefetch does
not wait, so that RabbitMQ goes on delivering."""


class Delivery(MessageProxy):
    """A message with what it came with.

    Args:
        message: The message that the body was read as.
        channel: Where it came; it can be acknowledged nowhere else.
        tag: RabbitMQ's delivery tag.
        body: The bytes as they came.
        properties: As they came.
    """

    def __init__(
        self, message: Message[None], channel: Any, tag: int, body: bytes, properties: pika.BasicProperties
    ) -> None:
        super().__init__(message)
        self.channel, self.tag, self.body, self.properties = channel, tag, body, properties
        self.failed = isinstance(message, RejectedMessage)
        self.returned = False


class EventConsumer(base._RabbitmqConsumer, Consumer):
    """Reads each body for the queue that it came on; what is given up goes to ``.XQ`` as it came, with the reason.

    Args:
        broker: The broker.
        queue_name: A queue or its delay queue.
        prefetch: How many messages it holds at most.
        timeout: Milliseconds that it waits for one.
        batch: How many events are worked on together at most.

    Raises:
        ConnectionClosed: RabbitMQ could not be reached.
    """

    def __init__(self, broker: base.RabbitmqBroker, queue_name: str, prefetch: int, timeout: int, batch: int) -> None:
        try:
            super().__init__(broker, queue_name, prefetch, timeout)  # type: ignore[no-untyped-call]
        except NO_AMQP_ERRORS as error:
            raise ConnectionClosed(error) from None
        self._folder = Folder(batch)
        self._read: deque[MessageProxy] = deque()
        self._enough = max(1, prefetch // 2)
        # A tag's way: settled by a worker, done but not acknowledged, and still so when the timer came before.
        self._settled: deque[tuple[int, bool]] = deque()
        self._done: set[int] = set()
        self._waited: set[int] = set()
        self._is_timed = False

    def __next__(self) -> MessageProxy | None:
        if not self._read:
            self._read_what_is_there()
        return self._read.popleft() if self._read else None

    def _read_what_is_there(self) -> None:
        try:
            self._take(*next(self.iterator))
            # pika reads a few messages at a time; what else has arrived by now belongs to the same batch.
            known, waiting = 0, self.channel.get_waiting_message_count()
            while known < waiting < READ_AT_ONCE:
                self.connection.process_data_events(0)
                known, waiting = waiting, self.channel.get_waiting_message_count()
            for _ in range(min(waiting, READ_AT_ONCE)):
                self._take(*next(self.iterator))
        except (
            AssertionError,
            pika.exceptions.AMQPConnectionError,
            pika.exceptions.AMQPChannelError,
        ) as error:
            self.broker.queues_pending.add(q_name(self.queue_name))  # it may be what is gone: declare it again
            raise ConnectionClosed(error) from None
        except StopIteration:
            # The queue was deleted under the consumer: RabbitMQ cancels it, and pika ends the iteration.
            self.broker.queues_pending.add(q_name(self.queue_name))
            raise ConnectionClosed(f"queue {self.queue_name!r} is gone") from None

    def _take(self, method: Any, properties: pika.BasicProperties | None, body: bytes | None) -> None:
        if method is None or properties is None or body is None:
            return
        message = read_body(self.queue_name, body)
        self.known_tags.add(method.delivery_tag)
        delivery = Delivery(message, self.channel, method.delivery_tag, body, properties)
        folded = self._folder.fold(delivery)
        if folded is not None:
            self._read.append(folded)

    def ack(self, message: Any) -> None:
        """Let a message go, or all of a batch; one whose retry could not be queued goes back to its queue instead.

        What came on an earlier connection is let be: RabbitMQ has put it back, and its tag means another message now.

        Args:
            message: The message that is done.
        """
        parts = self._parts_here(message)
        if not parts:
            return
        self._settled.extend((part.tag, part.returned or message.returned) for part in parts)
        try:
            # Looked at after the tags are in, and cleared before they are taken out: none is left behind.
            if not self._is_timed:
                self._is_timed = True
                self.connection.add_callback_threadsafe(self._acknowledge_later)
            if len(self._settled) >= self._enough:
                self.connection.add_callback_threadsafe(self._acknowledge_together)
        except pika.exceptions.ConnectionWrongStateError:
            self.logger.debug(
                "%s: the connection is closed; RabbitMQ delivers again what was not acknowledged", message
            )

    def _parts_here(self, message: Any) -> Sequence[Any]:
        """Give a message's parts, or none of what came on an earlier connection."""
        parts: Sequence[Any] = parts_of(message)
        return parts if parts and parts[0].channel is self.channel else ()

    def close(self) -> None:
        """Acknowledge what is done, and close the connection.

        Raises:
            ConnectionClosed: RabbitMQ could not be reached any more.
        """
        with contextlib.suppress(pika.exceptions.ConnectionWrongStateError):
            self.connection.add_callback_threadsafe(self._acknowledge_all)
        super().close()  # type: ignore[no-untyped-call]

    # What follows runs in the connection's own thread.

    def _acknowledge_later(self) -> None:
        self.connection.call_later(ACKNOWLEDGED_AFTER, self._acknowledge_what_waited)

    def _acknowledge_together(self) -> None:
        while self._settled:
            tag, is_returned = self._settled.popleft()
            self.known_tags.discard(tag)
            if is_returned:
                self.channel.basic_nack(tag, requeue=True)
            else:
                self._done.add(tag)
        # One acknowledgement takes all up to its tag, so it may only be used below whatever is not done.
        oldest = min(self.known_tags, default=math.inf)
        together = {tag for tag in self._done if tag < oldest}
        if together:
            self._done -= together
            self.channel.basic_ack(max(together), multiple=True)

    def _acknowledge_what_waited(self) -> None:
        self._is_timed = False
        self._acknowledge_together()
        self._acknowledge_each(self._done & self._waited)
        self._waited = set(self._done)
        if self._waited and not self._is_timed:
            self._is_timed = True
            self._acknowledge_later()

    def _acknowledge_all(self) -> None:
        self._acknowledge_together()
        self._acknowledge_each(set(self._done))

    def _acknowledge_each(self, tags: set[int]) -> None:
        self._done -= tags
        for tag in sorted(tags):
            self.channel.basic_ack(tag)

    def nack(self, message: Any) -> None:
        """Put a copy into ``.XQ``, and only when RabbitMQ has confirmed it acknowledge the original.

        What came on an earlier connection is let be: RabbitMQ delivers it again, and it is given up then.

        Args:
            message: The message that is given up.

        Raises:
            ConnectionClosed: RabbitMQ could not be reached; the original stays where it is.
        """
        parts = self._parts_here(message)
        if not self.channel.is_open:
            return
        for part in parts:
            self.logger.warning(
                "%s: dead-lettered: %s; body: %s",
                self.queue_name,
                letters.reason(message),
                letters.shortened(part.body),
            )
            self.broker.publish(
                xq_name(self.queue_name),
                part.body,
                dead_properties(part.properties, letters.reason_headers(message)),
            )
        self.ack(message)
