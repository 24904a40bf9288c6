"""Plates of no country: three letters and four digits."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from carpark.plugins.base import PlatesType, PluginContext
from carpark.plugins.plates.pattern import PatternPlates
from carpark.plugins.spec import hookimpl


class AlphanumericPlates(PatternPlates):
    """Three letters and four digits, such as ``QBF 0427``: 175,760,000 plates, all equally likely."""

    pattern = re.compile(r"[A-Z]{3}[0-9]{4}")

    def sample(self) -> str:
        """Make up a plate.

        Returns:
            For example ``QBF 0427``.
        """
        return f"{self.letters(3)} {self.chance.randrange(10_000):04}"


def _make(context: PluginContext, chance: random.Random) -> AlphanumericPlates:
    return AlphanumericPlates(chance)


@hookimpl
def carpark_register_plates() -> Sequence[PlatesType]:
    """Offer ``alphanumeric``.

    Returns:
        The one offer.
    """
    return [PlatesType("alphanumeric", _make, "three letters and four digits, of no country: QBF 0427")]
