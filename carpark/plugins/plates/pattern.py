"""What the plates of a fixed form have in common."""

from __future__ import annotations

import random
import re
from abc import abstractmethod
from typing import ClassVar

from carpark.domain.events import canonical_plate
from carpark.plugins.base import PlateGenerator

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class PatternPlates(PlateGenerator):
    """Plates whose canonical form has a pattern, and perhaps a rule beside it.

    Args:
        chance: Where the letters and digits come from.

    Attributes:
        pattern: What the canonical form looks like.
    """

    pattern: ClassVar[re.Pattern[str]]

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance

    @abstractmethod
    def sample(self) -> str:
        """Make up the next plate.

        Returns:
            A plate as people write it.
        """

    def is_valid(self, plate: str) -> bool:
        """Say whether a plate has the pattern and follows the rule.

        Args:
            plate: A plate, canonical or as people write it.

        Returns:
            True when it does.
        """
        try:
            match = self.pattern.fullmatch(self.normal_form(plate))
        except ValueError:
            return False
        return match is not None and self.follows_rule(match)

    def normal_form(self, plate: str) -> str:
        """Bring a plate to the form that the pattern describes: the canonical one.

        Args:
            plate: A plate, canonical or as people write it.

        Returns:
            What is matched.

        Raises:
            ValueError: It is no plate at all.
        """
        return canonical_plate(plate)

    def follows_rule(self, match: re.Match[str]) -> bool:
        """Check what a pattern cannot say.

        Args:
            match: The canonical plate, matched by the pattern.

        Returns:
            True when it is right.
        """
        return True

    def letters(self, count: int, of: str = LETTERS) -> str:
        """Draw letters.

        Args:
            count: How many.
            of: Out of which.

        Returns:
            The letters.
        """
        return "".join(self.chance.choices(of, k=count))


def without(missing: str) -> str:
    """Give the alphabet without some letters.

    Args:
        missing: The letters that are left out.

    Returns:
        The others, in order.
    """
    return "".join(letter for letter in LETTERS if letter not in missing)
