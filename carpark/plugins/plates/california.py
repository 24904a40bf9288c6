"""Plates of California: passenger vehicles since 1980."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from carpark.plugins.base import PlatesType, PluginContext
from carpark.plugins.plates.pattern import PatternPlates, without
from carpark.plugins.spec import hookimpl

_OUTER = without("IOQ")


class CaliforniaPlates(PatternPlates):
    """A digit from 1 to 9, three letters, three digits, such as ``8BSG447``; I, O and Q only in the middle letter."""

    pattern = re.compile(f"[1-9][{_OUTER}][A-Z][{_OUTER}][0-9]{{3}}")

    def sample(self) -> str:
        """Make up a plate.

        Returns:
            For example ``8BSG447``.
        """
        letters = self.letters(1, _OUTER) + self.letters(1) + self.letters(1, _OUTER)
        return f"{self.chance.randint(1, 9)}{letters}{self.chance.randrange(1000):03}"


def _make(context: PluginContext, chance: random.Random) -> CaliforniaPlates:
    return CaliforniaPlates(chance)


@hookimpl
def carpark_register_plates() -> Sequence[PlatesType]:
    """Offer ``california``.

    Returns:
        The one offer.
    """
    return [PlatesType("california", _make, "California, passenger vehicles since 1980: 8BSG447")]
