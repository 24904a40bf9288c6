"""The records in Redis: a step that `carpark.records.memory` does in Python is one call of a Lua script here."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from carpark.domain.events import Event, StaySummary, VehicleEntered, VehicleExited
from carpark.errors import CarparkError, RecordsUnavailable
from carpark.records.base import (
    MOST,
    Backlog,
    Batch,
    ExitsHeld,
    Forgotten,
    ForgottenPlates,
    Outbox,
    Outcome,
    Recorded,
    Records,
    Rights,
    Server,
    Settlement,
    read_stay,
)
from carpark.records.connection import is_denied, is_refusal, words

if TYPE_CHECKING:
    import redis

COUNTS = "carpark:counts"
SINKS = "carpark:sinks"
INSIDE = "entry_plates"
ENTRIES = "carpark:entries"
"""How far the queue of entries has come; fields of a further partition begin with its number and ``/``."""
SEEN = {kind: f"carpark:seen:{kind}" for kind in (VehicleEntered.kind, VehicleExited.kind)}
"""Ids, by the time from which they are not known any more."""
FORGOTTEN = "carpark:forgotten"
"""Digest of a plate that was forgotten to the times up to which it is; and the digests' key."""
_DIGEST_KEY = "key"
_BEFORE = "carpark:undelivered"
"""What sinks had not got, in one hash for all of them, as an earlier version kept it."""

_PLATES = ("A1", "1A", "Ä1", "京1", "बा1")
"""Keys of the kind that plates are, to try rights on."""


_REACH = """
if redis.call('HGET', KEYS[1], ARGV[2] .. 'wanted') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], ARGV[2] .. 'reached', ARGV[1])
return 1
"""


