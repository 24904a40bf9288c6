"""The canonical forms: one spelling for every number plate and for every moment, so that they compare as text."""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, date, datetime, timedelta
from unicodedata import category, normalize

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
LETTERS = frozenset(("Lu", "Ll", "Lt", "Lm", "Lo", "Nd"))
"""The Unicode categories of letters and digits."""

MAX_PLATE = 24
"""The most characters of a canonical plate."""

_WANTED = f"wanted 1 to {MAX_PLATE} letters and digits"
_MOST = 4 * MAX_PLATE  # one character of a plate is at most four when it is decomposed
_MARKS = frozenset(("Mn", "Mc", "Me"))
_OF_A_PLATE = LETTERS | _MARKS
_SPACED = {
    **dict.fromkeys(("Zs", "Zl", "Zp", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So"), " "),
    "Cf": "",
}
_ASCII_SEPARATORS = {number: None for number in range(0x20, 0x7F) if not chr(number).isalnum()}


def canonical_plate(text: str) -> str:
    """Make a number plate comparable, whatever its spelling: NFKC, letters, marks and digits alone, upper case, NFKC.

    Args:
        text: The plate as a camera or a person wrote it.

    Returns:
        1 to `MAX_PLATE` characters, each of Unicode category ``L*``, ``M*`` or ``Nd``, and not marks alone. What only
        separates (``Z*``, ``P*``, ``S*``) or is invisible (``Cf``) is left out. Canonicalised again it stays the same.

    Raises:
        ValueError: The plate is empty, too long, or has another kind of character.
    """
    if text.isascii():
        if text.isalnum() and len(text) <= MAX_PLATE:
            return text.upper()
        plate = text.translate(_ASCII_SEPARATORS)
        if plate.isalnum() and len(plate) <= MAX_PLATE:
            return plate.upper()
    # Sorting a long run of combining marks takes NFKC seconds, so what cannot become a plate does not get there.
    if len(text) > _MOST and sum(category(c) not in _SPACED for c in text) > _MOST:
        raise ValueError(f"{_WANTED}, got {shown(text)}")
    kept = spaced(text).replace(" ", "")
    plate = normalize("NFKC", kept.upper()) if len(kept) <= _MOST else ""
    if not 1 <= len(plate) <= MAX_PLATE:
        raise ValueError(f"{_WANTED}, got {shown(text)}")
    categories = set(map(category, plate))
    if not categories <= _OF_A_PLATE:
        odd = next(c for c in plate if category(c) not in _OF_A_PLATE)
        raise ValueError(f"wanted letters and digits, got {odd!a} (Unicode category {category(odd)})")
    if categories <= _MARKS:
        raise ValueError(f"wanted letters and digits, got marks alone: {plate!a}")
    return plate


def spaced(plate: str) -> str:
    """Show where a plate is separated.

    Args:
        plate: The plate as a camera or a person wrote it.

    Returns:
        The plate in NFKC with a space for each character that only separates, and without invisible ones.
    """
    return "".join([_SPACED.get(category(c), c) for c in normalize("NFKC", plate)])


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
