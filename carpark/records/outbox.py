"""The transactional outbox of a sink: finished stays that it has not taken yet, kept by the step that finished them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any, cast

from carpark.domain.events import StaySummary
from carpark.errors import CarparkError, RecordsUnavailable
from carpark.records.connection import is_refusal, words

if TYPE_CHECKING:
    import redis

COUNTS = "carpark:counts"
SINKS = "carpark:sinks"
MOST = 1000
"""Summaries of a batch at most. A stay takes 0.8 KiB at most (an id of 128 characters), so a batch is below 1 MiB."""

SILENCE = 30.0
"""Seconds without a relay that asks, which each does every second, after which a sink is one that no worker has."""


@dataclass(frozen=True)
class Batch:
    """Summaries that are offered together, under one number however often, and by one relay at a time.

    Args:
        number: Counts the sink's batches.
        attempt: Which attempt at this batch it is, from 1.
        failures: How many attempts at the sink have failed in a row.
        alone: Whether it is one summary that waited alone, because it failed while others were taken.
        summaries: Its members.
    """

    number: int
    attempt: int
    failures: int
    alone: bool
    summaries: tuple[StaySummary, ...]


@dataclass
class Settlement:
    """What became of the members of a batch.

    Args:
        delivered: Ids of those that the sink has; None for all of them.
        dead: Ids of those that are given up.
        alone: Id to seconds, of those that are offered alone from now on, and after how long.
        last: Ids of those that go to the end of the batch.
        error: What the sink said last, if it failed.
        delay: Seconds until the sink is tried again, if it is to blame.
    """

    delivered: list[str] | None = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    alone: dict[str, float] = field(default_factory=dict)
    last: list[str] = field(default_factory=list)
    error: str = ""
    delay: float = 0.0


@dataclass(frozen=True)
class Backlog:
    """What a sink has not taken, and how it is.

    Args:
        sink: Its name.
        waiting: Summaries that wait, those in a batch and those that wait alone included.
        alone: Of these, those that wait alone.
        dead: Summaries that were given up.
        age: Seconds since the oldest of those that wait was recorded.
        attempt: Which attempt at the present batch was the last one; 0 without a batch.
        failing: Seconds since it began to fail; None while it is well.
        next_attempt: Seconds until something is offered to it again; 0 for at once.
        error: What it said last, since it took the last batch without one.
        asked: Seconds since a relay last asked for its summaries, or had some in hand; None if none ever did.
    """

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


class Outbox:
    """The outbox of one sink. Every step is atomic and goes by the records' clock.

    Args:
        client: A client of the records' database.
        sink: The sink's name.
        script: What does the steps, as `outbox_script` registers it.
        clock: Seconds since the epoch, where it is not the records' own clock.
    """

    def __init__(self, client: redis.Redis, sink: str, script: Any, clock: Callable[[], float] | None) -> None:
        self._client, self._sink, self._script, self._clock = client, sink, script, clock
        self._waiting, self._batch, self._alone, self._dead, self._relay = (
            f"carpark:{what}:{sink}" for what in ("outbox", "batch", "alone", "dead", "relay")
        )
        self._keys = [self._waiting, self._batch, self._alone, self._dead, self._relay, COUNTS]

    @property
    def key(self) -> str:
        """The list that the atomic step adds a finished stay to."""
        return self._waiting

    def take(self, lease: float, most: int = MOST, *, whatever: bool = False) -> Batch | float:
        """Take the batch that is to be offered now, with a lease: nobody else is given it until that is over.

        Args:
            lease: Seconds that the lease lasts; it is not renewed, and `settle` ends it.
            most: How many summaries a new batch may have.
            whatever: Take also what is not due yet; who does so is no relay, and does not count as a worker.

        Returns:
            The batch, or the seconds for which nobody is given one; negative if it is only that nothing waits now.

        Raises:
            RecordsUnavailable: Redis is not there, or takes no writes for now.
        """
        return _taken(self._do("take", lease, max(1, min(most, MOST)), int(whatever)))

    def settle(self, batch: Batch, became: Settlement) -> tuple[int, int, int]:
        """Note what became of a batch. Of one that is another's by now nothing changes but what was delivered.

        Args:
            batch: The batch.
            became: What became of its members; those that it does not name stay in the batch.

        Returns:
            How many it counted as delivered, retried and failed; each member once for each.

        Raises:
            RecordsUnavailable: Redis is not there, or takes no writes for now; settling again changes nothing more.
        """
        delivered, retried, failed = self._settle(batch, became)
        return delivered, retried, failed

    def settle_and_take(
        self, batch: Batch, became: Settlement, lease: float, most: int = MOST
    ) -> tuple[tuple[int, int, int], Batch | float]:
        """Settle a batch, and take the next one in the same step.

        Whoever recorded something meanwhile, and was told to wait, need not ask again: it is in the next batch.

        Args:
            batch: The batch.
            became: What became of its members.
            lease: Seconds that the lease of the next one lasts.
            most: How many summaries a new batch may have.

        Returns:
            As `settle`, and as `take`.

        Raises:
            RecordsUnavailable: Redis is not there, or takes no writes for now.
        """
        delivered, retried, failed, following = self._settle(batch, became, lease, max(1, min(most, MOST)))
        return (delivered, retried, failed), _taken(following)

    def _settle(self, batch: Batch, became: Settlement, *following: float) -> Any:
        # By their ids: a Redis that has taken over may know another batch by this number.
        delivered = [each.id for each in batch.summaries] if became.delivered is None else became.delivered
        what = {**vars(became), "delivered": delivered, "number": batch.number, "attempt": batch.attempt}
        return self._do("settle", json.dumps(what), *following)

    def put_back(self, summary: StaySummary) -> bool:
        """Have a summary that was given up wait again, with no attempts behind it.

        Args:
            summary: The summary, as it was given up.

        Returns:
            Whether it was held as given up; otherwise nothing has changed.

        Raises:
            RecordsUnavailable: Redis is not there, or takes no writes for now.
        """
        with unavailable():
            stay = cast("str | None", self._client.hget(self._dead, summary.id))
        return stay is not None and read_stay(stay) == summary and bool(self._do("put_back", summary.id, stay))

    def rights(self) -> tuple[list[str], list[str]]:
        """Ask which rights this user has of those that a relay takes; see `carpark.records.Records.rights`.

        Returns:
            Commands, each with a key: those that it may run, and those that it may not.

        Raises:
            RecordsUnavailable: Redis is not there, or refuses the question itself.
        """
        with unavailable():
            granted, denied = self._script(args=["rights", json.dumps(self._keys), self._sink])
        return granted, denied

    def backlog(self) -> Backlog:
        """Look at what the sink has not taken.

        Returns:
            The numbers at this moment.

        Raises:
            RecordsUnavailable: Redis is not there.
        """
        with unavailable(), self._client.pipeline() as pipe:
            pipe.llen(self._waiting)
            pipe.llen(self._batch)
            pipe.zcard(self._alone)
            pipe.hlen(self._dead)
            pipe.hgetall(self._relay)
            pipe.lindex(self._batch, 0)
            pipe.lindex(self._waiting, 0)
            pipe.zrange(self._alone, 0, 0, withscores=True)
            pipe.time()
            waiting, batch, alone, dead, known, *oldest, next_alone, time = pipe.execute()
        now = self._clock() if self._clock else time[0] + time[1] / 1e6
        oldest += [stay for stay, _ in next_alone]
        recorded = [json.loads(stay[stay.index("{") :])["recorded_at"] for stay in oldest if stay]
        due = float(known.get("due", 0))
        if not waiting + batch:
            due = max([due, *(score for _, score in next_alone)])

        def since(name: str) -> float | None:
            return max(0.0, now - float(known[name])) if name in known else None

        return Backlog(
            self._sink,
            waiting=waiting + batch + alone,
            alone=alone,
            dead=dead,
            age=max([0.0, *(now - each for each in recorded)]),
            attempt=int(known.get("attempt", 0)) if batch else 0,
            failing=since("failing_since"),
            next_attempt=max(0.0, due - now),
            error=known.get("error", ""),
            asked=since("asked"),
        )

    def stays(self) -> Iterator[tuple[StaySummary, str]]:
        """Read all that the sink has not taken.

        Yields:
            Each summary, and whether it is ``waiting`` or ``dead``.

        Raises:
            RecordsUnavailable: Redis is not there.
        """
        for key, _, stay in self._kept():
            yield read_stay(stay), "dead" if key == self._dead else "waiting"

    def of_plate(self, plate: str) -> Iterator[tuple[str, str]]:
        """Find the stays of a plate that the sink has not taken.

        Args:
            plate: A canonical plate.

        Yields:
            The key that has one, and its member there.

        Raises:
            RecordsUnavailable: Redis is not there.
        """
        for key, member, stay in self._kept():
            if json.loads(stay)["vehicle_plate"] == plate:
                yield key, member

    def _kept(self) -> Iterator[tuple[str, str, str]]:
        """Read all that the sink has not taken: its key, its member there, the stay."""
        with unavailable():
            for key in (self._waiting, self._batch):  # as they move on: better twice than not at all
                for start in range(0, self._client.llen(key), MOST):
                    for stay in cast("list[str]", self._client.lrange(key, start, start + MOST - 1)):
                        yield key, stay, stay
            for member, _ in self._client.zscan_iter(self._alone, count=MOST):
                yield self._alone, member, member[member.index("{") :]
            for id_, stay in self._client.hscan_iter(self._dead, count=MOST):
                yield self._dead, id_, stay

    def _do(self, operation: str, *arguments: Any) -> Any:
        now = self._clock() if self._clock else ""
        with unavailable():
            return self._script(keys=self._keys, args=[operation, now, self._sink, *arguments])


def _taken(answer: Sequence[Any]) -> Batch | float:
    what, *rest = answer
    if what == "wait":
        return float(rest[0])
    number, attempt, failures, alone, *stays = rest
    return Batch(int(number), int(attempt), int(failures), bool(alone), tuple(map(read_stay, stays)))


def read_stay(stay: str) -> StaySummary:
    """Read a stay as the records keep it.

    Args:
        stay: Its JSON.

    Returns:
        The summary.
    """
    fields: Mapping[str, str] = json.loads(stay)
    return StaySummary.of_stay(
        fields["id"], fields["vehicle_plate"], fields["entry_date_time"], fields["exit_date_time"]
    )


def script(client: redis.Redis, name: str) -> Any:
    """Register a Lua script of the records.

    Args:
        client: A client of the records' database.
        name: The script's name.

    Returns:
        What calls it.
    """
    return client.register_script("".join(map(lua, ("clock", "rights", name))))


def lua(name: str) -> str:
    """Read a part of a Lua script.

    Args:
        name: Its name.

    Returns:
        The source.
    """
    return resources.files(__package__).joinpath(f"{name}.lua").read_text(encoding="utf-8")


@contextmanager
def unavailable() -> Iterator[None]:
    """Say of what Redis or its client raises that the records are not available.

    Yields:
        Nothing.

    Raises:
        RecordsUnavailable: Something was raised.
    """
    try:
        yield
    except CarparkError:
        raise  # of ours, not of Redis
    except Exception as error:
        # Also what Redis answers to a call as a whole: no writes for now (OOM, READONLY, MISCONF ...), no permission, a
        # key of ours that holds something else; and whatever the client raises. No event is to blame for that, so none
        # may be given up for it.
        raise RecordsUnavailable(f"Redis: {words(error)}", refuses=is_refusal(error)) from error