class RedisRecords(Records):
    """The records of one car park in Redis."""

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
        ours = [INSIDE, COUNTS, *SEEN.values(), SINKS, ENTRIES]
        self._keys = [*ours, *(self.outbox(sink).key for sink in sinks)]

    def record(self, events: Sequence[Event]) -> list[Recorded]:
        return self._record(events, "")

    def record_entries(self, entries: Sequence[Event], partition: int = 0) -> list[Recorded]:
        return self._record(entries, "entries", partition=partition)

    def record_exits(self, exits: Sequence[Event], after: str, marker: str, partition: int = 0) -> list[Recorded]:
        return self._record(exits, "exits", after, marker, partition)

    def reach(self, marker: str, partition: int = 0) -> bool:
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

    def rights(self) -> Rights:
        arguments: list[Any] = ["rights", json.dumps(self._keys), "", "", "", "", len(self._sinks), *self._sinks]
        for plate in _PLATES:
            arguments += (VehicleEntered.kind, "", plate, "", "")
        with unavailable():
            granted, denied = self._join(args=arguments)
        for sink in self._sinks:
            further = self.outbox(sink).rights()
            granted, denied = granted + further[0], denied + further[1]
        return granted, denied

    def outbox(self, sink: str) -> RedisOutbox:
        return RedisOutbox(self._client, sink, self._outbox, self._clock)

    def reject(self, kind: str, partition: int = 0) -> None:
        with unavailable(), self._client.pipeline() as pipe:
            pipe.hincrby(COUNTS, f"{kind}/rejected", 1)
            if kind == VehicleEntered.kind:
                pipe.hincrby(ENTRIES, f"{_prefix(partition)}lists", 1)  # exits that wait see that the queue moves
            pipe.execute()

    def counts(self) -> dict[str, int]:
        with unavailable():
            counts = cast(dict[str, str], self._client.hgetall(COUNTS))
        return {name: int(value) for name, value in counts.items() if value != "0"}

    def inside(self) -> int:
        with unavailable():
            return self._client.scard(INSIDE)

    def backlogs(self) -> list[Backlog]:
        with unavailable():
            known = cast("set[str]", self._client.smembers(SINKS))
        return [self.outbox(sink).backlog() for sink in dict.fromkeys([*self._sinks, *sorted(known)])]

    def now(self) -> float:
        with unavailable():
            return self._clock() if self._clock else _seconds(self._client.time())

    def vehicles(self) -> Iterator[tuple[str, str]]:
        plates = self._client.sscan_iter(INSIDE, count=MOST)
        for some in self._in_pipelines(plates, lambda pipe, plate: pipe.hget(plate, "entry_time")):
            yield from ((plate, entered or "") for plate, entered in some)

    def known(self, events: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        for some in self._in_pipelines(events, lambda pipe, event: pipe.zscore(SEEN[event[0]], event[1])):
            yield from (event for event, score in some if score is not None)

    def _in_pipelines(self, things: Iterable[Any], ask: Callable[[Any, Any], Any]) -> Iterator[Iterable[Any]]:
        with unavailable():
            iterator = iter(things)
            while batch := list(islice(iterator, MOST)):
                with self._client.pipeline(transaction=False) as pipe:
                    for each in batch:
                        ask(pipe, each)
                    answers = pipe.execute()
                yield zip(batch, answers, strict=True)

    def forget(self, plate: str) -> Forgotten:
        with unavailable():
            self._client.hsetnx(FORGOTTEN, _DIGEST_KEY, secrets.token_hex(16))
            digest = self.forgotten().digest(plate)
            sinks = sorted(cast("set[str]", self._client.smembers(SINKS)))
        keys = [plate, INSIDE, COUNTS, *SEEN.values(), ENTRIES, FORGOTTEN]
        inside, known, removed = "", False, 0
        while True:
            stays = [(sink, *each) for sink in sinks for each in self.outbox(sink).of_plate(plate)]
            if known and not stays:
                break
            more = list(dict.fromkeys(key for _, key, _ in stays))
            given = [part for sink, key, member in stays for part in (more.index(key), member, sink)]
            now = self._clock() if self._clock else ""
            with unavailable():
                answer = self._forget(keys=[*keys, *more], args=[now, self._retention, digest, *given])
            inside, known, removed = inside or answer[0], known or bool(answer[1]), removed + answer[2]
            if not stays:
                break  # otherwise again: a relay may have moved a stay on meanwhile, from waiting to a batch
        return Forgotten(inside, known or removed > 0, removed)

    def forgotten(self) -> ForgottenPlates:
        with unavailable():
            fields = cast("dict[str, str]", self._client.hgetall(FORGOTTEN))
        return ForgottenPlates(fields.pop(_DIGEST_KEY, ""), fields)

    def server(self, since: float) -> Server:
        with unavailable():
            info, config, ahead, exits = _if_granted(self._client.info), None, None, 0
            if info and info.get("aof_enabled"):
                config = _if_granted(lambda: self._client.config_get("appendfsync"), is_refusal)  # or it has no CONFIG
            asked = time.time()
            if (there := _if_granted(self._client.time)) is not None:
                ahead = _seconds(there) - (asked + time.time()) / 2
                # The score of an id is when it is forgotten, a retention after it was recorded.
                last = _seconds(there) + self._retention
                exits = _if_granted(lambda: self._client.zcount(SEEN[VehicleExited.kind], last - since, last + 1))
        database = int(self._client.connection_pool.connection_kwargs.get("db") or 0)
        fsync = str((config or {}).get("appendfsync", ""))
        return Server(database, info, fsync, ahead if exits is not None else None, exits or 0)

    def adopt(self) -> int:
        adopted = 0
        with unavailable():
            for field, value in self._client.hscan_iter(_BEFORE, count=MOST):
                sink, (state, entered, left, rest) = field.partition("/")[0], value.split(" ", 3)
                plate, _, id_ = rest.partition(" ")
                fields = {"id": id_, "vehicle_plate": plate, "entry_date_time": entered, "exit_date_time": left}
                stay = json.dumps({**fields, "recorded_at": round(time.time(), 3)}, separators=(",", ":"))
                self.outbox(sink).adopt(stay, state, field)
                adopted += 1
        return adopted

    def close(self) -> None:
        self._client.close()


def _seconds(time_of_redis: tuple[int, int]) -> float:
    return time_of_redis[0] + time_of_redis[1] / 1e6


def _if_granted(question: Callable[[], Any], is_refused: Callable[[BaseException], bool] = is_denied) -> Any:
    try:
        return question()
    except Exception as error:
        if is_refused(error):
            return None
        raise


def _prefix(partition: int) -> str:
    return f"{partition}/" if partition else ""


def _recorded(event: Event, result: list[str]) -> Recorded:
    key = f"{event.kind}/{event.id}"
    outcome, stay, *further = result
    if outcome == "error":
        return Recorded(key, None, error=stay)
    return Recorded(key, Outcome(outcome), stay or None, abandoned=bool(further))


class RedisOutbox(Outbox):
    """The outbox of one sink in Redis."""

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
        return _taken(self._do("take", lease, max(1, min(most, MOST)), int(whatever)))

    def settle(self, batch: Batch, became: Settlement) -> tuple[int, int, int]:
        delivered, retried, failed = self._settle(batch, became)
        return delivered, retried, failed

    def settle_and_take(
        self, batch: Batch, became: Settlement, lease: float, most: int = MOST
    ) -> tuple[tuple[int, int, int], Batch | float]:
        delivered, retried, failed, following = self._settle(batch, became, lease, max(1, min(most, MOST)))
        return (delivered, retried, failed), _taken(following)

    def _settle(self, batch: Batch, became: Settlement, *following: float) -> Any:
        # By their ids: a Redis that has taken over may know another batch by this number.
        delivered = [each.id for each in batch.summaries] if became.delivered is None else became.delivered
        what = {**vars(became), "delivered": delivered, "number": batch.number, "attempt": batch.attempt}
        return self._do("settle", json.dumps(what), *following)

    def put_back(self, summary: StaySummary) -> bool:
        with unavailable():
            stay = cast("str | None", self._client.hget(self._dead, summary.id))
        return stay is not None and read_stay(stay) == summary and bool(self._do("put_back", summary.id, stay))

    def rights(self) -> tuple[list[str], list[str]]:
        with unavailable():
            granted, denied = self._script(args=["rights", json.dumps(self._keys), self._sink])
        return granted, denied

    def backlog(self) -> Backlog:
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
            waiting, batch, alone, dead, known, *oldest, next_alone, there = pipe.execute()
        now = self._clock() if self._clock else _seconds(there)
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
        for key, _, stay in self._kept():
            yield read_stay(stay), "dead" if key == self._dead else "waiting"

    def adopt(self, stay: str, state: str, field: str) -> None:
        """Take over a stay that is kept as an earlier version did."""
        with self._client.pipeline() as step:
            step.sadd(SINKS, self._sink)
            if state == "dead":
                step.hset(self._dead, read_stay(stay).id, stay)
            else:
                step.rpush(self._waiting, stay)
            step.hdel(_BEFORE, field)
            step.execute()

    def of_plate(self, plate: str) -> Iterator[tuple[str, str]]:
        """Find the stays of a plate that the sink has not taken: the key that has one, and its member there."""
        for key, member, stay in self._kept():
            if json.loads(stay)["vehicle_plate"] == plate:
                yield key, member

    def _kept(self) -> Iterator[tuple[str, str, str]]:
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


def script(client: redis.Redis, name: str) -> Any:
    """Register a Lua script of the records, and give what calls it."""
    return client.register_script("".join(map(lua, ("clock", "rights", name))))


def lua(name: str) -> str:
    """Read a part of a Lua script."""
    return resources.files(__package__).joinpath(f"{name}.lua").read_text(encoding="utf-8")


@contextmanager
def unavailable() -> Iterator[None]:
    """Say of what Redis or its client raises that the records are not available."""
    try:
        yield
    except CarparkError:
        raise  # of ours, not of Redis
    except Exception as error:
        # Also what Redis answers to a call as a whole: no writes for now (OOM, READONLY, MISCONF ...), no permission, a
        # key of ours that holds something else; and whatever the client raises. No event is to blame for that, so none
        # may be given up for it.
        raise RecordsUnavailable(f"Redis: {words(error)}", refuses=is_refusal(error)) from error
