"""Plates of Singapore, whose last letter checks the others."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from carpark.plugins.base import PlatesType, PluginContext
from carpark.plugins.plates.pattern import PatternPlates
from carpark.plugins.spec import hookimpl

_WEIGHTS = (9, 4, 5, 4, 3, 2)
_CHECK_LETTERS = "AZYXUTSRPMLKJHGEDCB"


class SingaporePlates(PatternPlates):
    """One to three letters, one to four digits and the check letter, such as ``SBS 9683 X``.

    The check letter finds every wrong digit: the weights and their modulus, the prime 19, have no common factor.
    """

    pattern = re.compile(f"([A-Z]{{1,3}})([0-9]{{1,4}})([{_CHECK_LETTERS}])")

    def sample(self) -> str:
        """Make up a plate; its number has no leading zero.

        Returns:
            For example ``SBS 9683 X``.
        """
        prefix = self.letters(self.chance.randint(1, 3))
        number = str(self.chance.randint(1, 9999))
        return f"{prefix} {number} {check_letter(prefix, number)}"

    def follows_rule(self, match: re.Match[str]) -> bool:
        """Compare the check letter.

        Args:
            match: Prefix, number and check letter.

        Returns:
            True when it is the right one.
        """
        prefix, number, check = match.groups()
        return check_letter(prefix, number) == check


def check_letter(prefix: str, number: str) -> str:
    """Compute the last letter of a plate.

    Args:
        prefix: One to three letters from A to Z, of which the last two count.
        number: One to four digits.

    Returns:
        The letter.
    """
    values = [ord(letter) - ord("A") + 1 for letter in prefix[-2:]]
    values = [0] * (2 - len(values)) + values + [int(digit) for digit in number.zfill(4)]
    total = sum(weight * value for weight, value in zip(_WEIGHTS, values, strict=True))
    return _CHECK_LETTERS[total % len(_CHECK_LETTERS)]


def _make(context: PluginContext, chance: random.Random) -> SingaporePlates:
    return SingaporePlates(chance)


@hookimpl
def carpark_register_plates() -> Sequence[PlatesType]:
    """Offer ``singapore``.

    Returns:
        The one offer.
    """
    return [PlatesType("singapore", _make, "Singapore, with the check letter: SBS 9683 X")]
