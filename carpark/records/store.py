"""The records: what Redis knows of every vehicle, and the one atomic step that changes it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from typing import TYPE_CHECKING, Any, cast

from carpark.errors import RecordsUnavailable
from carpark.events import TIME_LENGTH, Event, StaySummary

if TYPE_CHECKING:
    import redis

INSIDE = "entry_plates"
COUNTS = "carpark:counts"
UNDELIVERED = "carpark:undelivered"
SEEN_ENTRIES = "carpark:seen:entry"
SEEN_EXITS = "carpark:seen:exit"


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
        key: ``kind/id`` of the event; with the sink's name it is the key of an undelivered summary.
        outcome: What became of it.
        summary: The summary of the stay that it finished, if it did and a sink still wants it.
        sinks: The sinks that have neither got the summary nor been promised a retry.
        error: Why the step failed for this event alone; then nothing was recorded.
        abandoned: Whether an entry is superseded by this one, or this one by a later one that is known already.
    """

    key: str
    outcome: Outcome | None
    summary: StaySummary | None = None
    sinks: tuple[str, ...] = ()
    error: str = ""
    abandoned: bool = False


class Records:
    """The records of one car park, in Redis or in this process.

    Args:
        client: A client of database 0 that gives text (`carpark.records.connect`).
        retention: Seconds that a finished stay's record, and the memory of an event's id, last.
        sinks: The names of the sinks that every summary goes to.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        client: redis.Redis,
        retention: float,
        sinks: Sequence[str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client, self._retention, self._sinks, self._clock = client, retention, tuple(sinks), clock
        self._join = client.register_script(_script("join"))
        self._settle = client.register_script(_script("settle"))

    def record(self, events: Sequence[Event]) -> list[Recorded]:
        """Record events, each in one atomic step; in one round trip.

        Repeating it with the same events changes nothing: they come back as duplicates, with the summaries that
        their sinks have not got yet.

        Args:
            events: Entries and exits, in any mixture.

        Returns:
            One effect per event, in their order.

        Raises:
            RecordsUnavailable: Redis is not there, or takes no writes for now; recording again later is safe.
        """
        arguments: list[Any] = [self._clock(), self._retention, len(self._sinks), *self._sinks]
        for event in events:
            arguments += (event.kind, event.id, event.vehicle_plate, event.time, event.to_json())
        with _unavailable():
            results = self._join(keys=[INSIDE, COUNTS, SEEN_ENTRIES, SEEN_EXITS, UNDELIVERED], args=arguments)
        return [_recorded(event, result) for event, result in zip(events, results, strict=True)]

    def settle(self, sink: str, keys: Sequence[str], outcome: Settled) -> int:
        """Note what became of summaries at a sink.

        Each is counted once for each thing that became of it: saying it again changes nothing, nor does a second
        retry.

        Args:
            sink: The sink's name.
            keys: The keys of `Recorded`.
            outcome: Delivered takes them off the undelivered; retried and failed leave them there, and are not handed
                out with a repeated event any more.

        Returns:
            How many it counted.

        Raises:
            RecordsUnavailable: Redis is not there, or takes no writes for now.
        """
        with _unavailable():
            return int(self._settle(keys=[UNDELIVERED, COUNTS], args=[sink, outcome.value, *keys]))

    def reject(self, kind: str) -> None:
        """Count a message that was not an event.

        Args:
            kind: ``entry`` or ``exit``, after the queue that it came on.

        Raises:
            RecordsUnavailable: Redis is not there, or takes no writes for now.
        """
        with _unavailable():
            self._client.hincrby(COUNTS, f"{kind}/rejected", 1)

    def counts(self) -> dict[str, int]:
        """Read the counts.

        Returns:
            ``entry/recorded``, ``exit/matched``, ``summaries``, ``summaries/<sink>/delivered`` and so on; a count
            that is still zero may be missing.

        Raises:
            RecordsUnavailable: Redis is not there.
        """
        with _unavailable():
            counts = cast(dict[str, str], self._client.hgetall(COUNTS))
        return {name: int(value) for name, value in counts.items()}

    def inside(self) -> int:
        """Count the vehicles inside.

        Returns:
            How many plates are in ``entry_plates``.

        Raises:
            RecordsUnavailable: Redis is not there.
        """
        with _unavailable():
            return self._client.scard(INSIDE)

    def undelivered(self) -> int:
        """Count the summaries that a sink has not got yet, once for each such sink.

        Returns:
            Those on their way, those that wait for a retry, and those given up.

        Raises:
            RecordsUnavailable: Redis is not there.
        """
        with _unavailable():
            return self._client.hlen(UNDELIVERED)

    def ping(self) -> None:
        """Ask whether Redis is there.

        Raises:
            RecordsUnavailable: It is not.
        """
        with _unavailable():
            self._client.ping()

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()


def _script(name: str) -> str:
    return resources.files(__package__).joinpath(f"{name}.lua").read_text(encoding="utf-8")


def _recorded(event: Event, result: list[str]) -> Recorded:
    key = f"{event.kind}/{event.id}"
    outcome, stay, *further = result
    if outcome == "error":
        return Recorded(key, None, error=stay)
    if not stay:
        return Recorded(key, Outcome(outcome), abandoned=bool(further))
    entry, exit_ = stay[:TIME_LENGTH], stay[TIME_LENGTH + 1 : 2 * TIME_LENGTH + 1]
    plate, _, id_ = stay[2 * TIME_LENGTH + 2 :].partition(" ")
    return Recorded(key, Outcome(outcome), StaySummary.of_stay(id_, plate, entry, exit_), tuple(further))


@contextmanager
def _unavailable() -> Iterator[None]:
    from redis import RedisError

    try:
        yield
    except RedisError as error:
        # Also what Redis answers to a call as a whole: no writes for now (OOM, READONLY, MISCONF ...), no permission, a
        # key of ours that holds something else. No event is to blame for that, so none may be given up for it.
        raise RecordsUnavailable(f"Redis: {' '.join(str(error).split())}") from error
