"""What the dashboard asks of a broker. dramatiq-dashboard's own interface, over Redis, has most of these names too."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from carpark.domain.canonical import canonical_plate
from carpark.errors import CarparkError
from carpark.ops.dashboard.jobs import Job

PAGE = 50
"""How many messages a page lists."""

REACH = 1000
"""How far pages go; what is behind is for ``carpark dlq``."""

Wanted = Callable[[Job], bool]


class QueueUnknown(CarparkError):
    """There is no such queue."""


@dataclass(frozen=True)
class Queue:
    """A queue with its companions.

    Args:
        name: The queue's name.
        ready: Messages that wait.
        unacked: Messages that a worker has in hand.
        delayed: Messages of the delay queue, which nothing of ours uses.
        dead: Dead letters.
        is_declared: Whether all three are there.
    """

    name: str
    ready: int
    unacked: int
    delayed: int
    dead: int
    is_declared: bool = True


@dataclass(frozen=True)
class Worker:
    """A process that consumes from the queues.

    Args:
        name: What it calls itself.
        host: The machine that it runs on.
        process: Its id there, or what else tells it from others.
        since: When it connected, if that is known.
        in_hand: Messages that it has in hand.
    """

    name: str
    host: str
    process: str
    since: datetime | None
    in_hand: int


class Jobs(list[Job]):
    """The messages of a page.

    Args:
        jobs: The messages, in their order in the queue.
        start: The place of the first, from 0.
        total: How many there are in all, listed or not; of those that were asked for, as far as pages go.
        note: What people should know when some cannot be listed, or not be moved.
        is_fixed: Whether there is nothing that could be moved.
    """

    def __init__(
        self, jobs: Iterable[Job] = (), start: int = 0, total: int = 0, note: str = "", *, is_fixed: bool = False
    ) -> None:
        super().__init__(jobs)
        self.start, self.total, self.note, self.is_fixed = start, total, note, is_fixed


class Interface(ABC):
    """Queues, workers and messages of a broker. Looking changes nothing; a message that is moved is never lost.

    The names of queues are those of the broker: a queue, its ``.DQ`` or its ``.XQ``. All methods may be called from
    several threads, and raise `carpark.errors.BrokerUnavailable` when the broker cannot be asked.
    """

    title: str
    """What this broker is called on the pages."""

    @property
    @abstractmethod
    def queues(self) -> list[Queue]:
        """All queues, without companions."""

    @property
    @abstractmethod
    def workers(self) -> list[Worker]:
        """All worker processes."""

    def get_queue(self, queue_name: str) -> Queue:
        """Find a queue.

        Args:
            queue_name: Its name, without companions.

        Returns:
            The queue with its counts.

        Raises:
            QueueUnknown: It is not one of ours.
        """
        for queue in self.queues:
            if queue.name == queue_name:
                return queue
        raise QueueUnknown(f"there is no queue {queue_name!r}")

    @abstractmethod
    def get_jobs(self, queue_name: str, cursor: int = 0, wanted: Wanted | None = None) -> tuple[int | None, Jobs]:
        """List a page of messages; bodies may be cut to `carpark.ops.dashboard.jobs.CUT` bytes.

        Args:
            queue_name: A queue or a companion.
            cursor: The place of the first, from 0, among those that are listed.
            wanted: Tells which are listed; all by default.

        Returns:
            Where the next page starts, or None; and the messages.
        """

    @abstractmethod
    def get_job(self, queue_name: str, message_id: str) -> Job | None:
        """Find a message.

        Args:
            queue_name: The queue or companion that it is in.
            message_id: Its id here.

        Returns:
            The message with its whole body, or None when it is not there any more.
        """

    @abstractmethod
    def requeue(self, queue_name: str, wanted: Wanted, limit: int, body: bytes | None = None) -> int:
        """Send dead or delayed messages to their queue again, in their order, to be worked on now.

        Each copy is safe before the message is taken away: a crash in between leaves both, never none.

        Args:
            queue_name: A queue's ``.DQ`` or ``.XQ``.
            wanted: Tells which.
            limit: How many at most.
            body: What is sent instead of their own bodies.

        Returns:
            How many were sent.
        """

    @abstractmethod
    def delete(self, queue_name: str, wanted: Wanted, limit: int) -> int:
        """Take dead or delayed messages away for good.

        Args:
            queue_name: A queue's ``.DQ`` or ``.XQ``.
            wanted: Tells which.
            limit: How many at most.

        Returns:
            How many were taken away.
        """


def has_id(message_id: str) -> Wanted:
    """Make what tells one message.

    Args:
        message_id: Its id here.

    Returns:
        Tells whether a message is that one.
    """
    return lambda job: job.message_id == message_id


def matches(text: str) -> Wanted:
    """Make what tells the messages that have a text in them.

    Args:
        text: Part of the reason, the actor or the beginning of the body, in any case; or a plate, in any spelling;
            nothing for all.

    Returns:
        Tells whether a message is one of them.
    """
    plate, text = _canonical(text), text.casefold()

    def wanted(job: Job) -> bool:
        said = f"{job.error} {job.actor_name} {job.summary} {job.text}" if text else ""
        return text in said.casefold() or (plate is not None and plate == _canonical(job.plate))

    return wanted


def _canonical(plate: str) -> str | None:
    try:
        return canonical_plate(plate)
    except ValueError:
        return None


def page_of(ready: int, cursor: int) -> tuple[int, int, int | None]:
    """Say what a page lists.

    Args:
        ready: How many messages there are.
        cursor: The place of the first, as somebody asked for it.

    Returns:
        The places of the first and behind the last, and where the next page starts, or None.
    """
    ready = min(ready, REACH)
    start = max(0, min(cursor, ready - 1))
    stop = min(start + PAGE, ready)
    return start, stop, stop if stop < ready else None
