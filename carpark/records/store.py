"""The records: what Redis knows of every vehicle, and the one atomic step that changes it."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, cast

from carpark.domain.events import Event, StaySummary, VehicleEntered
from carpark.records.outbox import COUNTS, SINKS, Backlog, Outbox, read_stay, script, unavailable

if TYPE_CHECKING:
    import redis

INSIDE = "entry_plates"
ENTRIES = "carpark:entries"
"""How far the queue of entries has come; fields of a further partition begin with its number and ``/``."""
SEEN_ENTRIES = "carpark:seen:entry"
SEEN_EXITS = "carpark:seen:exit"
FORGOTTEN = "carpark:forgotten"
"""Digest of a plate that was forgotten to the times up to which it is; and the digests' key."""
_DIGEST_KEY = "key"


_PLATES = ("A1", "1A", "Ä1", "京1", "बा1")
"""Keys of the kind that plates are, to try rights on."""


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
    """The effect of one event.

    Args:
        key: ``kind/id`` of the event.
        outcome: What became of it.
        stay: The stay that it finished, as the outbox of each sink has it; empty if it finished none.
        error: Why the step failed for this event alone; then nothing was recorded.
        abandoned: Whether an entry is superseded by this one, or this one by a later one that is known already.
    """

    key: str
    outcome: Outcome | None
    stay: str = ""
    error: str = ""
    abandoned: bool = False

    @property
    def summary(self) -> StaySummary | None:
        """The summary of the stay that it finished, if it did."""
        return read_stay(self.stay) if self.stay else None


@dataclass(frozen=True)
class ForgottenPlates:
    """The plates that were forgotten, as far as they are still known: by digests with a key of this car park's.

    Args:
        key: The digests' key, in hexadecimal; empty while no plate was forgotten.
        times: Digest to the canonical times up to which the plate was forgotten, separated by spaces.
    """

    key: str
    times: Mapping[str, str]

    def digest(self, plate: str) -> str:
        """Name a plate so that only who knows it can tell which it is.

        Args:
            plate: A canonical plate.

        Returns:
            32 hexadecimal digits.
        """
        return hashlib.blake2b(plate.encode(), key=bytes.fromhex(self.key), digest_size=16).hexdigest()

    def of(self, plate: str) -> list[str]:
        """Say up to when a plate was forgotten.

        Args:
            plate: A canonical plate.

        Returns:
            The times, the earliest first; none for a plate that was not forgotten.
        """
        return self.times[digest].split() if self.key and (digest := self.digest(plate)) in self.times else []


@dataclass(frozen=True)
class Forgotten:
    """What was removed of a plate.

    Args:
        inside: When the vehicle entered, if it was inside.
        known: Whether anything was known of it.
        summaries: Summaries that sinks had not taken, once for each such sink.
    """

    inside: str
    known: bool
    summaries: int


_REACH = """
if redis.call('HGET', KEYS[1], ARGV[2] .. 'wanted') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], ARGV[2] .. 'reached', ARGV[1])
return 1
"""


class ExitsHeld(Exception):
    """Exits have to wait, because entries do.

    Args:
        lists: How many lists of entries were recorded: it tells whether they come on.
    """

    def __init__(self, lists: int) -> None:
        super().__init__("entries wait that may be earlier")
        self.lists = lists


