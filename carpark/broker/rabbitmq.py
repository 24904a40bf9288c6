"""Dramatiq's RabbitMQ broker with confirms and with a consumer that reads each body for its own queue."""

from __future__ import annotations

import os
import socket
from functools import partial
from typing import Any

import pika
import pika.exceptions
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.brokers import rabbitmq as base
from dramatiq.common import current_millis, q_name, xq_name
from dramatiq.errors import ConnectionClosed
from dramatiq.message import Message
from dramatiq.middleware import Middleware

from carpark.broker import letters, topology
from carpark.broker.properties import dead_properties
from carpark.broker.reading import OWN_HEADER, RejectedMessage, read_body

_BURY_ATTEMPTS = 3


class RabbitmqBroker(base.RabbitmqBroker):
    """A RabbitMQ broker whose publishing is confirmed and whose dead letters say why they died.

    Args:
        url: One AMQP URL, or several of a cluster separated by ``;``, tried in their order.
        middleware: What Dramatiq shall call on the way.
        queue_type: How RabbitMQ keeps the queues, classic or quorum.
        name: What the connections are called in RabbitMQ's management UI, before host and process id.
    """

    def __init__(
        self,
        url: str,
        middleware: list[Middleware],
        queue_type: str = topology.CLASSIC,
        name: str = "carpark backend",
    ) -> None:
        self.queue_type = queue_type
        super().__init__(confirm_delivery=True, url=[part.strip() for part in url.split(";")], middleware=middleware)
        for parameters in self.parameters:
            parameters.client_properties = {"connection_name": f"{name} {socket.gethostname()}:{os.getpid()}"}

    @property
    def consumer_class(self) -> type[EventConsumer]:
        """The consumer that reads bodies."""
        return EventConsumer

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Publish a message of the backend's own, and wait until RabbitMQ confirms that it is safe.

        Args:
            message: The message.
            delay: Milliseconds before it is worked on.

        Returns:
            The message as it was sent.

        Raises:
            ConnectionClosed: RabbitMQ could not be reached, or did not take it.
        """
        queue_name = q_name(message.queue_name)
        message = message.copy(queue_name=queue_name)
        if delay is not None:
            queue_name = topology.with_companions(queue_name)[1]
            message = message.copy(queue_name=queue_name, options={"eta": current_millis() + delay})
        self.emit_before("enqueue", message, delay)
        properties = pika.BasicProperties(content_type="application/json", delivery_mode=2, headers={OWN_HEADER: 1})
        self.publish(queue_name, message.encode(), properties)
        self.emit_after("enqueue", message, delay)
        return message

    def publish(self, queue_name: str, body: bytes, properties: pika.BasicProperties) -> None:
        """Publish a body to a queue, declaring the queue when it is missing, and wait for the confirm.

        Args:
            queue_name: A queue or one of its companions.
            body: The bytes.
            properties: As they shall arrive.

        Raises:
            ConnectionClosed: RabbitMQ could not be reached, or did not take it.
        """
        for attempt in range(1, _BURY_ATTEMPTS + 1):
            try:
                self.declare_queue(q_name(queue_name), ensure=True)
                self.channel.basic_publish("", queue_name, body, properties, mandatory=True)
                return
            except (pika.exceptions.AMQPConnectionError, pika.exceptions.AMQPChannelError) as error:
                if isinstance(error, pika.exceptions.UnroutableError):
                    self.queues_pending.add(q_name(queue_name))
                del self.connection
                if attempt == _BURY_ATTEMPTS:
                    raise ConnectionClosed(error) from None

    def dead_letter(self, message: Message[Any], why: str) -> None:
        """Publish a message of the backend's own straight to ``.XQ``.

        Args:
            message: The message.
            why: The reason, one line.

        Raises:
            ConnectionClosed: RabbitMQ could not be reached, or did not take it.
        """
        headers = {OWN_HEADER: 1, **letters.headers_for(why)}
        properties = pika.BasicProperties(content_type="application/json", delivery_mode=2, headers=headers)
        self.publish(xq_name(message.queue_name), message.encode(), properties)

    def _declare_queue(self, queue_name: str) -> Any:
        return topology.declare_queue(self.channel, queue_name, self.queue_type)

    def _declare_dq_queue(self, queue_name: str) -> Any:
        return topology.declare_queue(self.channel, topology.with_companions(queue_name)[1], self.queue_type)

    def _declare_xq_queue(self, queue_name: str) -> Any:
        return topology.declare_queue(self.channel, xq_name(queue_name))

    def get_queue_message_counts(self, queue_name: str) -> tuple[int, int, int]:
        """Count the messages that are ready.

        Args:
            queue_name: A queue, without companions.

        Returns:
            Those of the queue, of its delay queue, and its dead letters.
        """
        return (
            self._declare_queue(queue_name),
            self._declare_dq_queue(queue_name),
            self._declare_xq_queue(queue_name),
        )


class Delivery(MessageProxy):
    """A message with what it came with.

    Args:
        message: The message that the body was read as.
        tag: RabbitMQ's delivery tag.
        body: The bytes as they came.
        properties: As they came.
    """

    def __init__(self, message: Message[None], tag: int, body: bytes, properties: pika.BasicProperties) -> None:
        super().__init__(message)
        self._tag, self.body, self.properties = tag, body, properties
        self.failed = isinstance(message, RejectedMessage)
        self.returned = False


class EventConsumer(base._RabbitmqConsumer, Consumer):
    """Reads each body for the queue that it came on; what is given up goes to ``.XQ`` as it came, with the reason."""

    def __next__(self) -> Delivery | None:
        try:
            method, properties, body = next(self.iterator)
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
        if method is None or properties is None or body is None:
            return None
        message = read_body(self.queue_name, body, properties.headers)
        self.known_tags.add(method.delivery_tag)
        return Delivery(message, method.delivery_tag, body, properties)

    def ack(self, message: Any) -> None:
        """Let a message go; one whose retry could not be queued goes back to its queue instead.

        Args:
            message: The message that is done.

        Raises:
            ConnectionClosed: RabbitMQ could not be reached.
        """
        if not message.returned:
            super().ack(message)  # type: ignore[no-untyped-call]
        elif message._tag in self.known_tags:
            self.known_tags.remove(message._tag)
            self.connection.add_callback_threadsafe(partial(self.channel.basic_nack, message._tag, requeue=True))

    def nack(self, message: Any) -> None:
        """Put a copy into ``.XQ``, and only when RabbitMQ has confirmed it acknowledge the original.

        Args:
            message: The message that is given up.

        Raises:
            ConnectionClosed: RabbitMQ could not be reached; the original stays where it is.
        """
        self.logger.warning(
            "%s: dead-lettered: %s; body: %s",
            self.queue_name,
            letters.reason(message),
            letters.shortened(message.body),
        )
        self.broker.publish(
            xq_name(self.queue_name), message.body, dead_properties(message.properties, letters.reason_headers(message))
        )
        self.ack(message)
