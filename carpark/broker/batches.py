"""Batches: events that arrived while the workers were busy are worked on together.

A batch is one message for Dramatiq. The first event opens it; whatever arrives before a worker gets round to it joins.
So an event that finds an idle worker goes alone, without waiting, and under load batches grow by themselves. An event
that cannot be worked on with the others leaves the batch.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from dramatiq.broker import MessageProxy
from dramatiq.message import Message

PREFETCHED_BATCHES = 10
"""How many full batches a consumer holds at most: the one that is worked on, and those that grow meanwhile.

This prefetch is the backpressure: the rest waits in RabbitMQ."""

BATCH_BYTES = 512 * 1024
"""How long the bodies of a batch may be together, the last one not counted: they are written again all at once."""


class EventBatch(MessageProxy):
    """Events of one queue that are one message for the worker; to Dramatiq it looks like the first of them."""

    def __init__(self, first: MessageProxy, most: int) -> None:
        super().__init__(first._message)
        self.parts: list[MessageProxy] = [first]
        self.is_left = False
        self._most = most
        self._room = BATCH_BYTES - len(first.body)
        self._closed = False
        self._lock = threading.Lock()

    def join(self, part: MessageProxy) -> bool:
        """Take a further event in, if there is room and no worker has begun."""
        with self._lock:
            if self._closed or len(self.parts) >= self._most or self._room < 0:
                return False
            self._room -= len(part.body)
            self.parts.append(part)
            return True

    @property
    def args(self) -> tuple[Any, ...]:  # type: ignore[override]
        """The events, as the actor's arguments; asking for them closes the batch."""
        with self._lock:
            self._closed = True
        return tuple(part.args[0] for part in self.parts)

    def leave(self, places: Sequence[int]) -> list[MessageProxy]:
        """Take events out, because they go their own ways from here."""
        leaving = set(places)
        gone = [part for place, part in enumerate(self.parts) if place in leaving]
        self.parts = [part for place, part in enumerate(self.parts) if place not in leaving]
        return gone

    def __str__(self) -> str:
        return str(self._message) if len(self.parts) == 1 else f"{self.actor_name}({len(self.parts)} events)"


def parts_of(message: MessageProxy | Message[Any]) -> Sequence[MessageProxy]:
    """Say which messages a worker's message stands for: those of the batch, or itself.

    Middleware that counts messages counts these.
    """
    return message.parts if isinstance(message, EventBatch) else [message]  # type: ignore[list-item]
