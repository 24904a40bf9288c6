"""The consumer of a RabbitMQ queue: reads bodies, fills its dispatcher, acknowledges what is done, many at once."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import pika
import pika.exceptions
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.brokers import rabbitmq as base
from dramatiq.common import dq_name, q_name, xq_name
from dramatiq.errors import ConnectionClosed
from dramatiq.message import Message
from pika import spec

from carpark.broker import dead_letters
from carpark.broker.batches import parts_of
from carpark.broker.dispatch import RESTARTED_AFTER, Dispatchers
from carpark.broker.reading import MARKER, RejectedMessage, read_body, read_marker
from carpark.domain.events import MAX_BODY_BYTES, VehicleEntered
from carpark.domain.routing import event_of
from carpark.rabbitmq.connection import (
    MAX_MESSAGE_BYTES,
    NO_AMQP_ERRORS,
    Beginning,
    acknowledge,
    close_in_place,
    keep_beginnings,
)
from carpark.rabbitmq.headers import LongTable, PackedTable
from carpark.rabbitmq.outage import BACKOFF_SECONDS, backoff
from carpark.rabbitmq.properties import dead_properties

READ_AT_ONCE = 100
"""How many messages that have arrived are read before acknowledgements get their turn."""

ACKNOWLEDGED_AFTER = 0.05
"""Seconds after which what is done is acknowledged together: one acknowledgement for each event that comes alone would
cost more than the event. Half a prefetch does not wait, so that RabbitMQ goes on delivering."""

LOOK_EVERY = 1.0
"""Seconds between two looks at how many processes share the queues."""

LEAVE_EVERY = 0.01
"""Seconds between two looks whether a queue that is given back is idle."""


_LOST = (AssertionError, ConnectionClosed, pika.exceptions.AMQPConnectionError, pika.exceptions.AMQPChannelError)
"""What pika and Dramatiq raise of a connection that is no use any more."""


class Acknowledgements:
    """What of a connection's deliveries is done, and not acknowledged yet."""

    def __init__(self, connection: Any, channel: Any, enough: int) -> None:
        self._connection, self._channel, self._enough = connection, channel, enough
        self._in_hand: set[int] = set()
        self._settled: deque[int] = deque()
        self._is_timed = False

    @property
    def can_be_sent(self) -> bool:
        """Whether the connection is there; if not, RabbitMQ delivers again what was not acknowledged."""
        return bool(self._channel.is_open)

    def delivered(self, tag: int) -> None:
        """Note a delivery."""
        self._in_hand.add(tag)

    def settle(self, tags: Iterable[int]) -> None:
        """Have deliveries acknowledged soon. Any thread may call this."""
        self._settled.extend(tags)
        try:
            # Looked at after the tags are in, and cleared before they are taken out: none is left behind.
            if not self._is_timed:
                self._is_timed = True
                self._connection.add_callback_threadsafe(self._send_later)
            if len(self._settled) >= self._enough:
                self._connection.add_callback_threadsafe(self.send)
        except pika.exceptions.ConnectionWrongStateError:
            return  # it is closed

    def refuse(self, tag: int) -> None:
        """Have RabbitMQ make a dead letter of a delivery, which then does not say why. Any thread may call this."""
        try:
            self._connection.add_callback_threadsafe(partial(self._refuse, tag))
        except pika.exceptions.ConnectionWrongStateError:
            return  # it is closed

    # What follows runs in the connection's own thread.

    def _refuse(self, tag: int) -> None:
        self._in_hand.discard(tag)
        self._channel.basic_reject(tag, requeue=False)

    def _send_later(self) -> None:
        self._connection.call_later(ACKNOWLEDGED_AFTER, self._send_timed)

    def _send_timed(self) -> None:
        self._is_timed = False
        self.send()

    def send(self) -> None:
        """Acknowledge what is done."""
        done = set()
        while self._settled:
            done.add(self._settled.popleft())
        self._in_hand -= done
        acknowledge(self._channel, done, self._in_hand)


class ReceivedMessage(MessageProxy):
    """A message with what it came with."""

    def __init__(
        self,
        message: Message[None],
        acknowledgements: Acknowledgements,
        tag: int,
        body: bytes,
        properties: pika.BasicProperties,
    ) -> None:
        super().__init__(message)
        self.acknowledgements, self.tag, self.body, self.properties = acknowledgements, tag, body, properties
        self.failed = isinstance(message, RejectedMessage)
        self.is_left = self.is_buried = False


