"""What happens to the process that works on a queue: each sees to it that the harm was done, and mends it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from tests.faults.faults import refuse_writes
from tests.faults.rig import wait
from tests.order.stand import Active, Stand
from tests.support.helpers import eventually

FROZEN_SECONDS = 20.0
HEARTBEAT = 6
"""Seconds between heartbeats in the broker's URL: RabbitMQ gives a frozen process up while it is frozen."""

Nemesis = Callable[[Stand, Active, float], None]
"""Takes the system, the process that is hit, and how long an outage lasts."""

NONE, CUT = "no fault", "cut connection"


def _killed(stand: Stand, active: Active, outage: float) -> None:
    deaths = active.worker.deaths
    os.kill(active.pid, signal.SIGKILL)
    # One of several processes takes the others with it; a supervisor starts the worker again.
    eventually(lambda: active.worker.deaths > deaths, 30, "the worker has died")
    active.worker.wait_ready()


def _stopped(stand: Stand, active: Active, outage: float) -> None:
    """Stop its worker as a rolling update does: SIGTERM, and another one when it has ended."""
    assert active.worker.stop() == 0
    active.worker.start()


def _frozen(stand: Stand, active: Active, outage: float) -> None:
    os.kill(active.pid, signal.SIGSTOP)
    try:
        wait(FROZEN_SECONDS)
        eventually(
            lambda: active.pid not in stand.consumers.pids().values(), 30, "RabbitMQ has given the frozen process up"
        )
    finally:
        os.kill(active.pid, signal.SIGCONT)


def _cut(stand: Stand, active: Active, outage: float) -> None:
    assert stand.proxy
    assert stand.proxy.cut({active.port}) == 1


def _refused(stand: Stand, active: Active, outage: float) -> None:
    refuse_writes(stand, outage)


NEMESES: dict[str, Nemesis] = {
    "SIGKILL": _killed,
    "SIGTERM": _stopped,
    "SIGSTOP": _frozen,
    CUT: _cut,
    "Redis refuses writes": _refused,
}
"""Every fault, by its name."""
