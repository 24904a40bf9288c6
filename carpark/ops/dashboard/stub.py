"""The dashboard's view of the in-process broker: it is looked at directly."""

from __future__ import annotations

import os
import socket
import threading
from datetime import UTC, datetime
from typing import Any, cast

from dramatiq.common import q_name, xq_name

from carpark.broker import StubBroker
from carpark.broker.stub import StoredMessage
from carpark.ops.dashboard.base import Interface, Jobs, Queue, Wanted, Worker, has_id, page_of
from carpark.ops.dashboard.jobs import CUT, Job, read_job
from carpark.rabbitmq.properties import without_reason


class StubInterface(Interface):
    """Queues, worker and messages of the in-process broker."""

    title = "in-process broker"

    def __init__(self, broker: StubBroker, name: str = "carpark run") -> None:
        self._broker, self._name = broker, name
        self._since = datetime.now(UTC)
        self._moving = threading.Lock()

    @property
    def queues(self) -> list[Queue]:
        return [Queue(name, **cast(Any, self._broker.counts(name))) for name in self._broker.names]

    @property
    def workers(self) -> list[Worker]:
        """This process."""
        in_hand = sum(queue.unacked + queue.delayed for queue in self.queues)
        return [Worker(self._name, socket.gethostname(), str(os.getpid()), self._since, in_hand)]

    def get_jobs(self, queue_name: str, cursor: int = 0, wanted: Wanted | None = None) -> tuple[int | None, Jobs]:
        """List a page of messages; see `Interface.get_jobs`."""
        letters = self._broker.messages(queue_name)
        if wanted is not None:
            letters = [letter for letter in letters if wanted(_job(queue_name, letter))]
        start, stop, following = page_of(len(letters), cursor)
        jobs = [_job(queue_name, letter) for letter in letters[start:stop]]
        return following, Jobs(jobs, start, len(letters), is_fixed=queue_name != xq_name(queue_name) or not jobs)

    def get_job(self, queue_name: str, message_id: str) -> Job | None:
        """Find a message; see `Interface.get_job`."""
        wanted = has_id(message_id)
        letters = (letter for letter in self._broker.messages(queue_name) if wanted(_job(queue_name, letter)))
        return next((_job(queue_name, letter, len(letter.body)) for letter in letters), None)

    def requeue(self, queue_name: str, wanted: Wanted, limit: int, body: bytes | None = None) -> int:
        """Send dead letters to their queue again; see `Interface.requeue`."""

        def send(letter: StoredMessage) -> None:
            own = letter.body if body is None else body
            self._broker.publish(q_name(queue_name), own, without_reason(letter.headers))

        return self._work(queue_name, wanted, limit, send)

    def delete(self, queue_name: str, wanted: Wanted, limit: int) -> int:
        """Take dead letters away for good; see `Interface.delete`."""
        return self._work(queue_name, wanted, limit, lambda letter: None)

    def _work(self, queue_name: str, wanted: Wanted, limit: int, settle: Any) -> int:
        if queue_name != xq_name(queue_name):
            return 0  # the worker is about to take the others
        dead = self._broker.dead[q_name(queue_name)]
        with self._moving:
            # Workers append meanwhile; only this takes away, so places stay right when the last ones go first.
            places = [place for place, letter in enumerate(list(dead)) if wanted(_job(queue_name, letter))][:limit]
            for place in places:
                settle(dead[place])
            for place in reversed(places):
                del dead[place]
        return len(places)


def _job(queue_name: str, letter: StoredMessage, cut: int = CUT) -> Job:
    return read_job(queue_name, letter.body[:cut], len(letter.body), letter.headers, {})
