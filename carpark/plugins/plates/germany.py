"""Plates of Germany, whose parts only their separators tell apart."""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Sequence

from carpark.domain.canonical import spaced
from carpark.plugins.base import PlatesType, PluginContext
from carpark.plugins.plates.pattern import LETTERS, PatternPlates
from carpark.plugins.spec import hookimpl

_DISTRICT_LETTERS = LETTERS + "ÄÖÜ"
_NEVER = ("HJ", "KZ", "NS", "SA", "SD", "SS")
_LONGEST = 8


class GermanyPlates(PatternPlates):
    """District, one or two letters and a number, such as ``B-AB 123``; at most eight letters and digits.

    In canonical form ``B-AB 1`` and ``BA-B 1`` are both ``BAB1``: such a plate is valid if it can be split in one way.
    """

    pattern = re.compile(
        f"[{_DISTRICT_LETTERS}]{{1,3}}-?(?!(?:{'|'.join(_NEVER)})[-0-9])[A-Z]{{1,2}}-?[1-9][0-9]{{0,3}}",
    )

    def sample(self) -> str:
        """Make up a plate.

        Returns:
            For example ``B-AB 123``.
        """
        district = self.letters(self.chance.randint(1, 3), _DISTRICT_LETTERS)
        middle = self._middle()
        digits = self.chance.randint(1, min(4, _LONGEST - len(district) - len(middle)))
        return f"{district}-{middle} {self.chance.randrange(10 ** (digits - 1), 10**digits)}"

    def normal_form(self, plate: str) -> str:
        """Make a plate comparable, but keep where it is separated.

        Args:
            plate: A plate, canonical or as people write it.

        Returns:
            The plate in upper case with single hyphens.
        """
        return unicodedata.normalize("NFKC", re.sub(" +", "-", spaced(plate).strip(" ")).upper())

    def follows_rule(self, match: re.Match[str]) -> bool:
        """Count the letters and digits.

        Args:
            match: The plate.

        Returns:
            True when there are not too many.
        """
        return len(match[0].replace("-", "")) <= _LONGEST

    def _middle(self) -> str:
        while (middle := self.letters(self.chance.randint(1, 2))) in _NEVER:
            pass
        return middle


def _make(context: PluginContext, chance: random.Random) -> GermanyPlates:
    return GermanyPlates(chance)


@hookimpl
def carpark_register_plates() -> Sequence[PlatesType]:
    """Offer ``germany``.

    Returns:
        The one offer.
    """
    return [PlatesType("germany", _make, "Germany: B-AB 123")]
