"""Plates of the Netherlands: passenger cars since 2019."""

from __future__ import annotations

import random
import re

from carpark import PlateGenerator, PluginContext, canonical_plate

_LETTERS = "BDFGHJKLNPRSTVXZ"  # no vowels, so that no plate is a word
_PATTERN = re.compile(f"[{_LETTERS}][0-9]{{3}}[{_LETTERS}]{{2}}")


class NetherlandsPlates(PlateGenerator):
    """A letter, three digits and two letters, such as ``G-123-BD``.

    Args:
        chance: Where the letters and digits come from.
    """

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def sample(self) -> str:
        """Make up the next plate."""
        first, *last = self._chance.choices(_LETTERS, k=3)
        return f"{first}-{self._chance.randrange(1000):03}-{''.join(last)}"

    def is_valid(self, plate: str) -> bool:
        """Say whether a plate has this form, with or without its hyphens."""
        try:
            return _PATTERN.fullmatch(canonical_plate(plate)) is not None
        except ValueError:
            return False


def make_plates(context: PluginContext, chance: random.Random) -> NetherlandsPlates:
    """Make the generator."""
    return NetherlandsPlates(chance)
