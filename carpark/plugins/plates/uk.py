"""Plates of the United Kingdom since September 2001."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime

from carpark.errors import InvalidSetting
from carpark.plugins.base import PlatesType, PluginContext
from carpark.plugins.plates.pattern import PatternPlates, without
from carpark.plugins.spec import hookimpl

_AREA = without("IQZ")
_LAST = without("IQ")
_FIRST_DAY = date(2001, 9, 1)


class UkPlates(PatternPlates):
    """Two letters, the age identifier and three letters, such as ``LB07 XYZ``; never younger than the clock's day.

    Args:
        chance: Where letters and ages come from.
        clock: Says what time it is, as an aware datetime.
    """

    pattern = re.compile(f"[{_AREA}]{{2}}([0-9]{{2}})[{_LAST}]{{3}}")

    def __init__(self, chance: random.Random, clock: Callable[[], datetime]) -> None:
        super().__init__(chance)
        self._clock = clock
        self._day = date.min
        self._ages: tuple[str, ...] = ()

    def sample(self) -> str:
        """Make up a plate.

        Returns:
            For example ``LB07 XYZ``.
        """
        return f"{self.letters(2, _AREA)}{self.chance.choice(self._ages_today())} {self.letters(3, _LAST)}"

    def follows_rule(self, match: re.Match[str]) -> bool:
        """Look whether the age identifier has been given out yet.

        Args:
            match: Holds the age identifier.

        Returns:
            True when it has.
        """
        return match[1] in self._ages_today()

    def _ages_today(self) -> tuple[str, ...]:
        today = self._clock().astimezone(UTC).date()
        if today != self._day:
            self._day, self._ages = today, age_identifiers(today)
        return self._ages


def age_identifier(day: date) -> str:
    """Give the number of the plates that are given out on a day.

    Args:
        day: The day.

    Returns:
        The two-digit year from 1 March to 31 August; from September that September's plus 50, until February's end.
    """
    if 3 <= day.month <= 8:
        return f"{day.year % 100:02}"
    september = day.year if day.month >= 9 else day.year - 1
    return f"{(september + 50) % 100:02}"


def age_identifiers(today: date) -> tuple[str, ...]:
    """List the age identifiers that have been given out.

    Args:
        today: The last day that counts.

    Returns:
        Each one once, oldest first: ``51``, ``02``, ``52`` and so on; none before September 2001.
    """
    halves = [date(year, month, 1) for year in range(_FIRST_DAY.year, today.year + 1) for month in (3, 9)]
    return tuple(dict.fromkeys(age_identifier(day) for day in halves if _FIRST_DAY <= day <= today))


def _make(context: PluginContext, chance: random.Random) -> UkPlates:
    if not age_identifiers(context.clock().date()):
        raise InvalidSetting("CARPARK_PLATES", "uk", f"a clock that does not run before {_FIRST_DAY}, when uk begins")
    return UkPlates(chance, context.clock)


@hookimpl
def carpark_register_plates() -> Sequence[PlatesType]:
    """Offer ``uk``.

    Returns:
        The one offer.
    """
    return [PlatesType("uk", _make, "United Kingdom since September 2001: LB07 XYZ")]
