"""Overload: ten times the ordinary rate while nobody works, and a sink that is down for long; memory is watched."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from carpark.ops.audit import Verdict
from tests.faults.rig import RATE, Rig
from tests.faults.service import group_mib
from tests.support.helpers import eventually

TIMES = 10
"""How many times the ordinary rate the cameras work at."""


@dataclass
class Load:
    """What an overload came to.

    Args:
        worker_mib_before: Resident memory of the worker with its processes before, in MiB.
        worker_mib: Its largest during the overload and the time after.
        mib: The largest of every service.
        backlog: The most messages that waited.
        recorded: Entries that were recorded meanwhile.
        seconds: How long the backlog took to drain.
        verdict: The audit's.
    """

    worker_mib_before: float = 0.0
    mib: dict[str, float] = field(default_factory=dict)
    backlog: int = 0
    recorded: int = 0
    seconds: float = 0.0
    verdict: Verdict | None = None

    @property
    def worker_mib(self) -> float:
        """The largest of the worker."""
        return next(mib for name, mib in self.mib.items() if "actors" in name)


def workers_are_away(rig: Rig, seconds: float) -> Load:
    """Stop the workers while the cameras are `fast`, start them again, and judge.

    Args:
        rig: The system.
        seconds: For how long the workers are away.

    Returns:
        What it came to.
    """
    load = Load(worker_mib_before=rig.worker.memory_mib())
    with _watched(rig, load) as time_passes:
        rig.wait_for_progress()
        assert rig.worker.stop() == 0
        time_passes(seconds)
        load.backlog = sum(rig.ready().values())
        rig.worker.start()
        rig.wait_for_progress()
        load.verdict = rig.settle()
    return load


def sink_is_down(rig: Rig, seconds: float) -> Load:
    """Let the writer answer 500 while the cameras are `fast`, and judge when it is well again.

    Args:
        rig: The system.
        seconds: For how long it answers 500.

    Returns:
        What it came to.

    Raises:
        AssertionError: Entries were not recorded meanwhile, or the queue grew.
    """
    load = Load(worker_mib_before=rig.worker.memory_mib())
    with _watched(rig, load) as time_passes:
        rig.wait_for_progress()
        recorded = rig.recorded()
        rig.gateway.mode = "error"
        try:
            time_passes(seconds)
            load.recorded = rig.recorded() - recorded
            # Events are recorded as fast as before: the queue does not grow.
            eventually(lambda: rig.ready()["vehicle_entry"] < RATE * TIMES, 60, "the queue of entries is short")
            load.backlog = rig.left().get("undelivered", 0)
        finally:
            rig.gateway.mode = "well"
        assert load.recorded > RATE * seconds, f"{load.recorded} entries in {seconds:g} s"
        rig.wait_for_progress()
        load.verdict = rig.settle()
    return load


@contextmanager
def fast(rig: Rig) -> Iterator[None]:
    """Let the cameras work at ten times their rate for a while.

    With plates that never come back: of a list no more can be under way than it has.
    """

    def restart(**more: str) -> None:
        for camera in rig.cameras:
            assert camera.stop() == 0
            camera.start(**more)

    restart(CARPARK_RATE=str(RATE * TIMES), CARPARK_PLATES="alphanumeric")
    try:
        yield
    finally:
        restart()


@contextmanager
def _watched(rig: Rig, load: Load) -> Iterator[object]:
    """Watch the memory of every service."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.5):
            now = {service.name: service.memory_mib() for service in rig.services}
            now |= {"redis": group_mib(rig.redis.group), "rabbitmq": group_mib(rig.rabbitmq.group)}
            for name, mib in now.items():
                load.mib[name] = max(load.mib.get(name, 0.0), mib)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield ended.wait
    finally:
        ended.set()
        thread.join()
