"""Both places where records are kept, and what is in them in one form, for tests that must come to the same in each."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from math import inf
from typing import Any

import redis

from carpark.domain.events import StaySummary
from carpark.records import Outbox, Records, forget_memory, open_records
from carpark.records.connection import connect
from carpark.records.memory import NO_NEXT, MemoryRecords, Plate, Progress
from carpark.records.redis import RedisRecords

RETENTION = 100.0
SINKS = ("http-csv", "sqlite")
OURS = ("entry_plates", "carpark:")
TIME = 27


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1_764_000_000.0

    def __call__(self) -> float:
        return self.now


class Store:
    """Records of one car park.

    Args:
        url: Where they are.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def open(
        self,
        sinks: Sequence[str] = SINKS,
        clock: Callable[[], float] | None = None,
        retention: float = RETENTION,
    ) -> Records:
        """Open them; twice gives the same ones."""
        return open_records(self.url, retention, sinks, clock)

    def clear(self) -> None:
        """Throw all away; what was opened before is not used any more."""
        raise NotImplementedError

    def close(self) -> None:
        """Throw all away, for good."""
        self.clear()

    def expire(self, plate: str) -> None:
        """Do what time does to the record of a plate whose vehicle is not inside, by a clock that the test sets."""

    def content(self) -> dict[str, Any]:
        """Read all that there is.

        Returns:
            ``plates``: of each the newest ``entry`` and ``exit``, the id of who is ``inside``, and (time, id, until
            when) of those ``open`` and (time, id) of those that ``wait``. ``known``: ids and until when, by kind.
            ``counts``. ``queues``: how far entries have come, by partition. ``outboxes``: stays and their state, by
            sink. ``forgotten``: the times up to which plates are.
        """
        records = self.open(())
        plates = self._plates()
        inside = {plate: known["entry"] for plate, known in plates.items() if known["inside"]}
        assert dict(records.vehicles()) == inside
        assert records.inside() == len(inside)
        return {
            "plates": plates,
            "known": {kind: self._known(kind) for kind in ("entry", "exit")},
            "counts": {name: count for name, count in records.counts().items() if count},
            "queues": self._queues(),
            "outboxes": {each.sink: _in_order(records.outbox(each.sink)) for each in records.backlogs()},
            "forgotten": sorted(" ".join(times.split()) for times in records.forgotten().times.values()),
        }

    def _plates(self) -> dict[str, Any]:
        raise NotImplementedError

    def _known(self, kind: str) -> dict[str, float]:
        raise NotImplementedError

    def _queues(self) -> dict[int, dict[str, Any]]:
        raise NotImplementedError


def _in_order(outbox: Outbox) -> list[tuple[StaySummary, str]]:
    """Read the stays that a sink has not taken; in which order they are offered, batches tell."""
    return sorted(outbox.stays(), key=str)


class MemoryStore(Store):
    """Those of this process."""

    def __init__(self) -> None:
        super().__init__("memory://records")

    def clear(self) -> None:
        forget_memory(self.url)

    @property
    def _store(self) -> Any:
        records = self.open(())
        assert isinstance(records, MemoryRecords)
        return records._store

    def _plates(self) -> dict[str, Any]:
        return {name: self._plate(plate) for name, plate in self._store.plates.items()}

    def _known(self, kind: str) -> dict[str, float]:
        return dict(self._store.ids[kind].until)

    def _queues(self) -> dict[int, dict[str, Any]]:
        return {name: asdict(each) for name, each in self._store.progress.items() if each != Progress()}

    def _plate(self, plate: Plate) -> dict[str, Any]:
        return {
            "entry": plate.newest and plate.newest.time,
            "exit": plate.left and plate.left.id,
            "inside": plate.inside and plate.inside.id,
            "open": [(e.entry.time, e.entry.id, e.next_entry) for e in plate.open if e.next_entry != NO_NEXT],
            "wait": [(exit_.time, exit_.id) for exit_ in plate.waiting],
        }


class RedisStore(Store):
    """Those of a Redis.

    Args:
        url: Its database.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.client: Any = connect(url)

    def clear(self) -> None:
        self.client.flushdb()

    def close(self) -> None:
        self.client.close()

    def expire(self, plate: str) -> None:
        if not self.client.sismember("entry_plates", plate):
            self.client.delete(plate)

    def _plates(self) -> dict[str, Any]:
        keys = [key for key in self.client.scan_iter() if not key.startswith(OURS)]
        plates = {key: self._plate(self.client.hgetall(key)) for key in keys}
        for plate, known in plates.items():
            assert (self.client.ttl(plate) == -1) == (known["inside"] is not None)
        return plates

    def _plate(self, fields: dict[str, str]) -> dict[str, Any]:
        def listed(name: str) -> list[Any]:
            found = [(field, value) for field, value in fields.items() if field.startswith(f"{name} ")]
            return sorted((field[5 : 5 + TIME], field[6 + TIME :], value) for field, value in found)

        return {
            "entry": fields.get("entry_time"),
            "exit": json.loads(fields.get("parking_exit_data", "{}")).get("id"),
            "inside": fields.get("entry_id"),
            "open": listed("open"),
            "wait": [(time, id_) for time, id_, _ in listed("wait")],
        }

    def _known(self, kind: str) -> dict[str, float]:
        found = self.client.zrange(f"carpark:seen:{kind}", 0, -1, withscores=True)
        return {id_: score if score < 1e11 else inf for id_, score in found}

    def _queues(self) -> dict[int, dict[str, Any]]:
        queues: dict[int, dict[str, Any]] = {}
        for field, value in self.client.hgetall("carpark:entries").items():
            partition, _, name = field.rpartition("/")
            queue = queues.setdefault(int(partition or 0), asdict(Progress()))
            queue["last" if name == "time" else name] = int(value) if name == "lists" else value
        return queues


def redis_records(client: redis.Redis, sinks: Sequence[str] = (), retention: float = 1.0) -> RedisRecords:
    """Open the records that a client sees."""
    return RedisRecords(client, retention, sinks)


def undelivered(client: redis.Redis) -> int:
    """Count what is in the outboxes.

    Args:
        client: A client of the records' database.

    Returns:
        How many summaries a sink has not taken, once for each such sink.
    """
    return redis_records(client).undelivered()
