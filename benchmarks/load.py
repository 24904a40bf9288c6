"""The work of a benchmark: events whose outcome is known, put on the queues beforehand, and the verdict afterwards."""

from __future__ import annotations

import random
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pika
import redis

from benchmarks.cpu import processor_seconds
from benchmarks.stage import Site
from benchmarks.work import SINK
from carpark.domain.events import Event, VehicleEntered, VehicleExited, format_time
from carpark.ledger import CSV_LINES
from carpark.ops.audit import Sources, audit
from carpark.plugins import ReadBack
from carpark.records.connection import connect
from carpark.records.redis import RedisRecords
from tests.support.processes import Process

MATCHED = 8  # of ten exits
BEHIND = 50
START = datetime(2026, 11, 23, 18, tzinfo=UTC)
POLL_SECONDS = 0.01
PATIENCE = 300.0

Letter = tuple[str, bytes, pika.BasicProperties]


@dataclass
class Load:
    """Events, half of them entries; of ten exits eight are of vehicles that entered.

    Args:
        size: How many events.
    """

    size: int
    events: list[Event] = field(default_factory=list)
    stays: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        ids = random.Random(1)

        def fields(plate: str) -> dict[str, str]:
            return {"id": str(uuid.UUID(int=ids.getrandbits(128), version=4)), "vehicle_plate": plate}

        for number in range(self.size // 2 + BEHIND):
            if number < self.size // 2:
                entered = format_time(START + timedelta(milliseconds=number))
                self.events.append(VehicleEntered.parse({**fields(f"IN{number:06}"), "entry_date_time": entered}))
            if number >= BEHIND:
                place = number - BEHIND
                known = place % 10 < MATCHED
                left = format_time(START + timedelta(hours=1, milliseconds=number, microseconds=place % 1000))
                plate = f"IN{place:06}" if known else f"NO{place:06}"
                event = VehicleExited.parse({**fields(plate), "exit_date_time": left})
                self.events.append(event)
                if known:
                    self.stays.add(event.id)


def fill(
    site: Site, letters: Sequence[Letter], declare: Callable[[pika.adapters.blocking_connection.BlockingChannel], None]
) -> None:
    """Put messages on the queues, and wait until RabbitMQ has them all.

    Args:
        site: Where.
        letters: The messages, persistent.
        declare: Declares their queues.
    """
    connection = pika.BlockingConnection(pika.URLParameters(site.broker_url))
    channel = connection.channel()
    declare(channel)
    for queue, body, properties in letters:
        channel.basic_publish("", queue, body, properties)
    wait_until_queued(channel, Counter(queue for queue, _, _ in letters))
    connection.close()


def wait_until_queued(channel: pika.adapters.blocking_connection.BlockingChannel, wanted: Mapping[str, int]) -> None:
    """Wait until RabbitMQ has all messages: without confirms it does not say so.

    Args:
        channel: Where to ask.
        wanted: Name of a queue to how many messages it shall have.

    Raises:
        SystemExit: It has not got them in time.
    """
    deadline = time.monotonic() + PATIENCE
    while any(channel.queue_declare(name, passive=True).method.message_count < count for name, count in wanted.items()):
        _sleep(deadline)


class Tail:
    """Counts the rows of a CSV file as it grows.

    Args:
        site: Whose file.
    """

    def __init__(self, site: Site) -> None:
        self._file = site.csv.open("rb")
        self.rows = -1  # the header

    def look(self) -> int:
        """Read on.

        Returns:
            How many rows there are.
        """
        self.rows += self._file.read().count(b"\n")
        return self.rows

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@dataclass(frozen=True)
class Measured:
    """How fast events became rows.

    Args:
        events: How many events were timed.
        seconds: How long that took.
        spent: Seconds of processor time meanwhile, by who used it.
    """

    events: int
    seconds: float
    spent: dict[str, float]

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.events / self.seconds

    @property
    def micros(self) -> dict[str, float]:
        """Microseconds of processor time per event, by who used it."""
        return {name: seconds / self.events * 1e6 for name, seconds in self.spent.items()}


def watch(site: Site, load: Load, workers: Sequence[Process], already: int = 0) -> Measured:
    """Time the way from queues to rows: from the first events recorded until the last row is on disk.

    Args:
        site: Where.
        load: What is on the queues.
        workers: Those who work on it.
        already: How many events were recorded before.

    Returns:
        The measurement; what was done when the first poll saw anything is not in it, nor is the start of a process.

    Raises:
        SystemExit: It is not done in time.
    """
    deadline = time.monotonic() + PATIENCE
    groups = {"workers": [worker.pid for worker in workers], **site.groups}
    tail = Tail(site)
    with redis.Redis.from_url(site.redis_url, decode_responses=True) as client:
        while not (before := _recorded(client) - already):
            _sleep(deadline)
        began, spent = time.monotonic(), processor_seconds(groups)
        while tail.look() < len(load.stays):
            _sleep(deadline)
        while _recorded(client) - already < load.size:
            _sleep(deadline)
        seconds = time.monotonic() - began
        after = processor_seconds(groups)
    tail.close()
    return Measured(load.size - before, seconds, {name: after[name] - spent[name] for name in groups})


def judge(site: Site, load: Load) -> str:
    """Let the audit say whether anything was lost or came twice.

    Args:
        site: Where the events were worked on.
        load: What they were.

    Returns:
        Its sentence.

    Raises:
        SystemExit: Something was: a figure of such a run means nothing.
    """
    deadline = time.monotonic() + 60
    with closing(connect(site.redis_url)) as client:
        records = RedisRecords(client, 1, ())
        while records.undelivered():
            _sleep(deadline)
    journal = site.csv.with_name("published.jsonl")
    journal.write_text("".join(event.to_json() + "\n" for event in load.events), encoding="utf-8")
    verdict = audit(
        Sources(journals=[journal], sinks={SINK: ReadBack.of_file(site.csv, CSV_LINES.read)}, redis_url=site.redis_url),
        show=3,
    )
    if not verdict.ok:
        raise SystemExit(f"bench: {verdict.sentence()}: {verdict.findings}")
    return verdict.sentence()


def _recorded(client: redis.Redis) -> int:
    names = ("entry/recorded", "entry/matched", "exit/matched", "exit/unmatched")
    counts = client.hmget("carpark:counts", names)
    return sum(int(count or 0) for count in counts)


def _sleep(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise SystemExit("bench: not done in time")
    time.sleep(POLL_SECONDS)
