"""What the backend's metrics cost: `python -m benchmarks.metrics_cost`.

A RabbitMQ and a Redis of its own, a writer, and a backend of two worker processes that works off queues which were
filled before. Of the workers' processor time, the part that counting takes is printed, once for events in batches and
once for each alone; then how long the page takes to be fetched, while nothing else happens and under load.
"""

from __future__ import annotations

import argparse
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pika
import redis
import requests

from carpark.broker.topology import declare_queues
from carpark.events import Event, VehicleEntered, VehicleExited, format_time
from generators.wire import message_body
from tests.helpers import eventually, find_free_port
from tests.processes import Process, Processes
from tests.scraping import PAGE
from tests.servers import RabbitmqServer, RedisServer

PROCESSES = 2
TOLD = re.compile(r"counting took ([\d.]+) of ([\d.]+) s")


@dataclass(frozen=True)
class Result:
    """What a pass came to.

    Args:
        rate: Events per second.
        counting: Microseconds of processor time per event that counting took.
        everything: Microseconds of processor time per event that the workers took.
    """

    rate: float
    counting: float
    everything: float


def stays(count: int) -> Iterator[Event]:
    """Make entries and exits.

    Args:
        count: How many stays.

    Yields:
        Each entry before its exit.
    """
    day = datetime(2026, 11, 23, tzinfo=UTC)
    for number in range(count):
        entry, exit_ = (format_time(day + timedelta(seconds=number + more)) for more in (0, 60))
        yield VehicleEntered(id=f"e{number}", vehicle_plate=f"P{number}", entry_date_time=entry)
        yield VehicleExited(id=f"x{number}", vehicle_plate=f"P{number}", exit_date_time=exit_)


class Bench:
    """The servers, and the passes on them.

    Args:
        processes: Starts the services.
        rabbitmq: A running RabbitMQ.
        store: A running Redis.
        folder: For the writer's file.
    """

    def __init__(self, processes: Processes, rabbitmq: RabbitmqServer, store: RedisServer, folder: Path) -> None:
        port = find_free_port()
        self._processes, self._rabbitmq, self._folder = processes, rabbitmq, folder
        self._environ = {
            "CARPARK_BROKER_URL": rabbitmq.url,
            "CARPARK_REDIS_URL": store.url,
            "CARPARK_WRITER_URL": f"http://127.0.0.1:{port}",
            "CARPARK_WRITER_PORT": str(port),
            "CARPARK_METRICS_PORT": "0",
        }
        self._store = redis.Redis.from_url(store.url, decode_responses=True)
        self._passes = 0

    def run(self, count: int, batch: int) -> Result:
        """Let a backend work off full queues.

        Args:
            count: How many stays there are.
            batch: How many events are worked on together at most.

        Returns:
            What it took.
        """
        with self._started("benchmarks.timed_actors", count, batch) as worker:
            started, done = time.perf_counter(), self._effects()
            eventually(lambda: self._effects() == 2 * count, 300, "all events have their effect", 0.02)
            rate = (2 * count - done) / (time.perf_counter() - started)
        told = TOLD.findall(worker.output)
        assert len(told) == PROCESSES, worker.output
        counting, everything = (sum(float(part[place]) for part in told) / (2 * count) * 1e6 for place in (0, 1))
        return Result(rate, counting, everything)

    def scrape(self, count: int) -> tuple[list[float], list[float]]:
        """Fetch the page while the backend works, and when it is done.

        Args:
            count: How many stays there are.

        Returns:
            Milliseconds of the fetches under load, and of those after it.
        """
        with self._started("carpark.actors", count, 100) as worker:
            url = worker.wait_for_line(PAGE, 60)[1]
            busy = [fetch(url) for _ in iter(lambda: self._effects() < 2 * count, False)]
            return busy, [fetch(url) for _ in range(50)]

    @contextmanager
    def _started(self, module: str, count: int, batch: int) -> Iterator[Process]:
        self._passes += 1
        self._store.flushall()
        with pika.BlockingConnection(pika.URLParameters(self._rabbitmq.url)) as connection:
            channel = connection.channel()
            declare_queues(channel)
            for event in stays(count):
                channel.basic_publish("", event.queue, message_body(event), pika.BasicProperties(delivery_mode=2))
        csv = {"CARPARK_CSV": str(self._folder / f"{self._passes}.csv")}
        writer = self._processes.start(["carpark", "writer"], {**self._environ, **csv})
        writer.wait_for_line("writer: http")
        worker = self._processes.start(
            ["dramatiq", module, "--processes", str(PROCESSES), "--threads", "4"],
            {**self._environ, "CARPARK_BATCH": str(batch)},
        )
        worker.wait_for_line(PAGE, 60)
        yield worker
        worker.terminate()
        writer.terminate()

    def _effects(self) -> int:
        counts = self._store.hgetall("carpark:counts")
        return sum(int(value) for name, value in counts.items() if name.split("/")[0] in ("entry", "exit"))


def fetch(url: str) -> float:
    """Fetch a page.

    Args:
        url: Where it is.

    Returns:
        Milliseconds.
    """
    started = time.perf_counter()
    requests.get(url, timeout=10).raise_for_status()
    return (time.perf_counter() - started) * 1000


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description="What the backend's metrics cost.")
    parser.add_argument("--stays", type=int, default=20_000, help="stays of each pass, two events each")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        processes = Processes(folder, {"TMPDIR": name})
        rabbitmq, store = RabbitmqServer(), RedisServer()
        try:
            for server in (rabbitmq, store):
                server.start()
            measure(Bench(processes, rabbitmq, store, folder), options.stays)
        finally:
            processes.close()
            rabbitmq.close()
            store.close()


def measure(bench: Bench, count: int) -> None:
    """Make all passes and print what they took.

    Args:
        bench: Makes them.
        count: Stays of each.
    """
    for said, batch in (("in batches", 100), ("one by one", 1)):
        result = bench.run(count, batch)
        share = result.counting / result.everything
        print(f"events {said}: counting takes {result.counting:.1f} us of {result.everything:.0f} us each", end="")
        print(f" of the workers' processor time: {share:.1%} ({result.rate:,.0f} events/s)", flush=True)
    busy, idle = bench.scrape(count)
    print(f"a scrape takes {statistics.median(idle):.1f} ms when idle (at most {max(idle):.1f} ms)", end="")
    print(f", {statistics.median(busy):.1f} ms under load (at most {max(busy):.1f} ms)")


if __name__ == "__main__":
    main()
