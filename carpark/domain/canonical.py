"""The canonical forms: one spelling for every number plate and for every moment, so that they compare as text."""

from __future__ import annotations

import contextlib
import re
import unicodedata
from datetime import UTC, date, datetime, timedelta

from carpark.errors import shown

TIME_LENGTH = len("2026-11-23T18:00:00.123456Z")
"""The length of every canonical time; being of one length, they sort as text."""

# RFC 3339, section 5.6, without the leap second. The year 0000 is legal in a local time whose UTC year is 0001.
RFC3339 = re.compile(
    r"([0-9]{4})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt]"
    r"([01][0-9]|2[0-3]):([0-5][0-9]):([0-5][0-9])(?:\.([0-9]{1,9}))?"
    r"(?:[Zz]|([+-])([01][0-9]|2[0-3]):([0-5][0-9]))"
)
# What most programs send: of this form, only the day of the calendar is left to check.
_CANONICAL = re.compile(
    r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])T"
    r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{6}Z"
)
_GREGORIAN_CYCLE = 400  # years after which the calendar repeats, leap years included
_SEPARATORS = ("Zs", "Pd")
_MOST = 4 * 16  # one character of a plate is at most four when it is decomposed


def canonical_plate(text: str) -> str:
    """Make a number plate comparable: NFC, no spaces or dashes, upper case, NFC again.

    Args:
        text: The plate as a camera or a person wrote it.

    Returns:
        1 to 16 characters, each of Unicode category ``L*`` or ``Nd``. Canonicalising it again changes nothing.

    Raises:
        ValueError: The plate is empty, too long, or has another kind of character.
    """
    if text.isascii() and text.isalnum() and len(text) <= 16:
        return text.upper()
    # Sorting a long run of combining marks takes NFC seconds, so what cannot become a plate does not get there.
    if len(text) > _MOST and sum(unicodedata.category(c) not in _SEPARATORS for c in text) > _MOST:
        raise ValueError(f"wanted 1 to 16 letters and digits, got {shown(text)}")
    kept = (c for c in unicodedata.normalize("NFC", text) if unicodedata.category(c) not in _SEPARATORS)
    plate = unicodedata.normalize("NFC", "".join(kept).upper())
    if not 1 <= len(plate) <= 16:
        raise ValueError(f"wanted 1 to 16 letters and digits, got {shown(text)}")
    for character in plate:
        category = unicodedata.category(character)
        if category[0] != "L" and category != "Nd":
            raise ValueError(f"wanted letters and digits, got {character!a} (Unicode category {category})")
    return plate


def canonical_time(text: str) -> str:
    """Bring an RFC 3339 date-time to UTC with six fraction digits.

    Args:
        text: RFC 3339 to the letter: ``T`` and ``Z`` in either case, or an offset ``±hh:mm``; no leap second; up to
            nine fraction digits, of which the ones after the sixth are cut off.

    Returns:
        ``2026-11-23T18:00:00.123456Z``: always `TIME_LENGTH` characters, so that times compare as text.

    Raises:
        ValueError: It is not such a date-time, or its UTC year is outside 0001 to 9999.
    """
    if _CANONICAL.fullmatch(text):
        with contextlib.suppress(ValueError):
            date.fromisoformat(text[:10])
            return text
    match = RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"wanted an RFC 3339 date-time such as 2026-11-23T18:00:00.123456Z, got {shown(text)}")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    fraction, sign, offset_hours, offset_minutes = match.groups()[6:]
    try:
        moment = datetime(year or _GREGORIAN_CYCLE, month, day, hour, minute, second)
        if sign:
            offset = timedelta(hours=int(offset_hours), minutes=int(offset_minutes))
            moment = moment - offset if sign == "+" else moment + offset
    except OverflowError:
        raise ValueError("wanted a UTC year from 0001 to 9999") from None
    except ValueError:
        raise ValueError(f"{text[:10]} is not a day of the calendar") from None
    if not year:
        if moment.year != _GREGORIAN_CYCLE + 1:
            raise ValueError("wanted a UTC year from 0001 to 9999")
        moment = moment.replace(year=1)
    micros = (fraction or "")[:6].ljust(6, "0")
    return f"{moment.isoformat(timespec='seconds')}.{micros}Z"


def format_time(moment: datetime) -> str:
    """Write an aware datetime in canonical form.

    Args:
        moment: Any aware datetime.

    Returns:
        The same moment as `canonical_time` writes it.
    """
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def parse_time(canonical: str) -> datetime:
    """Read a canonical time.

    Args:
        canonical: A time as `canonical_time` returns it.

    Returns:
        The aware datetime, in UTC.
    """
    return datetime.fromisoformat(canonical)


def duration_between(entry: str, exit_: str) -> float:
    """Compute how long a stay took.

    Args:
        entry: Canonical time of the entry.
        exit_: Canonical time of the exit.

    Returns:
        Seconds, with at most 6 decimals.
    """
    return (parse_time(exit_) - parse_time(entry)) / timedelta(seconds=1)


def format_duration(seconds: float) -> str:
    """Write a duration as people and spreadsheets read it: no exponent, no trailing zeros.

    Args:
        seconds: The duration in seconds.

    Returns:
        For example ``5400``, ``0.25`` or ``0.000001``.
    """
    return f"{seconds:.6f}".rstrip("0").rstrip(".")
