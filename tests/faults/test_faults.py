"""Each fault alone, in a system under load: nothing lost, nothing twice, nothing unexpected; and several at once."""

from __future__ import annotations

import os
import random

import pytest

from tests.faults.faults import FAULTS
from tests.faults.overload import fast, sink_is_down, workers_are_away
from tests.faults.rig import Rig
from tests.faults.rounds import Round, alone

pytestmark = pytest.mark.servers

SEED = os.environ.get("CARPARK_TEST_SEED") or str(random.SystemRandom().randrange(10**6))

MOST_MIB = 60
"""How much more memory the worker, two processes and their master, may take in overload."""


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", FAULTS)
def test_nothing_is_lost_and_nothing_comes_twice(rig: Rig, name: str) -> None:
    alone(FAULTS[name], rig)


@pytest.mark.timeout(300)
def test_several_faults_at_once(rig: Rig) -> None:
    chosen = Round.draw(random.Random(SEED))
    print(f"CARPARK_TEST_SEED={SEED}: {chosen}")
    chosen.run(rig)


@pytest.mark.timeout(300)
def test_overload_fills_no_memory_and_a_sink_that_is_down_blocks_no_queue(rig: Rig) -> None:
    with fast(rig):
        away = workers_are_away(rig, seconds=8)
        down = sink_is_down(rig, seconds=8)
    assert away.backlog > 1000
    assert max(away.worker_mib, down.worker_mib) < away.worker_mib_before + MOST_MIB
