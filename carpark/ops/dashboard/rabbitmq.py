"""The dashboard's view of RabbitMQ: the management API to look, an AMQP connection of its own to take and to move."""

from __future__ import annotations

import contextlib
import re
import threading
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime

from dramatiq.common import q_name, xq_name

from carpark.ops.dashboard.base import REACH, Interface, Jobs, Queue, Wanted, Worker, has_id, page_of
from carpark.ops.dashboard.jobs import CUT, SHOWN, Job, job_of, of_job, read_job
from carpark.rabbitmq.management import Connection, ManagementApi, Peeked, QueueTotals
from carpark.rabbitmq.moving import Mover
from carpark.rabbitmq.topology import CLASSIC, all_queues, with_companions
from carpark.settings import Settings

_TITLE = re.compile(r"(.+) ([^ :]+):(\d+)")

_QUORUM = (
    "Not listed: this is a {kind} queue, which counts each look at a message as a delivery and gives it up after a "
    "few. "
)
_DEAD_ARE_CLASSIC = "Dead letters can be looked at as often as you like."
_NOT_OURS = "carpark's own is a classic one: stop the workers and run `carpark queues --migrate`."
_CONSUMED = (
    "Not listed: a worker takes messages from this queue right now, and looking at them would put them out of order. "
    "Stop the workers to look."
)


class RabbitmqInterface(Interface):
    """Queues, workers and messages of RabbitMQ."""

    title = "RabbitMQ"

    def __init__(self, settings: Settings) -> None:
        self._queues = all_queues(settings.partitions)
        self._management = ManagementApi.of(settings)
        self._mover = Mover(settings.broker_url, management=self._management)
        # Two who take messages of one queue at the same time see gaps where the other one holds them.
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    @property
    def queues(self) -> list[Queue]:
        """All queues, also those that are not declared yet."""
        totals = self._management.queues()
        return [_queue(name, totals) for name in self._queues]

    @property
    def workers(self) -> list[Worker]:
        """The processes that consume from our queues."""
        # Who reads dead letters is no worker.
        ours = {each for name in self._queues for each in with_companions(name)[:2]}
        consuming = {each.connection for each in self._management.consumers() if each.queue in ours}
        in_hand = self._management.in_hand() if consuming else {}
        processes: defaultdict[tuple[str, str], list[Connection]] = defaultdict(list)
        for connection in self._management.connections() if consuming else ():
            if connection.name in consuming:
                processes[connection.title or connection.name, connection.host].append(connection)
        return [_worker(title, connections, in_hand) for (title, _), connections in sorted(processes.items())]

    def get_jobs(self, queue_name: str, cursor: int = 0, wanted: Wanted | None = None) -> tuple[int | None, Jobs]:
        """List a page of messages; see `Interface.get_jobs`."""
        totals = self._management.queues().get(queue_name)
        if totals is None:
            return None, Jobs(note="This queue is not declared yet: carpark queues declares it.", is_fixed=True)
        ready = totals.ready or 0
        note = self._why_not(totals)
        if note:
            return None, Jobs(total=ready, note=note, is_fixed=not ready)
        peeked = self._peek(queue_name, page_of(ready, cursor)[1] if wanted is None else min(ready, REACH))

        def read(each: Peeked) -> Job:  # not of all at once: what a job understands takes more memory than its bytes
            return read_job(queue_name, each.body, each.size, each.headers, each.properties)

        if wanted is not None:
            peeked = [each for each in peeked if wanted(read(each))]
            ready = len(peeked)
        start, stop, following = page_of(ready, cursor)
        return following, Jobs(map(read, peeked[start:stop]), start, ready, is_fixed=not peeked)

    def _peek(self, queue_name: str, count: int) -> list[Peeked]:
        with self._locks[queue_name]:
            return self._management.peek(queue_name, count, CUT) if count else []

    def _why_not(self, totals: QueueTotals) -> str:
        if totals.kind != CLASSIC:
            is_dead = totals.name == xq_name(totals.name)
            return _QUORUM.format(kind=totals.kind) + (_NOT_OURS if is_dead else _DEAD_ARE_CLASSIC)
        is_main = totals.name == q_name(totals.name)
        if is_main and any(each.queue == totals.name for each in self._management.consumers()):
            return _CONSUMED
        return ""

    def get_job(self, queue_name: str, message_id: str) -> Job | None:
        """Find a message; see `Interface.get_job`."""
        totals = self._management.queues().get(queue_name)
        if totals is None or self._why_not(totals):
            return None
        wanted = has_id(message_id)
        with self._locks[queue_name], contextlib.closing(self._mover.walk(queue_name, SHOWN)) as messages:
            return next((job_of(message, None) for message in messages if wanted(job_of(message))), None)

    def requeue(self, queue_name: str, wanted: Wanted, limit: int, body: bytes | None = None) -> int:
        """Send messages to their queue again; see `Interface.requeue`."""
        with self._locks[queue_name]:
            return self._mover.requeue(queue_name, of_job(wanted), limit, body)

    def delete(self, queue_name: str, wanted: Wanted, limit: int) -> int:
        """Take messages away for good; see `Interface.delete`."""
        with self._locks[queue_name]:
            return self._mover.delete(queue_name, of_job(wanted), limit)


def _queue(name: str, totals: Mapping[str, QueueTotals]) -> Queue:
    found = [totals.get(each) for each in with_companions(name)]
    main, delayed, dead = ((each.ready or 0, each.unacked or 0) if each else (0, 0) for each in found)
    return Queue(name, *main, delayed=sum(delayed), dead=sum(dead), is_declared=None not in found)


def _worker(title: str, connections: list[Connection], in_hand: Mapping[str, int]) -> Worker:
    first = connections[0]
    match = _TITLE.fullmatch(title)
    name, host, process = match.groups() if match else (title, first.host, _port_of(first.name))
    since: datetime | None = min((each.since for each in connections if each.since), default=None)
    return Worker(name, host, process, since, sum(in_hand.get(each.name, 0) for each in connections))


def _port_of(connection_name: str) -> str:
    return connection_name.partition(" ")[0].rpartition(":")[2]
