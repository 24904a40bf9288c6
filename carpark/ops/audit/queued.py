"""Reads what is still in the queues, without taking anything out of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pika.exceptions
from dramatiq.common import q_name, xq_name
from pika import spec

from carpark.broker.reading import EventMessage, read_body
from carpark.domain.events import EVENT_OF_QUEUE, StaySummary
from carpark.domain.routing import DELIVER, partition_queue
from carpark.errors import QueueMismatch
from carpark.ops.audit.facts import KINDS
from carpark.rabbitmq.connection import connected, look
from carpark.rabbitmq.management import TYPE_TIMEOUT, ManagementApi, virtual_host_of
from carpark.rabbitmq.topology import all_queues, why_not_to_look, with_companions
from carpark.settings.model import MOST_PARTITIONS
from carpark.settings.values import management_url_of

MOST = 100_000
"""How many messages of a queue are read at most: RabbitMQ keeps them all in hand meanwhile."""

Message = tuple[str, bytes]
"""A message: the queue or companion that it is in, and its body."""


@dataclass
class QueueContents:
    waiting: int = 0
    dead: int = 0
    unread: int = 0
    events: set[tuple[int, str]] = field(default_factory=set)
    dead_events: dict[tuple[int, str], str] = field(default_factory=dict)
    summaries: list[tuple[str, StaySummary, str]] = field(default_factory=list)

    def take(self, messages: Iterable[Message]) -> None:
        """Take messages."""
        for queue, body in messages:
            is_dead = queue == xq_name(queue)
            self.dead += is_dead
            self.waiting += not is_dead
            message = read_body(q_name(queue), body)
            if isinstance(message, EventMessage):
                event = message.event
                key = (KINDS.index(event.kind), event.id)
                self.events.add(key)
                if is_dead:
                    said = f"{event.vehicle_plate} {event.kind} at {event.time}, id {event.id}, in {queue}"
                    self.dead_events[key] = said
            elif message.actor_name == DELIVER:
                sink, summary = message.args
                self.summaries.append((sink, summary, "dead" if is_dead else "queued"))


def read_queues(url: str, partitions: int = 1, most: int = MOST, management_url: str = "") -> QueueContents:
    """Look into all queues of a RabbitMQ. Each message goes back to its place; it then counts as delivered once more.

    What a worker has in hand is not seen: it should have nothing in hand when this is asked. From a queue that has a
    consumer nothing is taken, because its events would take effect out of their order: they are only counted. So are
    those of quorum queues, which count how often a message was delivered and make it a dead letter in the end.
    """
    queued = QueueContents()
    management = ManagementApi(management_url or management_url_of(url), virtual_host_of(url), TYPE_TIMEOUT)
    with contextlib.closing(management), connected(url, "carpark verify") as connection:
        # Another number was set before, or is set where events come from: what waits there is not lost.
        while partitions < MOST_PARTITIONS and any(
            look(connection, partition_queue(queue, partitions)) for queue in EVENT_OF_QUEUE
        ):
            partitions += 1
        for name in (each for queue in all_queues(partitions) for each in with_companions(queue)):
            found = look(connection, name)
            if found is None:
                continue
            before = queued.waiting + queued.dead
            is_counted = name != xq_name(name) and found.consumer_count
            if not is_counted and (what := why_not_to_look(connection, name, management)):
                if name == xq_name(name):
                    raise QueueMismatch(name, what)
                is_counted = True
            with connection.channel() as channel:
                queued.take(_peek(channel, name, 0 if is_counted else min(found.message_count, most)))
            left = max(0, found.message_count - (queued.waiting + queued.dead - before))
            queued.unread += left
            queued.dead += left if name == xq_name(name) else 0
            queued.waiting += 0 if name == xq_name(name) else left
    return queued


def _peek(channel: Any, name: str, most: int) -> Iterator[Message]:
    for _ in range(most):
        try:
            method, _, body = channel.basic_get(name)
        except pika.exceptions.ChannelClosedByBroker as error:
            if error.reply_code != spec.RESOURCE_LOCKED:
                raise
            return  # a quorum queue with a single active consumer, whatever the setting says
        if method is None:
            return
        yield name, body