class EventConsumer(base._RabbitmqConsumer, Consumer):
    """Reads each body for the queue that it came on; what is given up goes to ``.XQ`` as it came, with the reason."""

    def __init__(
        self, broker: Any, queue_name: str, prefetch: int, timeout: int, dispatchers: Dispatchers | None = None
    ) -> None:
        self._arguments = (broker, queue_name, prefetch, timeout)
        self.broker, self.queue_name = broker, queue_name
        self.connection: Any = None
        self._dispatchers = dispatchers
        self._dispatcher = dispatchers.of(queue_name) if dispatchers else None
        self._look_at = 0.0
        self._processes = 1
        self._pauses, self._connect_at, self._connected_at = backoff(), 0.0, 0.0
        self._reads = False
        try:
            self._open()
        except ConnectionClosed as error:
            self._lost(error)

    def _open(self) -> None:
        self._reads, self._connected_at = False, time.monotonic()
        self.broker.declare_queue(self.queue_name, ensure=True)
        try:
            super().__init__(*self._arguments)  # type: ignore[no-untyped-call]
        except NO_AMQP_ERRORS as error:
            raise ConnectionClosed(error) from None
        keep_beginnings(self.channel, MAX_MESSAGE_BYTES)
        self._acknowledgements = Acknowledgements(self.connection, self.channel, max(1, self._arguments[2] // 4))
        self._read: deque[MessageProxy] = deque()
        self._restart_at: float | None = None
        self._connect_at = 0.0
        self._is_leaving = False
        if self._dispatcher is not None:
            self._dispatcher.restart()

    def __next__(self) -> MessageProxy | None:
        try:
            if self._connect_at:
                if not self._is_time_to_connect():
                    return None
                self._open()
            elif self._is_restarted() or self._is_given_back():
                self.close()
                self._open()
            if self._is_leaving:
                self.connection.process_data_events(LEAVE_EVERY)
            elif not self._read:
                self._read_what_is_there()
        except _LOST as error:
            self._lost(error)
            return None
        except StopIteration:
            # The queue was deleted under the consumer: RabbitMQ cancels it, and pika ends the iteration.
            self.logger.warning("queue %r is gone: it is declared again", self.queue_name)
            self._lost(None)
            return None
        if not self._reads:  # only now is it sure that RabbitMQ lets this process consume
            self._reads = True
            self.broker.goes_on(self.queue_name)
        if self._dispatcher is not None:
            return self._dispatcher.take()
        return self._read.popleft() if self._read else None

    def _lost(self, error: BaseException | None) -> None:
        """Let go of a connection that is no use; `__next__` makes another one, so that Dramatiq need not hear of it."""
        if error is not None:
            self.broker.waits(self.queue_name, error)
        self.broker.queues_pending.add(q_name(self.queue_name))  # it may be what is gone: declare it again
        with contextlib.suppress(Exception):  # of a connection in any state, or none
            close_in_place(self.connection)
        now = time.monotonic()
        if now - self._connected_at > BACKOFF_SECONDS[-1]:
            self._pauses = backoff()
        self._connect_at = now + next(self._pauses)

    def _is_time_to_connect(self) -> bool:
        """Wait a while for it, but no longer than Dramatiq waits for a message: the process may be about to end."""
        time.sleep(min(max(0.0, self._connect_at - time.monotonic()), self._arguments[3] / 1000))
        return time.monotonic() >= self._connect_at

    def _is_restarted(self) -> bool:
        return self._restart_at is not None and time.monotonic() >= self._restart_at

    def _is_given_back(self) -> bool:
        """Whether a competing consumer stands by that has less to do: RabbitMQ makes whoever comes first active on all.

        What is in hand is finished first. It would be dead-lettered, or retried, by both.
        """
        if self._is_leaving and self._dispatcher:
            return self._dispatcher.is_idle
        if not self._dispatchers or time.monotonic() < self._look_at:
            return False
        if not self._dispatcher or not self._dispatcher.is_active:
            return False
        self._look_at = time.monotonic() + LOOK_EVERY
        # Each process that stands by has a consumer of the delay queue, too; of a quorum queue with a single active
        # consumer RabbitMQ counts only that one. A process is believed when it is seen twice: it may be starting. The
        # answer would come behind all that is on its way on this connection, and have all of that read at once.
        try:
            there = self.broker.channel.queue_declare(dq_name(self.queue_name), passive=True).method.consumer_count
        except (pika.exceptions.AMQPConnectionError, pika.exceptions.AMQPChannelError):
            del self.broker.connection
            return False
        before, self._processes = self._processes, there
        if not self._dispatchers.is_one_too_many(min(before, there)):
            return False
        self.logger.info("%s: given back to a process that stands by", self.queue_name)
        self._dispatcher.halt()
        self._is_leaving = True
        return self._dispatcher.is_idle

    def _read_what_is_there(self) -> None:
        if self._restart_at is not None:  # what is read now is delivered again, and pika would hold all of it
            time.sleep(LEAVE_EVERY)
            return
        self._take(*next(self.iterator))
        # pika reads a few messages at a time; what else has arrived by now belongs to the same batch. They are taken
        # before more are read: what is long leaves, and headers take more memory in pika's form than in ours.
        left, waiting = READ_AT_ONCE, self.channel.get_waiting_message_count()
        while waiting and left > 0:
            for _ in range(min(waiting, left)):
                self._take(*next(self.iterator))
            left -= waiting
            self.connection.process_data_events(0)
            waiting = self.channel.get_waiting_message_count()

    def _take(self, method: Any, properties: pika.BasicProperties | None, body: bytes | None) -> None:
        if method is None or properties is None or body is None or self._restart_at is not None:
            return
        is_long = len(body) > MAX_BODY_BYTES
        is_marker = (
            properties.type == MARKER
            and self._dispatcher is not None
            and event_of(self.queue_name) is VehicleEntered
            and not is_long
        )
        message = (read_marker if is_marker else read_body)(self.queue_name, body)
        self._acknowledgements.delivered(method.delivery_tag)
        delivery = ReceivedMessage(message, self._acknowledgements, method.delivery_tag, body, properties)
        if is_long or isinstance(properties.headers, LongTable):
            if delivery.failed:
                self._bury_now(delivery)
                return
            properties.headers = PackedTable(properties.headers.encoded)
        if self._dispatcher is None:
            self._read.append(delivery)
            return
        if not self._dispatcher.is_active:
            self.logger.info("%s: this process is the one that works on it", self.queue_name)
        self._dispatcher.add(delivery)

    def ack(self, message: Any) -> None:
        """Let a message go, or all of a batch; one that was left stays, and all behind it are delivered again.

        What came on an earlier connection is let be: RabbitMQ has put it back.
        """
        parts: Sequence[Any] = parts_of(message)
        if not parts or getattr(message, "is_held", False):
            return
        if not message.is_left:
            parts[0].acknowledgements.settle(part.tag for part in parts)
        elif parts[0].acknowledgements is self._acknowledgements:
            if self._dispatcher is not None:
                self._dispatcher.halt(parts[0].number)
            self._restart_at = time.monotonic() + RESTARTED_AFTER

    def nack(self, message: Any) -> None:
        """Make a message a dead letter with the reason, and let it go when RabbitMQ has confirmed that.

        While RabbitMQ does not take the copy it is tried again. What came on an earlier connection is let be: RabbitMQ
        delivers it again, and it is given up then.
        """
        for part in parts_of(message):
            if not part.is_buried and part.acknowledgements.can_be_sent:
                self._note(part, message)
                self._bury_at_last(part, message)

    def _bury_at_last(self, part: Any, message: Any) -> None:
        """Make a dead letter until it is one; in vain when the original's connection is lost, or the process ends."""
        name = xq_name(self.queue_name)
        for pause in backoff():
            try:
                self._bury(part, message)
            except ConnectionClosed as error:
                self.broker.waits(name, error)
                if self.broker.dispatchers.ending.wait(pause):
                    return
                if not part.acknowledgements.can_be_sent:
                    break
            else:
                break
        self.broker.goes_on(name)

    def _bury_now(self, delivery: ReceivedMessage) -> None:
        """Make a dead letter of what is too long to be kept until its turn comes; the worker has only to count it.

        While RabbitMQ does not take it, it stays in its place, and what came before it goes on meanwhile.
        """
        name = xq_name(self.queue_name)
        try:
            self._bury(delivery, delivery)
        except ConnectionClosed as error:
            self.broker.waits(name, error)
            self._restart_at = time.monotonic() + BACKOFF_SECONDS[-1]
            return
        self.broker.goes_on(name)
        self._note(delivery, delivery)
        delivery.is_buried, delivery.body, delivery.properties = True, b"", pika.BasicProperties()
        self.broker.dispatchers.hand_on(delivery)

    def _note(self, part: Any, message: Any) -> None:
        why, body = dead_letters.reason(message), dead_letters.shortened(part.body)
        self.logger.warning("%s: dead-lettered: %s; body: %s", self.queue_name, why, body)

    def _bury(self, part: Any, message: Any) -> None:
        if isinstance(part.body, Beginning):
            part.acknowledgements.refuse(part.tag)
            return
        if isinstance(part.properties.headers, PackedTable):
            part.properties.headers = part.properties.headers.unpacked()
        properties = dead_properties(part.properties, dead_letters.reason_headers(message))
        try:
            self.broker.publish(xq_name(self.queue_name), part.body, properties)
        except ConnectionClosed as error:
            if getattr(error.message, "reply_code", None) != spec.PRECONDITION_FAILED:
                raise
            part.acknowledgements.refuse(part.tag)  # it came when RabbitMQ took longer ones than it does now
        else:
            if part.acknowledgements.can_be_sent:
                part.acknowledgements.settle([part.tag])

    def close(self) -> None:
        """Acknowledge what is done, and close the connection: what is not done is in its place in the queue again."""
        if self.connection is None or not self.connection.is_open:
            return
        try:
            if self._acknowledgements.can_be_sent:
                self._acknowledgements.send()
            close_in_place(self.connection)
        except _LOST as error:
            raise ConnectionClosed(error) from None
