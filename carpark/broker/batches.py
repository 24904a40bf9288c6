"""Batches: events that arrived while the workers were busy are worked on together.

A batch is one message for Dramatiq. The consumer opens it with the first event and puts it on the work queue at once;
whatever arrives before a worker gets round to it joins. So an event that finds an idle worker goes alone, without
waiting, and under load batches grow by themselves. An event that cannot be worked on with the others leaves the batch.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from dramatiq import Worker
from dramatiq.broker import Broker, MessageProxy
from dramatiq.message import Message
from dramatiq.middleware import Middleware

from carpark.broker.reading import EventMessage

PREFETCHED_BATCHES = 10
"""How many full batches a consumer holds at most: those that are worked on, and those that grow meanwhile."""


class Batch(MessageProxy):
    """Events of one queue that are one message for the worker; to Dramatiq it looks like the first of them.

    Args:
        first: The event's message that opens it.
        most: How many there may be.
    """

    def __init__(self, first: MessageProxy, most: int) -> None:
        super().__init__(first._message)
        self.parts: list[MessageProxy] = [first]
        self.returned = False
        self._most = most
        self._closed = False
        self._lock = threading.Lock()

    def join(self, part: MessageProxy) -> bool:
        """Take a further event in, if there is room and no worker has begun.

        Args:
            part: The event's message.

        Returns:
            Whether it is in now.
        """
        with self._lock:
            if self._closed or len(self.parts) >= self._most:
                return False
            self.parts.append(part)
            return True

    @property
    def args(self) -> tuple[Any, ...]:  # type: ignore[override]
        """The events, as the actor's arguments; asking for them closes the batch."""
        with self._lock:
            self._closed = True
        return tuple(part.args[0] for part in self.parts)

    def leave(self, places: Sequence[int]) -> list[MessageProxy]:
        """Take events out, because they go their own ways from here.

        Args:
            places: Which, counted as in `args`.

        Returns:
            Their messages.
        """
        leaving = set(places)
        gone = [part for place, part in enumerate(self.parts) if place in leaving]
        self.parts = [part for place, part in enumerate(self.parts) if place not in leaving]
        return gone

    def __str__(self) -> str:
        return str(self._message) if len(self.parts) == 1 else f"{self.actor_name}({len(self.parts)} events)"


class Turns(Middleware):
    """Lets as many batches be worked on at once as there are worker threads, less one.

    The threads share one interpreter: more batches at once would be smaller ones, each taking longer. A batch that
    waits for its turn holds its thread, but is still open.
    """

    def __init__(self) -> None:
        self._turns = threading.BoundedSemaphore()

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """Allow as many as the worker has threads, less one.

        Args:
            broker: The broker.
            worker: The worker.
        """
        self._turns = threading.BoundedSemaphore(max(1, worker.worker_threads - 1))

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Wait until it is the batch's turn.

        Args:
            broker: The broker.
            message: A batch; what is none has no turn to wait for.
        """
        if isinstance(message, Batch):
            self._turns.acquire()

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        """Let the next one have its turn.

        Args:
            broker: The broker.
            message: A batch, or what is none.
            result: What the actor returned.
            exception: What it raised.
        """
        if isinstance(message, Batch):
            self._turns.release()

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Let the next one have its turn.

        Args:
            broker: The broker.
            message: A batch, or what is none.
        """
        self.after_process_message(broker, message)


class Folder:
    """Folds the messages that a consumer reads into batches.

    Args:
        most: How many events a batch may have; with 1 each message goes alone.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: Batch | None = None

    def fold(self, delivery: MessageProxy) -> MessageProxy | None:
        """Give a message its place.

        Args:
            delivery: What was read. An event joins a batch; what is anything else, or is tried again, goes alone.

        Returns:
            What goes to the worker now; None when the message has joined what is on its way already.
        """
        message = delivery._message
        if self._most == 1 or not isinstance(message, EventMessage) or message.options:
            return delivery
        if self._open is not None and self._open.join(delivery):
            return None
        self._open = Batch(delivery, self._most)
        return self._open


def parts_of(message: MessageProxy | Message[Any]) -> Sequence[MessageProxy]:
    """Say which messages a worker's message stands for: those of the batch, or itself.

    Middleware that counts messages counts these.

    Args:
        message: A message as a worker or a middleware has it.

    Returns:
        One or more messages as they were delivered.
    """
    return message.parts if isinstance(message, Batch) else [message]  # type: ignore[list-item]
