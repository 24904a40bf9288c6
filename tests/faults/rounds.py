"""Rounds of faults drawn by chance that happen at once; a seed draws the same ones again."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from carpark.ops.audit import Verdict
from tests.faults.faults import FAULTS, Fault
from tests.faults.rig import Rig, wait

MOST_AT_ONCE = 3
MOST_APART = 3.0
"""Seconds between the first fault of a round and the last at most."""


def alone(fault: Fault, rig: Rig) -> Verdict:
    """Let one fault happen under load, and judge.

    Args:
        fault: The fault.
        rig: The system.

    Returns:
        The verdict.

    Raises:
        AssertionError: The fault could not be done, or something is lost, there twice, unexpected or dead.
    """
    rig.wait_for_progress()
    fault.harm(rig)
    rig.wait_for_progress()
    return rig.settle()


@dataclass(frozen=True)
class Round:
    """Faults that happen at once.

    Args:
        faults: Their names, each with how many seconds later than the first it comes.
    """

    faults: Sequence[tuple[str, float]]

    @classmethod
    def draw(cls, chance: random.Random) -> Round:
        """Draw one to three faults that do not touch the same.

        Args:
            chance: Where chance comes from.

        Returns:
            The round.
        """
        names = list(FAULTS)
        chance.shuffle(names)
        count, touched, faults = chance.randint(1, MOST_AT_ONCE), frozenset[str](), []
        for name in names:
            if len(faults) < count and not touched & FAULTS[name].touches:
                touched |= FAULTS[name].touches
                faults.append((name, round(chance.uniform(0, MOST_APART), 1) if faults else 0.0))
        return cls(faults)

    def run(self, rig: Rig) -> Verdict:
        """Let it happen under load, and judge.

        Args:
            rig: The system.

        Returns:
            The verdict.

        Raises:
            AssertionError: A fault could not be done, or something is lost, there twice, unexpected or dead.
        """
        return alone(Fault(self._all, frozenset()), rig)

    def _all(self, rig: Rig) -> None:
        problems: list[BaseException] = []

        def do(name: str, later: float) -> None:
            wait(later)
            try:
                FAULTS[name].harm(rig)
            except BaseException as error:  # the end of the thread would hide it
                problems.append(error)

        threads = [threading.Thread(target=do, args=each) for each in self.faults]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if problems:
            raise problems[0]

    def __str__(self) -> str:
        return "; ".join(name if not later else f"{later:g} s later {name}" for name, later in self.faults)
