"""Reads what the records know: vehicles inside, summaries under way, ids that were processed, and the counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from carpark.domain.events import format_time
from carpark.domain.pairing import ENTRY, EXIT
from carpark.errors import RecordsUnavailable
from carpark.ops.audit.facts import INSIDE, Facts, under_way_to
from carpark.records import Backlog, ForgottenPlates, Records, connect
from carpark.records.connection import is_refusal, remedy, words
from carpark.records.store import INSIDE as PLATES_INSIDE
from carpark.records.store import SEEN_ENTRIES, SEEN_EXITS

if TYPE_CHECKING:
    import redis

SEEN = {ENTRY: SEEN_ENTRIES, EXIT: SEEN_EXITS}
_BATCH = 1000
_Lookup = tuple[int, str]


class Kept:
    """The records as the audit reads them.

    Args:
        url: The records' URL; ``memory://`` names those of this process.
        retention: Seconds for which they remember ids, by the clock of Redis.
    """

    def __init__(self, url: str, retention: float) -> None:
        self._url = url
        self._client: redis.Redis = connect(url)
        self._records = Records(self._client, retention, ())
        self._retention = retention

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def counts(self) -> dict[str, int]:
        """Read the counts.

        Returns:
            ``carpark:counts``.

        Raises:
            RecordsUnavailable: Redis is not there.
        """
        return self._records.counts()

    def forgotten(self) -> ForgottenPlates:
        """Read which plates were forgotten.

        Returns:
            Those, by digests.

        Raises:
            RecordsUnavailable: Redis is not there.
        """
        return self._records.forgotten()

    def backlogs(self) -> list[Backlog]:
        """Look at what sinks have not taken.

        Returns:
            A part for each sink.

        Raises:
            RecordsUnavailable: Redis is not there.
        """
        return self._records.backlogs()

    def add_inside(self, facts: Facts, since: str) -> int:
        """Read who is inside.

        Args:
            facts: Takes the vehicles.
            since: Those that entered before this canonical time are left out.

        Returns:
            How many are inside, all counted.

        Raises:
            RecordsUnavailable: Redis is not there.
        """
        for plates in _batches(self._scan(lambda client: client.sscan_iter(PLATES_INSIDE, count=_BATCH))):
            times = self._pipeline(plates, lambda pipe, plate: pipe.hget(plate, "entry_time"))
            facts.add(
                (plate, INSIDE, "", entered or "", "", "")
                for plate, entered in zip(plates, times, strict=True)
                if (entered or "") >= since
            )
        count: int = self._ask(lambda client: client.scard(PLATES_INSIDE))  # a scan may give a thing twice
        return count

    def add_under_way(self, facts: Facts, sinks: Sequence[str], since: str) -> None:
        """Read the summaries that sinks have not got yet.

        Args:
            facts: Takes those for the sinks that are audited.
            sinks: Their names, in their order.
            since: Stays that ended before this canonical time are left out.

        Raises:
            RecordsUnavailable: Redis is not there.
        """
        for number, name in enumerate(sinks):
            facts.add(
                (stay.vehicle_plate, under_way_to(number), stay.id, stay.entry_date_time, stay.exit_date_time, state)
                for stay, state in self._records.outbox(name).stays()
                if stay.exit_date_time >= since
            )

    def seen(self, events: Iterable[_Lookup]) -> list[_Lookup]:
        """Pick the events that the records have processed.

        Args:
            events: Kind and id of each.

        Returns:
            Those whose ids are remembered.

        Raises:
            RecordsUnavailable: Redis is not there.
        """
        known: list[_Lookup] = []
        for batch in _batches(events):
            scores = self._pipeline(batch, lambda pipe, event: pipe.zscore(SEEN[event[0]], event[1]))
            known += [event for event, score in zip(batch, scores, strict=True) if score is not None]
        return known

    def must_remember(self) -> tuple[str, str]:
        """Say of which events the ids are remembered for certain, if they were processed.

        Returns:
            The first and the last of the canonical times that such an event has.

        Raises:
            RecordsUnavailable: Redis is not there.
        """
        seconds, micros = self._ask(lambda client: client.time())
        now = seconds + micros / 1e6
        return _canonical(now - self._retention), _canonical(now)

    def _scan(self, start: Callable[[redis.Redis], Any]) -> Iterator[Any]:
        from redis import RedisError

        try:
            yield from start(self._client)
        except RedisError as error:
            raise self._unavailable(error) from error

    def _pipeline(self, batch: Sequence[Any], add: Callable[[Any, Any], Any]) -> list[Any]:
        def ask(client: redis.Redis) -> list[Any]:
            with client.pipeline(transaction=False) as pipe:
                for each in batch:
                    add(pipe, each)
                return pipe.execute()

        answers: list[Any] = self._ask(ask)
        return answers

    def _ask(self, question: Callable[[redis.Redis], Any]) -> Any:
        from redis import RedisError

        try:
            return question(self._client)
        except RedisError as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> RecordsUnavailable:
        from carpark.settings.values import mask_url

        said = f"Redis at {mask_url(self._url)}: {words(error)}; {remedy(error)}"
        return RecordsUnavailable(said, refuses=is_refusal(error))


def _batches(things: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(things)
    while batch := list(islice(iterator, _BATCH)):
        yield batch


def _canonical(seconds: float) -> str:
    return format_time(datetime.fromtimestamp(max(seconds, 0), UTC))
