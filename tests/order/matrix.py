"""The runs: which load, workers, queues and fault go together, and what one of them comes to."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from carpark.domain.events import VehicleEntered
from carpark.domain.routing import event_queues
from carpark.rabbitmq.topology import CLASSIC, QUORUM
from tests.faults.conftest import HostedBroker
from tests.faults.rig import REST_SECONDS
from tests.order.load import Load
from tests.order.nemeses import CUT, HEARTBEAT, NEMESES, NONE
from tests.order.stand import SETTLED_SECONDS, NotHit, Shape, Stand
from tests.support.servers import RabbitmqServer, RedisServer

RETURNING = Load("800 stays", 800, 170)
MANY = Load("8,000 stays", 8_000, 1_700)
PARTED = Load("24,000 stays", 24_000, 5_100)
BEHIND = Load("5 % missed, entries 10,000 behind", 2_000, 400, missed=0.05, commuters=10_000)
FEW = Load("5 % missed, all in hand at once", 400, 80, missed=0.05)
"""Fewer events than a worker takes in hand: none is ready in its queue from the beginning."""

ALONE = (Shape(1, 1), Shape(1, 4), Shape(2, 2), Shape(2, 8), Shape(2, 2, workers=2))
STAND_BY = (Shape(1, 4, workers=2), Shape(2, 2, workers=2))
"""Where a fault hits one worker, and another stands by."""

QUEUE_TYPES = (CLASSIC, QUORUM)
SEEDS, FAULT_SEEDS = 20, 3
TRIES = 3  # at hitting the process at work, before there is nothing left to do


@dataclass(frozen=True)
class Run:
    """A run.

    Args:
        load: What the queues have.
        shape: Who works on it.
        queue_type: ``CARPARK_QUEUE_TYPE``.
        fault: What happens to the process that is active on `queue`, a name of `NEMESES`, or `NONE`.
        seed: Draws the load.
        outage: Seconds of an outage that lasts.
        partitions: ``CARPARK_PARTITIONS``.
    """

    load: Load
    shape: Shape
    queue_type: str
    fault: str
    seed: int
    outage: float = 90.0
    partitions: int = 1

    @property
    def queue(self) -> str:
        """Whose active process is hit: with the load that is behind the entries', otherwise in turn."""
        queues = event_queues(self.partitions)
        return VehicleEntered.queue if self.load is BEHIND else queues[(self.seed + 1) % len(queues)]

    @property
    def after(self) -> int:
        """How many events of the queue have taken effect when that happens."""
        return random.Random(self.seed).randrange(100, 1500) // self.partitions

    @property
    def kind(self) -> tuple[str, ...]:
        """What several seeds have in common."""
        queues = self.queue_type if self.partitions == 1 else f"{self.queue_type} by {self.partitions}"
        return self.load.name, str(self.shape), queues, self.fault

    def __str__(self) -> str:
        return f"{', '.join(self.kind)}, seed {self.seed}"


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Args:
        lost: The audit's.
        twice: The audit's.
        unexpected: The audit's.
        overtaken: Events that took effect after one that stood behind them in their queue.
        furthest: How many places behind it that one stood at most.
        seconds: From the start of the workers until all was done, the rest that shows it left out.
        problems: What else is wrong, in words.
    """

    lost: int = 0
    twice: int = 0
    unexpected: int = 0
    overtaken: int = 0
    furthest: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def well(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.lost or self.twice or self.unexpected or self.overtaken or self.problems)

    def __str__(self) -> str:
        numbers = f"{self.lost} lost, {self.twice} twice, {self.unexpected} unexpected, {self.overtaken} out of order"
        places = f" (by {self.furthest} places at most)" if self.overtaken else ""
        return "; ".join([numbers + places, *self.problems])


def matrix(seeds: int | None = None, outage: float = 90.0) -> Iterator[Run]:
    """List the runs.

    Args:
        seeds: So many seeds of each, rather than `SEEDS` and, with a fault, `FAULT_SEEDS`.
        outage: Seconds for which Redis refuses writes.

    Yields:
        Each run.
    """
    for load, shape, seed in product((RETURNING, FEW), ALONE, range(1, (seeds or SEEDS) + 1)):
        yield Run(load, shape, CLASSIC, NONE, seed)
    rest = (QUEUE_TYPES, STAND_BY, range(1, (seeds or FAULT_SEEDS) + 1))
    for fault, queue_type, shape, seed in product(NEMESES, *rest):
        yield Run(MANY, shape, queue_type, fault, seed, outage)
    for fault, queue_type, shape, seed in product((NONE, "SIGSTOP", "SIGTERM"), *rest):
        yield Run(BEHIND, shape, queue_type, fault, seed)
    for number, fault in enumerate((NONE, *NEMESES)):
        queue_type, shape = list(product(QUEUE_TYPES, STAND_BY))[number % 4]
        yield Run(PARTED, shape, queue_type, fault, 1, outage, partitions=4)
        if fault in (NONE, "SIGSTOP", "SIGTERM"):
            yield Run(BEHIND, shape, queue_type, fault, 1, partitions=4)


def run(each: Run, server: RabbitmqServer, folder: Path) -> Outcome:
    """Do a run.

    Args:
        each: The run.
        server: A RabbitMQ; the run has a virtual host of its own, and a Redis of its own.
        folder: Where files and logs go.

    Returns:
        What it came to.
    """
    for attempt in range(1, TRIES + 1):
        place = folder / str(attempt)
        place.mkdir(parents=True)
        try:
            return _run(each, server, place)
        except NotHit as error:
            if attempt == TRIES:
                return Outcome(0, 0, 0, 0, 0, 0.0, [f"{error}, {TRIES} times"])
    raise AssertionError  # unreachable


def _run(each: Run, server: RabbitmqServer, folder: Path) -> Outcome:
    broker, store = HostedBroker(server), RedisServer(appendonly=True)
    broker.url += f"?heartbeat={HEARTBEAT}" if each.fault == "SIGSTOP" else ""
    store.start()
    try:
        stand = Stand(
            broker, store, folder, each.shape, each.queue_type, each.partitions, through_proxy=each.fault == CUT
        )
        with stand:
            return _on(stand, each)
    finally:
        store.close()
        broker.close()


def _on(stand: Stand, each: Run) -> Outcome:
    problems = []
    stand.work_on(each.load.draw(each.seed))
    try:
        if each.fault != NONE:
            NEMESES[each.fault](stand, stand.active(each.queue, each.after), each.outage)
        stand.wait_until_idle(SETTLED_SECONDS)
    except NotHit:
        raise
    except AssertionError as error:
        problems.append(str(error).partition("\n")[0])
    seconds = time.monotonic() - stand.started - REST_SECONDS
    verdict, order = stand.verdict(), stand.order()
    if not verdict.ok and not (verdict.lost or verdict.duplicated or verdict.unexpected):
        problems.append(verdict.sentence())
    problems += [f"{verdict.dead} dead letters"] if verdict.dead else []
    for queue, its in order.items():
        problems += [f"{queue}: {its.missing} without effect"] if its.missing else []
        problems += [f"{queue}: {its.again} took effect twice"] if its.again else []
    return Outcome(
        verdict.lost,
        verdict.duplicated,
        verdict.unexpected,
        sum(its.overtaken for its in order.values()),
        max(its.furthest for its in order.values()),
        seconds,
        problems,
    )
