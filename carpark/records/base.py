"""The contract of the records, of which there are two: `carpark.records.memory` and `carpark.records.redis`."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from carpark.domain.events import Event, StaySummary

MOST = 1000
"""Summaries of a batch at most. A stay takes 0.8 KiB at most (an id of 128 characters), so a batch is below 1 MiB."""

SILENCE = 30.0
"""Seconds without a relay that asks, which each does every second, after which a sink is one that no worker has."""


class Outcome(StrEnum):
    """What became of an event."""

    RECORDED = "recorded"
    MATCHED = "matched"
    UNMATCHED = "unmatched"
    DUPLICATE = "duplicate"


class Settled(StrEnum):
    """What became of a summary at a sink."""

    DELIVERED = "delivered"
    RETRIED = "retried"
    FAILED = "failed"


@dataclass(frozen=True)
class Recorded:
    """The effect of one event."""

    key: str
    outcome: Outcome | None
    stay: StaySummary | str | None = None
    error: str = ""
    abandoned: bool = False

    @property
    def summary(self) -> StaySummary | None:
        """The summary of the stay that it finished, if it did."""
        return read_stay(self.stay) if isinstance(self.stay, str) else self.stay


def read_stay(stay: str) -> StaySummary:
    """Read a stay as Redis keeps it, as JSON."""
    fields: Mapping[str, str] = json.loads(stay)
    return StaySummary.of_stay(
        fields["id"], fields["vehicle_plate"], fields["entry_date_time"], fields["exit_date_time"]
    )


class ExitsHeld(Exception):
    """Exits have to wait, because entries do."""

    def __init__(self, lists: int) -> None:
        super().__init__("entries wait that may be earlier")
        self.lists = lists


@dataclass(frozen=True)
class Batch:
    """Summaries that are offered together, under one number however often, and by one relay at a time."""

    number: int
    attempt: int
    failures: int
    alone: bool
    summaries: tuple[StaySummary, ...]


@dataclass
class Settlement:
    """What became of the members of a batch."""

    delivered: list[str] | None = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    alone: dict[str, float] = field(default_factory=dict)
    last: list[str] = field(default_factory=list)
    error: str = ""
    delay: float = 0.0


@dataclass(frozen=True)
class Backlog:
    """What a sink has not taken, and how it is."""

    sink: str
    waiting: int
    alone: int
    dead: int
    age: float
    attempt: int
    failing: float | None
    next_attempt: float
    error: str
    asked: float | None

    @property
    def undelivered(self) -> int:
        """How many it has not taken: those that wait and those that were given up."""
        return self.waiting + self.dead

    @property
    def has_worker(self) -> bool:
        """Whether a worker brings it its summaries."""
        return self.asked is not None and self.asked < SILENCE

    @property
    def is_stranded(self) -> bool:
        """Whether something waits for it, and no worker has it."""
        return self.waiting > 0 and not self.has_worker


@dataclass(frozen=True)
class Snapshot:
    """The records in numbers; those of Redis are read one after another, so they may be a few events apart."""

    at: float
    counts: Mapping[str, int]
    inside: int
    backlogs: Sequence[Backlog]

    @property
    def undelivered(self) -> int:
        """How many summaries a sink has not taken yet, once for each such sink."""
        return sum(backlog.undelivered for backlog in self.backlogs)


@dataclass(frozen=True)
class ForgottenPlates:
    """The plates that were forgotten, as far as they are still known: by digests with a key of this car park's."""

    key: str
    times: Mapping[str, str]

    def digest(self, plate: str) -> str:
        """Name a canonical plate so that only who knows it can tell which it is."""
        return hashlib.blake2b(plate.encode(), key=bytes.fromhex(self.key), digest_size=16).hexdigest()

    def of(self, plate: str) -> list[str]:
        """Say up to when a canonical plate was forgotten, the earliest time first."""
        return self.times[digest].split() if self.key and (digest := self.digest(plate)) in self.times else []


@dataclass(frozen=True)
class Forgotten:
    """What was removed of a plate."""

    inside: str
    known: bool
    summaries: int


@dataclass(frozen=True)
class Server:
    """What a server that keeps the records says of itself."""

    database: int
    info: Mapping[str, Any] | None
    fsync: str
    ahead: float | None
    exits: int


Rights = tuple[Sequence[str], Sequence[str]]
"""Commands, each with a key: those that this user may run, and those that it may not. Both empty where nobody says."""


