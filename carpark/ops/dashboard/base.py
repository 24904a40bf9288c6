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
    """A queue with its companions."""

    name: str
    ready: int
    unacked: int
    delayed: int
    dead: int
    is_declared: bool = True


@dataclass(frozen=True)
class Worker:
    """A process that consumes from the queues."""

    name: str
    host: str
    process: str
    since: datetime | None
    in_hand: int


class Jobs(list[Job]):
    """The messages of a page."""

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
        """Find a queue."""
        for queue in self.queues:
            if queue.name == queue_name:
                return queue
        raise QueueUnknown(f"there is no queue {queue_name!r}")

    @abstractmethod
    def get_jobs(self, queue_name: str, cursor: int = 0, wanted: Wanted | None = None) -> tuple[int | None, Jobs]:
        """List a page of messages; bodies may be cut to `carpark.ops.dashboard.jobs.CUT` bytes."""

    @abstractmethod
    def get_job(self, queue_name: str, message_id: str) -> Job | None:
        """Find a message."""

    @abstractmethod
    def requeue(self, queue_name: str, wanted: Wanted, limit: int, body: bytes | None = None) -> int:
        """Send dead or delayed messages to their queue again, in their order, to be worked on now.

        Each copy is safe before the message is taken away: a crash in between leaves both, never none.
        """

    @abstractmethod
    def delete(self, queue_name: str, wanted: Wanted, limit: int) -> int:
        """Take dead or delayed messages away for good."""


def has_id(message_id: str) -> Wanted:
    """Make what tells one message."""
    return lambda job: job.message_id == message_id


def matches(text: str) -> Wanted:
    """Make what tells the messages that have a text in them."""
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
    """Say what a page lists."""
    ready = min(ready, REACH)
    start = max(0, min(cursor, ready - 1))
    stop = min(start + PAGE, ready)
    return start, stop, stop if stop < ready else None
