"""Plates of a fixed form: those of some countries, and of none."""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Sequence
from datetime import UTC, date
from functools import cache
from typing import ClassVar

from carpark.domain.canonical import spaced
from carpark.domain.events import canonical_plate
from carpark.errors import InvalidSetting
from carpark.plugins.base import PlateGenerator, PlatesType, PluginContext
from carpark.plugins.spec import hookimpl

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class PatternPlates(PlateGenerator):
    """Plates whose canonical form has a pattern, and perhaps a rule beside it.

    Args:
        context: What all plugins are given.
        chance: Where the letters and digits come from.

    Attributes:
        pattern: What the canonical form looks like.
    """

    pattern: ClassVar[re.Pattern[str]]

    def __init__(self, context: PluginContext, chance: random.Random) -> None:
        self.context, self.chance = context, chance

    def is_valid(self, plate: str) -> bool:
        """Say whether a plate has the pattern and follows the rule.

        Args:
            plate: A plate, canonical or as people write it.

        Returns:
            True when it does.
        """
        try:
            match = self.pattern.fullmatch(self._normal_form(plate))
        except ValueError:
            return False
        return match is not None and self._follows_rule(match)

    def _normal_form(self, plate: str) -> str:
        """Bring a plate to the form that the pattern describes."""
        return canonical_plate(plate)

    def _follows_rule(self, match: re.Match[str]) -> bool:
        """Check what a pattern cannot say."""
        return True

    def _letters(self, count: int, of: str = _LETTERS) -> str:
        return "".join(self.chance.choices(of, k=count))


def _without(missing: str) -> str:
    return "".join(letter for letter in _LETTERS if letter not in missing)


class AlphanumericPlates(PatternPlates):
    """Three letters and four digits, such as ``QBF 0427``: 175,760,000 plates, all equally likely."""

    pattern = re.compile(r"[A-Z]{3}[0-9]{4}")

    def sample(self) -> str:
        """Make up a plate.

        Returns:
            For example ``QBF 0427``.
        """
        return f"{self._letters(3)} {self.chance.randrange(10_000):04}"


class UkPlates(PatternPlates):
    """Two letters, the age identifier and three letters, such as ``LB07 XYZ``; never younger than the clock's day.

    Args:
        context: Its clock says which day it is.
        chance: Where the letters and ages come from.

    Raises:
        InvalidSetting: The clock runs before there were any.
    """

    _area, _last = _without("IQZ"), _without("IQ")
    pattern = re.compile(f"[{_area}]{{2}}([0-9]{{2}})[{_last}]{{3}}")

    def __init__(self, context: PluginContext, chance: random.Random) -> None:
        super().__init__(context, chance)
        if not self._ages():
            wanted = f"a clock that does not run before {_FIRST_DAY}, when uk begins"
            raise InvalidSetting("CARPARK_PLATES", "uk", wanted)

    def sample(self) -> str:
        """Make up a plate.

        Returns:
            For example ``LB07 XYZ``.
        """
        return f"{self._letters(2, self._area)}{self.chance.choice(self._ages())} {self._letters(3, self._last)}"

    def _follows_rule(self, match: re.Match[str]) -> bool:
        return match[1] in self._ages()

    def _ages(self) -> tuple[str, ...]:
        return age_identifiers(self.context.clock().astimezone(UTC).date())


_FIRST_DAY = date(2001, 9, 1)


@cache
def age_identifiers(today: date) -> tuple[str, ...]:
    """List the age identifiers that have been given out.

    From 1 March it is the two-digit year; from 1 September that plus 50, until the end of February.

    Args:
        today: The last day that counts.

    Returns:
        Each one once, oldest first: ``51``, ``02``, ``52`` and so on; none before September 2001.
    """
    halves = [date(year, month, 1) for year in range(_FIRST_DAY.year, today.year + 1) for month in (3, 9)]
    given_out = [day.year + 50 * (day.month == 9) for day in halves if _FIRST_DAY <= day <= today]
    return tuple(dict.fromkeys(f"{number % 100:02}" for number in given_out))


