"""Stands for RabbitMQ: queues with a single active consumer, and what a process has of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

from dramatiq.broker import MessageProxy

from carpark.broker.batches import parts_of
from carpark.broker.reading import read_body, read_marker
from carpark.domain.events import Event, VehicleExited

EXITS = VehicleExited.queue


class At(MessageProxy):
    """A message in its place of a queue, as a consumer delivered it."""

    def __init__(self, message: Any, place: int, consumer: Consumer) -> None:
        super().__init__(message)
        self.place, self.consumer = place, consumer
        self.is_left, self.body = False, b""


@cache
def _read(queue: str, event: Event) -> Any:
    return read_body(queue, event.to_json().encode())


class Queue:
    """A queue of RabbitMQ's with a single active consumer.

    Args:
        name: Its name.
        events: What is published to it, in its order.
        late: How many of them are not there from the start.
    """

    def __init__(self, name: str, events: Sequence[Event], late: int = 0) -> None:
        self.name, self.events, self.published = name, events, 0
        self.messages: list[Any] = []
        self.labels: list[Any] = []
        self.acknowledged: set[int] = set()
        self.consumer: Consumer | None = None
        self.order: list[str] = list(dict.fromkeys(event.id for event in events))
        self.recorded: list[str] = []
        self.at_the_back: list[int] = []
        for _ in range(len(events) - late):
            self.publish_next()

    def publish_next(self) -> None:
        """Take the next event."""
        self._publish(_read(self.name, self.events[self.published]), self.published)
        self.published += 1

    def publish_marker(self, id_: str) -> None:
        """Take a marker."""
        self._publish(read_marker(self.name, id_.encode()), id_)

    def _publish(self, message: Any, label: Any) -> None:
        self.messages.append(message)
        self.labels.append(label)
        if self.consumer:
            self.consumer.unread.append(len(self.messages) - 1)

    def rest(self) -> list[int]:
        """Give the places of what is there and not acknowledged, in their order."""
        there = [place for place in range(len(self.messages)) if place not in self.acknowledged]
        return sorted(there, key=lambda place: (place in self.at_the_back, place))

    def names(self, places: Iterable[int]) -> tuple[Any, ...]:
        """Say what is in places: an event by its number, a marker by its id."""
        return tuple(self.labels[place] for place in places)


class Consumer:
    """Stands for the consumer of a queue in a process: fills the process's dispatcher, acknowledges what is done."""

    def __init__(self, process: Any, queue: Queue) -> None:
        self.process, self.queue = process, queue
        self.dispatcher = process.backend.broker.dispatchers.of(queue.name)
        self.dispatcher.restart()
        self.unread = queue.rest()
        self.settled: set[int] = set()
        self.is_open = True
        queue.consumer = self

    def read(self, count: int) -> None:
        """Give the dispatcher what is next in the queue."""
        self.process.world.note_read(self.queue, self.queue.names(self.unread[:count]))
        for place in self.unread[:count]:
            self.dispatcher.add(At(self.queue.messages[place], place, self))
        del self.unread[:count]

    def counts(self, most: int) -> Iterator[int]:
        """Say how many messages may be read before a batch is begun.

        What would not join it makes no difference, but that a marker speaks for all exits that were read before it.
        """
        events = 0
        for count, label in enumerate(self.queue.names(self.unread), 1):
            is_event = isinstance(label, int)
            events += is_event
            if events > most:
                if self.queue.name == EXITS:
                    yield len(self.unread)
                return
            if is_event or count == 1:
                yield count
            if not events:
                return

    def handle_message(self, message: Any) -> None:
        """Take what the dispatcher hands on; a thread begins it later."""
        self.process.given[self.queue.name].append(message)

    def ack(self, message: Any) -> None:
        """Do what carpark.broker.consumer does."""
        parts: Sequence[Any] = parts_of(message)
        if not parts or getattr(message, "is_held", False):
            return
        if not message.is_left:
            parts[0].consumer.settled.update(part.place for part in parts)
        elif parts[0].consumer is self and self.process.world.model.mutant == "nack with requeue":
            self.queue.at_the_back += [part.place for part in parts]
        elif parts[0].consumer is self:
            self.dispatcher.halt()

    def end(self, *, heard: bool) -> None:
        """Lose the connection; what RabbitMQ has not heard of is in its place in the queue again."""
        if heard:
            self.queue.acknowledged |= self.settled
        if self.process.world.model.mutant == "cancel before close":
            self.queue.at_the_back += [place for place in self.queue.rest() if place not in self.unread]
        self.is_open = False
        self.queue.consumer = None
