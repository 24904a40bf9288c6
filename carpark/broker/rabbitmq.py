"""Dramatiq's RabbitMQ broker with confirms, and with a consumer that reads each body for its own queue."""

from __future__ import annotations

import logging
from typing import Any

import pika
import pika.exceptions
from dramatiq.brokers import rabbitmq as base
from dramatiq.common import dq_name, q_name, xq_name
from dramatiq.errors import BrokerConnectionError, ConnectionClosed
from dramatiq.message import Message
from dramatiq.middleware import Middleware
from dramatiq.worker import DELAY_QUEUE_PREFETCH, QUEUE_PREFETCH
from pika import spec

from carpark.broker import dead_letters
from carpark.broker.batches import PREFETCHED_BATCHES
from carpark.broker.consumer import EventConsumer
from carpark.broker.dispatch import Dispatchers
from carpark.broker.reading import MARKER
from carpark.domain.routing import is_event_queue
from carpark.errors import CarparkError, ExchangeMismatch, QueueMismatch
from carpark.rabbitmq import topology
from carpark.rabbitmq.connection import HEARTBEAT, NO_AMQP_ERRORS, connection_parameters, explain, resolvable
from carpark.rabbitmq.headers import survive_odd_headers
from carpark.rabbitmq.outage import Outage
from carpark.settings.values import mask_urls

log = logging.getLogger(__name__)

BLOCKED_FOR = 3.0
"""Seconds that a thread which publishes waits for a RabbitMQ that takes nothing: a worker shall make room."""

IN_HAND = 800
"""How many events a process holds at most, of all its queues: of 64 KiB each, less than a third of its container."""

_ATTEMPTS = 3


class RabbitmqBroker(base.RabbitmqBroker):
    """A RabbitMQ broker whose publishing is confirmed and whose dead letters say why they died."""

    def __init__(
        self,
        url: str,
        middleware: list[Middleware],
        *,
        queue_type: str = topology.CLASSIC,
        batch: int = 1,
        name: str = "carpark backend",
    ) -> None:
        survive_odd_headers()
        self.queue_type = queue_type
        self._where, self._outage = mask_urls(url), Outage(log.warning)
        self.dispatchers = Dispatchers(batch)
        super().__init__(
            confirm_delivery=True,
            url=[part.strip() for part in url.split(";")],
            middleware=[*middleware, self.dispatchers],
        )
        self._nodes = connection_parameters(url, name, None, HEARTBEAT, BLOCKED_FOR)
        self._batch = batch

    @property
    def parameters(self) -> list[pika.URLParameters]:
        """Where to connect to, worked out for each connection anew."""
        return resolvable(self._nodes)

    @parameters.setter
    def parameters(self, nodes: list[pika.URLParameters]) -> None:
        self._nodes = nodes

    @base.RabbitmqBroker.connection.getter  # type: ignore[attr-defined, untyped-decorator]
    def connection(self) -> pika.BlockingConnection:
        """The current thread's connection. Whatever keeps it from being made is an AMQP error: those are expected."""
        try:
            connection: pika.BlockingConnection = base.RabbitmqBroker.connection.fget(self)  # type: ignore[attr-defined]
        except NO_AMQP_ERRORS as error:
            raise pika.exceptions.AMQPConnectionError(error) from error
        return connection

    def waits(self, who: str, error: BaseException) -> None:
        """Say what events wait for."""
        while isinstance(error, ConnectionClosed) and isinstance(error.message, BaseException):
            error = error.message
        if isinstance(error, CarparkError):
            self._outage.begin(f"{error}; events wait", str(error), who, who)
        else:
            # Of one outage each thread hears something else; it is news where something else is to be done.
            reason, remedy = explain(error)
            self._outage.begin(f"RabbitMQ at {self._where}: {reason}; {remedy}; events wait", remedy, who=who)

    def goes_on(self, who: str) -> None:
        """Hear that something need not wait."""
        self._outage.end(who)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> EventConsumer:
        """Make a consumer that reads bodies."""
        dispatchers = self.dispatchers if is_event_queue(queue_name) else None
        if queue_name == dq_name(queue_name):
            prefetch = DELAY_QUEUE_PREFETCH or 1
        elif dispatchers and not QUEUE_PREFETCH:
            wanted = max(prefetch, PREFETCHED_BATCHES * self._batch) if self._batch > 1 else prefetch
            prefetch = max(1, min(wanted, IN_HAND // (sum(map(is_event_queue, self.queues)) or 1)))
        return EventConsumer(self, queue_name, prefetch, timeout, dispatchers)

    def publish(self, queue_name: str, body: bytes, properties: pika.BasicProperties) -> None:
        """Publish a body to a queue, declaring the queue when it is missing, and wait for the confirm."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self.declare_queue(q_name(queue_name), ensure=True)
                if attempt > 1 and queue_name == xq_name(queue_name):
                    topology.declare_queue(self.channel, queue_name, self.queue_type)
                self.channel.basic_publish("", queue_name, body, properties, mandatory=True)
                return
            except (pika.exceptions.AMQPConnectionError, pika.exceptions.AMQPChannelError) as error:
                if isinstance(error, pika.exceptions.UnroutableError):
                    self.queues_pending.add(q_name(queue_name))
                del self.connection
                if attempt == _ATTEMPTS or getattr(error, "reply_code", None) == spec.PRECONDITION_FAILED:
                    raise ConnectionClosed(error) from None

    def dead_letter(self, message: Message[Any], why: str) -> None:
        """Publish a message of the backend's own straight to ``.XQ``."""
        properties = pika.BasicProperties(
            content_type="application/json",
            delivery_mode=2,
            message_id=message.message_id,
            headers=dead_letters.headers_for(why),
        )
        self.publish(xq_name(message.queue_name), message.encode(), properties)

    def _declare_queue(self, queue_name: str) -> int:
        try:
            found = topology.declare_queue(self.channel, queue_name, self.queue_type)
            return found.message_count if found else 0
        except (QueueMismatch, ExchangeMismatch) as error:
            del self.connection
            raise ConnectionClosed(error) from None  # which a consumer says in one line, and tries again

    def _declare_dq_queue(self, queue_name: str) -> int:
        return self._declare_queue(dq_name(queue_name))

    def _declare_xq_queue(self, queue_name: str) -> Any:
        # In a cluster the node with the dead letters may be away, and RabbitMQ 4 then takes minutes to say so. Whoever
        # publishes a dead letter and finds no queue for it declares one.
        if self.queue_type != topology.QUORUM:
            self._declare_queue(xq_name(queue_name))

    def publish_marker(self, queue_name: str, id_: str) -> None:
        """Publish a marker behind all that is in a queue."""
        try:
            self.publish(queue_name, id_.encode(), pika.BasicProperties(type=MARKER))
        except BrokerConnectionError:
            raise
        except Exception as error:  # whatever pika raises, the exits that wait for it are not to blame
            raise ConnectionClosed(error) from error

    def get_queue_message_counts(self, queue_name: str) -> tuple[int, int, int]:
        """Count the messages that are ready."""
        queue, delayed, dead = map(self._declare_queue, topology.with_companions(queue_name))
        return queue, delayed, dead