class SingaporePlates(PatternPlates):
    """One to three letters, one to four digits and the check letter, such as ``SBS 9683 X``.

    The check letter finds every wrong digit: the weights and their modulus, the prime 19, have no common factor.
    """

    _weights, _checks = (9, 4, 5, 4, 3, 2), "AZYXUTSRPMLKJHGEDCB"
    pattern = re.compile(f"([A-Z]{{1,3}})([0-9]{{1,4}})([{_checks}])")

    def sample(self) -> str:
        """Make up a plate; its number has no leading zero.

        Returns:
            For example ``SBS 9683 X``.
        """
        prefix = self._letters(self.chance.randint(1, 3))
        number = str(self.chance.randint(1, 9999))
        return f"{prefix} {number} {self.check_letter(prefix, number)}"

    def _follows_rule(self, match: re.Match[str]) -> bool:
        return self.check_letter(match[1], match[2]) == match[3]

    @classmethod
    def check_letter(cls, prefix: str, number: str) -> str:
        """Compute the last letter of a plate.

        Args:
            prefix: One to three letters from A to Z, of which the last two count.
            number: One to four digits.

        Returns:
            The letter.
        """
        values = [*(ord(letter) - ord("@") for letter in prefix[-2:].rjust(2, "@")), *map(int, number.zfill(4))]
        total = sum(weight * value for weight, value in zip(cls._weights, values, strict=True))
        return cls._checks[total % len(cls._checks)]


class GermanyPlates(PatternPlates):
    """District, one or two letters and a number, such as ``B-AB 123``; at most eight letters and digits.

    In canonical form ``B-AB 1`` and ``BA-B 1`` are both ``BAB1``: such a plate is valid if it can be split in one way.
    """

    _district, _never, _longest = _LETTERS + "ÄÖÜ", ("HJ", "KZ", "NS", "SA", "SD", "SS"), 8
    pattern = re.compile(f"[{_district}]{{1,3}}-?(?!(?:{'|'.join(_never)})[-0-9])[A-Z]{{1,2}}-?[1-9][0-9]{{0,3}}")

    def sample(self) -> str:
        """Make up a plate.

        Returns:
            For example ``B-AB 123``.
        """
        district = self._letters(self.chance.randint(1, 3), self._district)
        while (middle := self._letters(self.chance.randint(1, 2))) in self._never:
            pass
        digits = self.chance.randint(1, min(4, self._longest - len(district) - len(middle)))
        return f"{district}-{middle} {self.chance.randrange(10 ** (digits - 1), 10**digits)}"

    def _normal_form(self, plate: str) -> str:
        """Make a plate comparable, but keep where it is separated: in upper case with single hyphens."""
        return unicodedata.normalize("NFKC", re.sub(" +", "-", spaced(plate).strip(" ")).upper())

    def _follows_rule(self, match: re.Match[str]) -> bool:
        return len(match[0].replace("-", "")) <= self._longest


class CaliforniaPlates(PatternPlates):
    """A digit from 1 to 9, three letters, three digits, such as ``8BSG447``; I, O and Q only in the middle letter."""

    _outer = _without("IOQ")
    pattern = re.compile(f"[1-9][{_outer}][A-Z][{_outer}][0-9]{{3}}")

    def sample(self) -> str:
        """Make up a plate.

        Returns:
            For example ``8BSG447``.
        """
        letters = self._letters(1, self._outer) + self._letters(1) + self._letters(1, self._outer)
        return f"{self.chance.randint(1, 9)}{letters}{self.chance.randrange(1000):03}"


@hookimpl
def carpark_register_plates() -> Sequence[PlatesType]:
    """Offer the plates of some countries, and of none.

    Returns:
        An offer for each.
    """
    return [
        PlatesType("alphanumeric", AlphanumericPlates, "three letters and four digits, of no country: QBF 0427"),
        PlatesType("uk", UkPlates, "United Kingdom since September 2001: LB07 XYZ"),
        PlatesType("singapore", SingaporePlates, "Singapore, with the check letter: SBS 9683 X"),
        PlatesType("germany", GermanyPlates, "Germany: B-AB 123"),
        PlatesType("california", CaliforniaPlates, "California, passenger vehicles since 1980: 8BSG447"),
    ]