class Outbox(ABC):
    """The transactional outbox of one sink: finished stays that it has not taken, kept by the step that finished them.

    Every step is atomic, goes by the records' clock, and can be repeated, as those of `Records`.
    """

    @abstractmethod
    def take(self, lease: float, most: int = MOST, *, whatever: bool = False) -> Batch | float:
        """Take the batch that is to be offered now, with a lease in seconds: until its end nobody else is given it.

        Where there is none, the seconds for which nobody is given one; negative if it is only that nothing waits now.
        Who takes `whatever` there is, due or not, is no relay, and does not count as a worker.
        """

    @abstractmethod
    def settle(self, batch: Batch, became: Settlement) -> tuple[int, int, int]:
        """Note what became of a batch, which ends its lease; members that are not named stay in it.

        Gives how many it counted as delivered, retried and failed, each member once for each. Of a batch that is
        another's by now nothing changes but what was delivered.
        """

    @abstractmethod
    def settle_and_take(
        self, batch: Batch, became: Settlement, lease: float, most: int = MOST
    ) -> tuple[tuple[int, int, int], Batch | float]:
        """Settle a batch, and in the same step take the next: what was recorded meanwhile is in that."""

    @abstractmethod
    def put_back(self, summary: StaySummary) -> bool:
        """Have a summary that was given up wait again as if it were new; False, and nothing, if it is not held so."""

    @abstractmethod
    def backlog(self) -> Backlog:
        """Look at what the sink has not taken."""

    @abstractmethod
    def stays(self) -> Iterator[tuple[StaySummary, str]]:
        """Read all that the sink has not taken, each with ``waiting`` or ``dead``; one that moves on perhaps twice."""


class Records(ABC):
    """The records of one car park. Plates and times are canonical.

    Every step is atomic. While they are away, or take no writes for now, it raises `RecordsUnavailable`; to repeat it
    is safe.
    """

    @abstractmethod
    def record(self, events: Sequence[Event]) -> list[Recorded]:
        """Record events, each in one atomic step. The same events again change nothing: they are duplicates."""

    @abstractmethod
    def record_entries(self, entries: Sequence[Event], partition: int = 0) -> list[Recorded]:
        """Record entries of the queue of a partition, and note how far it has come: exits do not overtake them."""

    @abstractmethod
    def record_exits(self, exits: Sequence[Event], after: str, marker: str, partition: int = 0) -> list[Recorded]:
        """Record exits of the queue of a partition, unless entries wait that may be earlier.

        They pass when the entry recorded last is not earlier than `after`, or the marker was reached in the queue of
        entries. Otherwise nothing is recorded, but that this marker is waited for, and `ExitsHeld` is raised.
        """

    @abstractmethod
    def reach(self, marker: str, partition: int = 0) -> bool:
        """Note that a marker was reached in the queue of entries, and say whether it is waited for."""

    @abstractmethod
    def reject(self, kind: str, partition: int = 0) -> None:
        """Count a message that was not an event, by the kind of its queue, ``entry`` or ``exit``."""

    @abstractmethod
    def outbox(self, sink: str) -> Outbox:
        """Give the outbox of a sink."""

    @abstractmethod
    def forget(self, plate: str) -> Forgotten:
        """Remove a plate from the records. What happened stays counted, and the ids of its events stay known."""

    @abstractmethod
    def forgotten(self) -> ForgottenPlates:
        """Read which plates were forgotten."""

    @abstractmethod
    def now(self) -> float:
        """Read the records' clock: seconds since the epoch."""

    @abstractmethod
    def counts(self) -> dict[str, int]:
        """Read the counts of `Snapshot`."""

    @abstractmethod
    def inside(self) -> int:
        """Count the vehicles inside."""

    @abstractmethod
    def backlogs(self) -> list[Backlog]:
        """Look at what each sink has not taken: this object's sinks, then each other one that there ever was."""

    def snapshot(self) -> Snapshot:
        """Look at the records in numbers."""
        return Snapshot(self.now(), self.counts(), self.inside(), self.backlogs())

    def undelivered(self) -> int:
        """Count the summaries that a sink has not taken yet, once for each such sink."""
        return sum(backlog.undelivered for backlog in self.backlogs())

    @abstractmethod
    def vehicles(self) -> Iterator[tuple[str, str]]:
        """Read who is inside: plate and time of entry; one perhaps twice."""

    @abstractmethod
    def known(self, events: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        """Pick the events, kind and id of each, that were processed, as far as that is remembered."""

    def rights(self) -> Rights:
        """Ask which rights this user has of those that recording and delivering take. Changes nothing."""
        return [], []

    def server(self, since: float) -> Server | None:
        """Ask the server, if there is one, about itself, and for the exits of so many seconds until now."""
        return None

    def adopt(self) -> int:
        """Put what an earlier version kept for the sinks into the outbox of each; give how many summaries there were.

        Each is in one of both places whenever this is killed; no worker uses the records meanwhile.
        """
        return 0

    def close(self) -> None:  # noqa: B027 - in this process there is nothing to let go of
        """Let go of connections."""
