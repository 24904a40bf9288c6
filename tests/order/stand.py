"""The system of one run: a backlog that is published before any worker starts, and who of the workers is at it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pika
from dramatiq.common import xq_name

from carpark.domain.events import Event
from tests.faults.rig import Broker, Rig
from tests.faults.service import Service, children_of
from tests.order import checker
from tests.order.consumers import Consumer, Consumers
from tests.order.load import publish
from tests.support.helpers import eventually
from tests.support.servers import RedisServer

SETTLED_SECONDS = 300.0
"""Seconds after the last fault within which everything has to be done."""

WAITING_AT_LEAST = 1000
"""How many messages wait in the queue when its active process is hit."""

_BUSY_SECONDS = 60.0


@dataclass(frozen=True)
class Shape:
    """Workers, and what each is made of.

    Args:
        processes: Processes of a worker.
        threads: Threads of each.
        workers: How many such workers, as on so many machines.
    """

    processes: int
    threads: int
    workers: int = 1

    def __str__(self) -> str:
        each = f"{self.processes}x{self.threads}"
        return each if self.workers == 1 else f"{self.workers} of {each}"


@dataclass(frozen=True)
class Active:
    """A process that has just had events of a queue recorded, while another worker stands by.

    Args:
        pid: The process.
        port: The port of the connection by which it consumes the queue, as RabbitMQ sees it.
        worker: The worker that it belongs to.
    """

    pid: int
    port: int
    worker: Service


class NotHit(AssertionError):
    """The workers were done before the one at work could be found: the run says nothing."""


class Stand(Rig):
    """The system of one run, without cameras; when it is entered no worker runs.

    Args:
        rabbitmq: The broker; its virtual host has none of our queues.
        redis_server: The records, running and empty.
        folder: Where files and logs go.
        shape: The workers.
        queue_type: ``CARPARK_QUEUE_TYPE``.
        partitions: ``CARPARK_PARTITIONS``.
        through_proxy: Whether a proxy stands before the broker, so that connections can be cut.
    """

    def __init__(
        self,
        rabbitmq: Broker,
        redis_server: RedisServer,
        folder: Path,
        shape: Shape,
        queue_type: str,
        partitions: int,
        *,
        through_proxy: bool = False,
    ) -> None:
        super().__init__(
            rabbitmq,
            redis_server,
            folder,
            worker_options=["--processes", str(shape.processes), "--threads", str(shape.threads)],
            workers=shape.workers,
            cameras=False,
            through_proxy=through_proxy,
            environ={"CARPARK_QUEUE_TYPE": queue_type, "CARPARK_PARTITIONS": str(partitions)},
        )
        self.consumers = Consumers(rabbitmq.management_url, rabbitmq.url)
        self.published: dict[str, list[str]] = {}
        self.started = 0.0

    def begin(self) -> None:
        """Start the writer alone."""
        self.writer.start()

    def work_on(self, events: Sequence[Event]) -> None:
        """Publish a backlog and, when RabbitMQ has all of it, start the workers.

        Where there are several, none gets anything recorded before all are connected.

        Args:
            events: The events in the order of their times.
        """
        self.published = publish(
            events, self.rabbitmq.url, self.journals, self._queue_type, self._partitions, "backlog"
        )
        checker.begin(self._client)
        if len(self.workers) > 1:
            self._client.client_pause(int(_BUSY_SECONDS * 1000), all=False)
        with ThreadPoolExecutor(len(self.workers)) as pool:
            list(pool.map(Service.start, self.workers))
        if len(self.workers) > 1:
            eventually(lambda: all(map(self._is_connected, self.workers)), _BUSY_SECONDS, "all workers are connected")
            self._client.client_unpause()
        self.started = time.monotonic()

    def recorded(self) -> int:
        """Count the events that have taken effect."""
        return len(checker.effects(self._client))

    def active(self, queue: str, after: int) -> Active:
        """Find the process that works on a queue, while another worker stands by and there is much left to do.

        RabbitMQ has it as the active consumer, or as one of the active ones, before and after further events of the
        queue took effect. So a single active consumer has just had these recorded.

        Args:
            queue: An event queue.
            after: How many of its events have taken effect at least.

        Returns:
            The process.

        Raises:
            NotHit: Too few messages wait by now.
            AssertionError: No other worker stands by, or the queue stands still.
        """
        its = set(self.published[queue])

        def done() -> int:
            return len(its.intersection(checker.effects(self._client)))

        def at_work() -> Consumer | None:
            before, goal = self._first_active(queue), max(done() + 1, after)
            if self._ready(queue) < WAITING_AT_LEAST:
                raise NotHit(f"only {self._ready(queue)} messages wait in {queue} when it is to be hit")
            eventually(lambda: done() >= goal, _BUSY_SECONDS, f"{goal} events of {queue} have taken effect", 0.005)
            return before if before == self._first_active(queue) else None

        found = None
        while found is None:
            found = at_work()
        (worker,) = [each for each in self.workers if found.pid in _children(each)]
        assert any(self._is_connected(each) for each in self.workers if each is not worker), "nobody stands by"
        return Active(found.pid, found.port, worker)

    def _first_active(self, queue: str) -> Consumer | None:
        return min((each for each in self.consumers.of(queue) if each.active), key=lambda each: each.port, default=None)

    def _is_connected(self, worker: Service) -> bool:
        return not set(_children(worker)).isdisjoint(self.consumers.pids().values())

    def left(self) -> dict[str, Any]:
        """Say what is under way.

        What RabbitMQ says of a quorum queue may be 5 s old. So beside that every event must have taken effect, or be a
        dead letter.
        """
        left = super().left()
        if "away" not in left:
            dead = sum(self._ready(xq_name(queue)) for queue in self.published)
            waiting = sum(map(len, self.published.values())) - self.recorded() - dead
            left |= {"not recorded": waiting} if waiting > 0 else {}
        return left

    def order(self) -> dict[str, checker.Order]:
        """Say of each queue in which order its events took effect."""
        return checker.check(self._client, self.published)

    def _ready(self, queue: str) -> int:
        with pika.BlockingConnection(self._direct()) as connection:
            return int(connection.channel().queue_declare(queue, passive=True).method.message_count)


def _children(worker: Service) -> list[int]:
    return children_of(worker.process.pid) if worker.process else []
