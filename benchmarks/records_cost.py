"""What the records cost: bytes of Redis per vehicle, microseconds of Redis per event.

Starts a Redis of its own on a free port and ends it; with ``--redis`` uses an empty database of another one and empties
it again. Everything goes through `carpark.records`, as in the backend.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import redis

from carpark.domain.events import Event, VehicleEntered, VehicleExited, format_time
from carpark.records import Batch, Settlement
from carpark.records.connection import connect
from carpark.records.redis import RedisRecords

RETENTION = 172_800
SINK = "http-csv"
KEYS = ("entry_plates", "carpark:seen:entry", "carpark:seen:exit", f"carpark:outbox:{SINK}")
START = datetime(2026, 11, 23, 18, tzinfo=UTC)
BIG_LISTPACK = 1024


class CarPark:
    """A car park whose vehicles come and leave as they are told.

    Args:
        client: A client of an empty database 0.
    """

    def __init__(self, client: redis.Redis) -> None:
        self.client, self.records = client, RedisRecords(client, RETENTION, [SINK])
        self._inside: list[str] = []
        self._plates = 0
        self._events = 0
        self._random = random.Random(1)

    def entry(self) -> VehicleEntered:
        """Let a vehicle come that was never here."""
        plate = f"P{self._plates:07d}"
        self._plates += 1
        self._inside.append(plate)
        fields = {"id": str(uuid.uuid4()), "vehicle_plate": plate, "entry_date_time": self._now()}
        return VehicleEntered.parse(fields)

    def exit(self) -> VehicleExited:
        """Let any of those inside leave."""
        place = self._random.randrange(len(self._inside))
        self._inside[place], self._inside[-1] = self._inside[-1], self._inside[place]
        fields = {"id": str(uuid.uuid4()), "vehicle_plate": self._inside.pop(), "exit_date_time": self._now()}
        return VehicleExited.parse(fields)

    def stranger(self) -> VehicleExited:
        """Let a vehicle leave that nobody saw entering."""
        self._plates += 1
        fields = {"id": str(uuid.uuid4()), "vehicle_plate": f"D{self._plates:07d}", "exit_date_time": self._now()}
        return VehicleExited.parse(fields)

    def _now(self) -> str:
        self._events += 1
        return format_time(START + timedelta(milliseconds=self._events))

    def record(self, events: Sequence[Event], batch: int) -> None:
        """Record events."""
        for start in range(0, len(events), batch):
            self.records.record(events[start : start + batch])

    def fill(self, vehicles: int, batch: int = 500) -> None:
        """Let vehicles come."""
        for start in range(0, vehicles, batch):
            self.records.record([self.entry() for _ in range(min(batch, vehicles - start))])

    def deliver(self, most: int = 500) -> None:
        """Take all that waits for the sink in batches, and say that it has them."""
        outbox = self.records.outbox(SINK)
        while isinstance(batch := outbox.take(60, most), Batch):
            outbox.settle(batch, Settlement(delivered=None))


def measure_memory(client: redis.Redis, vehicles: int) -> list[dict[str, Any]]:
    """Measure what a vehicle costs at each stage, in bytes."""

    def row(stage: str, sample: str | None, before: dict[str, int], count: int = vehicles) -> dict[str, Any]:
        now = _bytes(client)
        shares = {key: (now[key] - before[key]) / count for key in KEYS}
        record = client.memory_usage(sample, samples=0) if sample else 0
        return {"stage": stage, "used_memory": (now["used"] - before["used"]) / count, "hash": record, **shares}

    client.flushdb()
    park = CarPark(client)
    park.record([park.entry()], 1)
    park.record([park.exit()], 1)
    empty = _bytes(client)
    park.fill(vehicles)
    rows = [row("inside", "P0000001", empty)]
    park.record([park.exit() for _ in range(vehicles)], 500)
    rows.append(row("finished, summary undelivered", "P0000001", empty))
    park.deliver()
    rows.append(row("finished, summary delivered", "P0000001", empty))
    settled = _bytes(client)
    strangers = [park.stranger() for _ in range(vehicles)]
    park.record(strangers, 500)
    rows.append(row("unmatched exit", strangers[0].vehicle_plate, settled))
    return rows


def measure_time(client: redis.Redis, inside: int, events: int, batch: int) -> dict[str, Any]:
    """Measure what an event costs while so many vehicles are inside, in microseconds of Redis."""
    park = CarPark(client)
    present = client.scard("entry_plates")
    park._plates = present
    park._inside = [f"P{n:07d}" for n in range(present)]
    park.fill(inside - present)
    kinds: dict[str, Callable[[], Event]] = {"entry": park.entry, "exit": park.exit, "stranger": park.stranger}
    taken: dict[str, float] = {}
    last: list[Event] = []
    for name, make in kinds.items():
        last = [make() for _ in range(events)]
        with _timed(client, taken, name, events):
            park.record(last, batch)
    with _timed(client, taken, "repeat", events):
        park.record(last, batch)
    with _timed(client, taken, "deliver", events):
        park.deliver(batch)
    return {"inside": inside, "batch": batch, **taken}


@contextlib.contextmanager
def _timed(client: redis.Redis, taken: dict[str, float], name: str, events: int) -> Iterator[None]:
    client.config_resetstat()
    yield
    statistics: dict[str, dict[str, float]] = client.info("commandstats")
    taken[name] = statistics["cmdstat_evalsha"]["usec"] / events


def _bytes(client: redis.Redis) -> dict[str, int]:
    sizes = {key: client.memory_usage(key, samples=0) or 0 for key in KEYS}
    return {**sizes, "used": client.info("memory")["used_memory"]}


@contextlib.contextmanager
def _redis(url: str | None) -> Iterator[redis.Redis]:
    with contextlib.ExitStack() as stack:
        if url is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            with socket.socket() as sock:
                sock.bind(("127.0.0.1", 0))
                port = sock.getsockname()[1]
            url = f"redis://127.0.0.1:{port}/0"
            command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", ""]
            server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            stack.callback(server.wait)
            stack.callback(server.terminate)
        client = connect(url, attempts=10)
        stack.callback(client.close)
        if client.dbsize():
            sys.exit(f"{url} holds keys; an empty database is wanted")
        stack.callback(client.flushdb)
        yield client


def _table(title: str, rows: list[dict[str, Any]]) -> str:
    lines = [title, ""]
    names = list(rows[0])
    cells = [
        [f"{row[name]:,.1f}" if isinstance(row[name], float) else f"{row[name]}" for name in names] for row in rows
    ]
    widths = [max(len(text) for text in column) for column in zip(names, *cells, strict=True)]
    for line in (names, ["-" * width for width in widths], *cells):
        lines.append("| " + " | ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) + " |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What the records cost in Redis.")
    parser.add_argument("--redis", metavar="URL", help="an empty database to measure in; by default a Redis of its own")
    parser.add_argument("--vehicles", type=int, default=100_000, help="vehicles for the memory's table")
    parser.add_argument(
        "--inside", type=int, nargs="*", default=[10_000, 1_000_000], help="for the time's table, rising"
    )
    parser.add_argument("--events", type=int, default=20_000, help="events of each kind for the time's table")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args()
    started = time.monotonic()
    results: dict[str, list[dict[str, Any]]] = {}
    with _redis(options.redis) as client:
        version = client.info("server")["redis_version"]
        usual = str(client.config_get("hash-max-listpack-value")["hash-max-listpack-value"])
        for listpack in (usual, str(BIG_LISTPACK)):
            client.config_set("hash-max-listpack-value", listpack)
            title = f"hash-max-listpack-value {listpack}"
            results[f"Bytes per vehicle, of {options.vehicles:,}; {title}"] = measure_memory(client, options.vehicles)
            client.flushdb()
            results[f"Microseconds of Redis per event; {title}"] = [
                measure_time(client, inside, options.events, batch) for inside in options.inside for batch in (1, 100)
            ]
    seconds = round(time.monotonic() - started, 1)
    if options.json:
        print(json.dumps({"redis": version, "seconds": seconds, **results}, indent=2))
        return
    print(f"Redis {version}; {seconds} s\n")
    for title, rows in results.items():
        print(_table(title, rows))


if __name__ == "__main__":
    main()
