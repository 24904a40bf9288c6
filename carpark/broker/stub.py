"""The in-process broker of the embedded run: Dramatiq's StubBroker with the same reading of bodies."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from queue import Empty, Queue
from typing import Any

from dramatiq.broker import Consumer, MessageProxy
from dramatiq.brokers import stub as base
from dramatiq.common import current_millis, dq_name, q_name, xq_name
from dramatiq.errors import QueueNotFound
from dramatiq.logging import get_logger
from dramatiq.message import Message
from dramatiq.middleware import Middleware

from carpark.broker import dead_letters
from carpark.broker.batches import PREFETCHED_BATCHES, parts_of
from carpark.broker.dispatch import RESTARTED_AFTER, Dispatcher, Dispatchers
from carpark.broker.reading import MARKER, RejectedMessage, read_body, read_marker
from carpark.domain.events import VehicleEntered
from carpark.domain.routing import event_of, is_event_queue
from carpark.rabbitmq.properties import without_reason


@dataclass(frozen=True)
class StoredMessage:
    """A body with its headers, as a queue of the in-process broker holds it."""

    body: bytes
    headers: Mapping[str, Any] = field(default_factory=dict)


class StubBroker(base.StubBroker):
    """A broker in this process."""

    def __init__(self, middleware: list[Middleware], batch: int = 1) -> None:
        self.dispatchers = Dispatchers(batch)
        super().__init__([*middleware, self.dispatchers], fail_fast_default=False)
        self._batch = batch
        self.dead: defaultdict[str, list[StoredMessage]] = defaultdict(list)
        self.in_hand: defaultdict[str, dict[int, StoredMessage]] = defaultdict(dict)

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Put a message on its queue."""
        queue_name = q_name(message.queue_name)
        message = message.copy(queue_name=queue_name)
        if delay is not None:
            queue_name = dq_name(queue_name)
            message = message.copy(queue_name=queue_name, options={"eta": current_millis() + delay})
        self.emit_before("enqueue", message, delay)
        self.publish(queue_name, message.encode())
        self.emit_after("enqueue", message, delay)
        return message

    def dead_letter(self, message: Message[Any], why: str) -> None:
        """Keep a message of the backend's own as a dead letter."""
        self.dead[q_name(message.queue_name)].append(StoredMessage(message.encode(), dead_letters.headers_for(why)))

    def publish(self, queue_name: str, body: bytes, headers: Mapping[str, Any] | None = None) -> None:
        """Put a body on a queue, as another program would."""
        if queue_name not in self.queues:
            raise QueueNotFound(queue_name)
        self.queues[queue_name].put(StoredMessage(body, headers or {}))

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 100) -> Consumer:
        """Make a consumer that reads bodies."""
        if queue_name not in self.queues:
            raise QueueNotFound(queue_name)
        if self._batch > 1:
            prefetch = max(prefetch, PREFETCHED_BATCHES * self._batch)
        dead, in_hand = self.dead[q_name(queue_name)], self.in_hand[queue_name]
        dispatcher = self.dispatchers.of(queue_name) if is_event_queue(queue_name) else None
        return EventConsumer(self.queues[queue_name], queue_name, dead, in_hand, prefetch, timeout, dispatcher)

    @property
    def names(self) -> list[str]:
        """Its queues without companions, in the order in which they were declared."""
        return [name for name in self.queues if name not in self.delay_queues]

    def publish_marker(self, queue_name: str, id_: str) -> None:
        """Publish a marker behind all that is in a queue."""
        self.publish(queue_name, id_.encode(), {MARKER: 1})

    def messages(self, queue_name: str) -> list[StoredMessage]:
        """Look at what waits in a queue; that changes nothing."""
        if queue_name == xq_name(queue_name):
            return list(self.dead[q_name(queue_name)])
        queue = self.queues[queue_name]
        with queue.mutex:
            return list(queue.queue)

    def counts(self, queue_name: str) -> dict[str, int]:
        """Count a queue's messages."""
        queue, delayed = self.queues[queue_name], self.queues[dq_name(queue_name)]
        ready = queue.qsize()
        return {
            "ready": ready,
            "unacked": max(0, queue.unfinished_tasks - ready),
            "delayed": delayed.unfinished_tasks,
            "dead": len(self.dead[queue_name]),
        }


class ReceivedMessage(MessageProxy):
    """A message with what it came as."""

    def __init__(self, message: Message[None], stored: StoredMessage) -> None:
        super().__init__(message)
        self.stored, self.body = stored, stored.body
        self.failed = isinstance(message, RejectedMessage)
        self.is_left = False


class EventConsumer(Consumer):
    """Reads each body for the queue that it came on; what is given up is kept with the reason."""

    def __init__(
        self,
        queue: Queue[StoredMessage],
        queue_name: str,
        dead: list[StoredMessage],
        in_hand: dict[int, StoredMessage],
        prefetch: int,
        timeout: int,
        dispatcher: Dispatcher | None,
    ) -> None:
        self.logger = get_logger(__name__, type(self))
        self._in_hand = in_hand
        self._queue, self._queue_name, self._dead, self._timeout = queue, queue_name, dead, timeout / 1000
        self._free = threading.Semaphore(prefetch)
        self._dispatcher = dispatcher
        self._restart_at: float | None = None

    def __next__(self) -> MessageProxy | None:
        if self._restart_at is not None and time.monotonic() >= self._restart_at:
            self._restart()
        delivery = self._read()
        if self._dispatcher is None:
            return delivery
        if delivery is not None:
            self._dispatcher.add(delivery)
        return self._dispatcher.take()

    def _read(self) -> ReceivedMessage | None:
        if not self._free.acquire(timeout=self._timeout):
            return None
        try:
            stored = self._queue.get(timeout=self._timeout)
        except Empty:
            self._free.release()
            return None
        self._in_hand[id(stored)] = stored
        is_marker = (
            MARKER in stored.headers and self._dispatcher is not None and event_of(self._queue_name) is VehicleEntered
        )
        return ReceivedMessage((read_marker if is_marker else read_body)(self._queue_name, stored.body), stored)

    def _restart(self) -> None:
        """Put all that is in hand back, each stored in its place, as RabbitMQ does when a connection is closed."""
        left = list(self._in_hand.values())
        self._in_hand.clear()
        with self._queue.mutex:
            self._queue.queue.extendleft(reversed(left))
        self._free.release(len(left))
        self._restart_at = None
        if self._dispatcher is not None:
            self._dispatcher.restart()

    def ack(self, message: Any) -> None:
        """Let a message go, or all of a batch; one that was left stays, and all behind it are delivered again."""
        if getattr(message, "is_held", False):
            return
        if message.is_left:
            if self._dispatcher is not None:
                self._dispatcher.halt()
            self._restart_at = time.monotonic() + RESTARTED_AFTER
            return
        parts: Sequence[Any] = parts_of(message)
        for part in parts:
            self._in_hand.pop(id(part.stored), None)
            self._queue.task_done()
            self._free.release()

    def nack(self, message: Any) -> None:
        """Keep a message as a dead stored, and let it go."""
        parts: Sequence[Any] = parts_of(message)
        for stored in (part.stored for part in parts):
            self.logger.warning(
                "%s: dead-lettered: %s; body: %s",
                self._queue_name,
                dead_letters.reason(message),
                dead_letters.shortened(stored.body),
            )
            headers = {**without_reason(stored.headers), **dead_letters.reason_headers(message)}
            self._dead.append(StoredMessage(stored.body, headers))
        self.ack(message)
