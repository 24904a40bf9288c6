"""Plates of no country: three letters and four digits."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from carpark.events import canonical_plate
from carpark.plugins.base import PlateGenerator, PlatesType, PluginContext
from carpark.plugins.spec import hookimpl

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_PATTERN = re.compile(r"[A-Z]{3}[0-9]{4}")


class AlphanumericPlates(PlateGenerator):
    """Three letters and four digits, such as ``QBF 0427``: 175,760,000 plates, all equally likely.

    Args:
        chance: Where the letters and digits come from.
    """

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def sample(self) -> str:
        """Make up a plate.

        Returns:
            For example ``QBF 0427``.
        """
        letters = "".join(self._chance.choices(_LETTERS, k=3))
        return f"{letters} {self._chance.randrange(10_000):04}"

    def is_valid(self, plate: str) -> bool:
        """Say whether a plate has this form.

        Args:
            plate: A plate, with or without the space.

        Returns:
            True for three letters and four digits.
        """
        try:
            return _PATTERN.fullmatch(canonical_plate(plate)) is not None
        except ValueError:
            return False


def _make(context: PluginContext, chance: random.Random) -> AlphanumericPlates:
    return AlphanumericPlates(chance)


@hookimpl
def carpark_register_plates() -> Sequence[PlatesType]:
    """Offer ``alphanumeric``.

    Returns:
        The one offer.
    """
    return [PlatesType("alphanumeric", _make, "three letters and four digits, of no country")]