class Records:
    """The records of one car park, in Redis or in this process.

    Args:
        client: A client of database 0 that gives text (`carpark.records.connect`).
        retention: Seconds that a finished stay's record, and the memory of an event's id, last.
        sinks: The names of the sinks that every summary goes to.
        clock: Seconds since the epoch; by default the clock of Redis, which is one for all workers.
    """

    def __init__(
        self,
        client: redis.Redis,
        retention: float,
        sinks: Sequence[str],
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._client, self._retention, self._sinks, self._clock = client, retention, tuple(sinks), clock
        self._join, self._outbox = script(client, "join"), script(client, "outbox")
        self._forget, self._reach = script(client, "forget"), client.register_script(_REACH)
        ours = [INSIDE, COUNTS, SEEN_ENTRIES, SEEN_EXITS, SINKS, ENTRIES]
        self._keys = [*ours, *(self.outbox(sink).key for sink in sinks)]

    def record(self, events: Sequence[Event]) -> list[Recorded]:
        """Record events, each in one atomic step; in one round trip.

        Repeating it with the same events changes nothing: they come back as duplicates.

        Args:
            events: Entries and exits, in any mixture.

        Returns:
            One effect per event, in their order.

        Raises:
            RecordsUnavailable: Redis is not there, or takes no writes for now; recording again later is safe.
        """
        return self._record(events, "")

    def record_entries(self, entries: Sequence[Event], partition: int = 0) -> list[Recorded]:
        """Record entries of a queue, and note how far it has come: exits do not overtake them.

        Args:
            entries: The entries.
            partition: That of their queue.

        Returns:
            One effect per entry, in their order.

        Raises:
            RecordsUnavailable: Redis is not there, or takes no writes for now; recording again later is safe.
        """
        return self._record(entries, "entries", partition=partition)

    def record_exits(self, exits: Sequence[Event], after: str, marker: str, partition: int = 0) -> list[Recorded]:
        """Record exits of a queue, unless entries wait that may be earlier.

        Args:
            exits: The exits.
            after: They do not wait when the entry recorded last is not earlier than this canonical time.
            marker: The id of a marker: nor when that was reached in the queue of entries.
            partition: That of both queues.

        Returns:
            One effect per exit, in their order.

        Raises:
            ExitsHeld: They have to wait; nothing was recorded, but which marker is waited for.
            RecordsUnavailable: Redis is not there, or takes no writes for now; recording again later is safe.
        """
        return self._record(exits, "exits", after, marker, partition)

    def reach(self, marker: str, partition: int = 0) -> bool:
        """Note that a marker was reached in the queue of entries: all before it are recorded.

        Args:
            marker: Its id; of one that nobody waits for nothing is noted.
            partition: That of the queue.

        Returns:
            Whether it is waited for.

        Raises:
            RecordsUnavailable: Redis is not there, or takes no writes for now; noting it again is safe.
        """
        with unavailable():
            return bool(self._reach(keys=[ENTRIES], args=[marker, _prefix(partition)]))

    def _record(
        self, events: Sequence[Event], how: str, after: str = "", marker: str = "", partition: int = 0
    ) -> list[Recorded]:
        now = self._clock() if self._clock else ""
        arguments: list[Any] = [now, self._retention, how, after, marker, _prefix(partition)]
        arguments += (len(self._sinks), *self._sinks)
        for event in events:
            arguments += (event.kind, event.id, event.vehicle_plate, event.time, event.to_json())
        with unavailable():
            results = self._join(keys=self._keys, args=arguments)
        if results and results[0][0] == "held":
            raise ExitsHeld(int(results[0][1]))
        return [_recorded(event, result) for event, result in zip(events, results, strict=True)]

    def rights(self) -> tuple[list[str], list[str]]:
        """Ask which rights this user has of those that recording and delivering take. Changes nothing.

        Returns:
            Commands, each with a key: those that it may run, and those that it may not. None before Redis 7.

        Raises:
            RecordsUnavailable: Redis is not there, takes no writes for now, or refuses the question itself.
        """
        arguments: list[Any] = ["rights", json.dumps(self._keys), "", "", "", "", len(self._sinks), *self._sinks]
        for plate in _PLATES:
            arguments += (VehicleEntered.kind, "", plate, "", "")
        with unavailable():
            granted, denied = self._join(args=arguments)
        for sink in self._sinks:
            further = self.outbox(sink).rights()
            granted, denied = granted + further[0], denied + further[1]
        return granted, denied

    def outbox(self, sink: str) -> Outbox:
        """Give the outbox of a sink.

        Args:
            sink: Its name.

        Returns:
            What it has not taken yet.
        """
        return Outbox(self._client, sink, self._outbox, self._clock)

    def reject(self, kind: str, partition: int = 0) -> None:
        """Count a message that was not an event.

        Args:
            kind: ``entry`` or ``exit``, after the queue that it came on.
            partition: That of the queue.

        Raises:
            RecordsUnavailable: Redis is not there, or takes no writes for now.
        """
        with unavailable(), self._client.pipeline() as pipe:
            pipe.hincrby(COUNTS, f"{kind}/rejected", 1)
            if kind == VehicleEntered.kind:
                pipe.hincrby(ENTRIES, f"{_prefix(partition)}lists", 1)  # exits that wait see that the queue moves
            pipe.execute()

    def counts(self) -> dict[str, int]:
        """Read the counts.

        Returns:
            ``entry/recorded``, ``exit/matched``, ``summaries``, ``summaries/<sink>/delivered`` and so on; a count
            that is still zero may be missing.

        Raises:
            RecordsUnavailable: Redis is not there.
        """
        with unavailable():
            counts = cast(dict[str, str], self._client.hgetall(COUNTS))
        return {name: int(value) for name, value in counts.items()}

    def inside(self) -> int:
        """Count the vehicles inside.

        Returns:
            How many plates are in ``entry_plates``.

        Raises:
            RecordsUnavailable: Redis is not there.
        """
        with unavailable():
            return self._client.scard(INSIDE)

    def backlogs(self) -> list[Backlog]:
        """Look at what each sink has not taken, also one that no worker has any more.

        Returns:
            A backlog for each of this object's sinks, then for each other one that there ever was.

        Raises:
            RecordsUnavailable: Redis is not there.
        """
        with unavailable():
            known = cast("set[str]", self._client.smembers(SINKS))
        return [self.outbox(sink).backlog() for sink in dict.fromkeys([*self._sinks, *sorted(known)])]

    def undelivered(self) -> int:
        """Count the summaries that a sink has not taken yet, once for each such sink.

        Returns:
            Those that wait and those that were given up.

        Raises:
            RecordsUnavailable: Redis is not there.
        """
        return sum(backlog.undelivered for backlog in self.backlogs())

    def forget(self, plate: str) -> Forgotten:
        """Remove a plate from the records. What happened stays counted, and the ids of its events stay known.

        Args:
            plate: A canonical plate.

        Returns:
            What was removed.

        Raises:
            RecordsUnavailable: Redis is not there, or takes no writes for now; forgetting again is safe.
        """
        with unavailable():
            self._client.hsetnx(FORGOTTEN, _DIGEST_KEY, secrets.token_hex(16))
            digest = self.forgotten().digest(plate)
            sinks = sorted(cast("set[str]", self._client.smembers(SINKS)))
        keys = [plate, INSIDE, COUNTS, SEEN_ENTRIES, SEEN_EXITS, ENTRIES, FORGOTTEN]
        inside, known, removed, stays = "", False, 0, None
        while stays is None or stays:  # again: a relay may move a stay on, from waiting to a batch, meanwhile
            stays = [(sink, *each) for sink in sinks for each in self.outbox(sink).of_plate(plate)]
            more = list(dict.fromkeys(key for _, key, _ in stays))
            given = [part for sink, key, member in stays for part in (more.index(key), member, sink)]
            now = self._clock() if self._clock else ""
            with unavailable():
                answer = self._forget(keys=[*keys, *more], args=[now, self._retention, digest, *given])
            inside, known, removed = inside or answer[0], known or bool(answer[1]), removed + answer[2]
        return Forgotten(inside, known or removed > 0, removed)

    def forgotten(self) -> ForgottenPlates:
        """Read which plates were forgotten.

        Returns:
            Those, by digests.

        Raises:
            RecordsUnavailable: Redis is not there.
        """
        with unavailable():
            fields = cast("dict[str, str]", self._client.hgetall(FORGOTTEN))
        return ForgottenPlates(fields.pop(_DIGEST_KEY, ""), fields)

    def ping(self) -> None:
        """Ask whether Redis is there.

        Raises:
            RecordsUnavailable: It is not.
        """
        with unavailable():
            self._client.ping()

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()


def _prefix(partition: int) -> str:
    return f"{partition}/" if partition else ""


def _recorded(event: Event, result: list[str]) -> Recorded:
    key = f"{event.kind}/{event.id}"
    outcome, stay, *further = result
    if outcome == "error":
        return Recorded(key, None, error=stay)
    return Recorded(key, Outcome(outcome), stay, abandoned=bool(further))
