"""One summary as one line of the CSV, both ways."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from carpark.domain.events import StaySummary, duration_between, format_duration

COLUMNS = ("id", "vehicle_plate", "entry_date_time", "exit_date_time", "duration")
HEADER = ",".join(COLUMNS).encode()
"""The first line, without its line end."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST_STAY = 9999 * 366 * 86400.0


@dataclass(frozen=True, slots=True)
class Row:
    """What the index keeps of a line.

    Args:
        id: The summary's id.
        exit_second: When the vehicle left: whole seconds since 1970 in UTC; None when the line does not say.
        duration: Seconds of the stay; 0.0 when the line does not say.
    """

    id: str
    exit_second: int | None
    duration: float

    @property
    def digest(self) -> bytes:
        """The id at a fixed length of 16 bytes, wide enough that no two ids ever meet."""
        return hashlib.blake2b(self.id.encode("utf-8", "surrogatepass"), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Line:
    """A summary as the file takes it. A long list of these takes a fraction of the memory of the summaries themselves.

    Args:
        row: What the index keeps of it.
        text: The line in UTF-8, without its end.
    """

    row: Row
    text: bytes


def line_of(summary: StaySummary) -> Line:
    """Make of a summary what is written.

    Args:
        summary: In canonical form; it has no control characters, so the line has no line break inside.

    Returns:
        Its row, and its line, quoted as RFC 4180 says where it must be.
    """
    texts = (
        _quoted(summary.id),
        _quoted(summary.vehicle_plate),
        summary.entry_date_time,
        summary.exit_date_time,
        format_duration(summary.duration),
    )
    row = Row(summary.id, _second(summary.exit_date_time), min(summary.duration, _LONGEST_STAY))
    return Line(row, ",".join(texts).encode())


def _quoted(text: str) -> str:
    if '"' in text or "," in text:
        return '"' + text.replace('"', '""') + '"'
    return text


def parse_line(line: bytes) -> list[str] | None:
    """Read the fields of a line.

    Args:
        line: The bytes of one line, with or without its end.

    Returns:
        Its five fields, or None when it is not such a line.
    """
    line = line.rstrip(b"\r\n")
    try:
        text = line.decode()
        fields = next(csv.reader([text], strict=True), []) if '"' in text else text.split(",")
    except (UnicodeDecodeError, csv.Error):
        return None
    return fields if len(fields) == len(COLUMNS) and fields[0] else None


def parse_row(line: bytes) -> Row | None:
    """Read of a line what the index keeps.

    Args:
        line: The bytes of one line, with or without its end.

    Returns:
        The row, or None when the line is not a summary's. A line that a person has edited still counts for its id.
    """
    fields = parse_line(line)
    if fields is None:
        return None
    try:
        second, duration = _second(fields[3]), float(fields[4])
    except ValueError:
        return Row(fields[0], None, 0.0)
    return Row(fields[0], second, duration) if 0 <= duration <= _LONGEST_STAY else Row(fields[0], second, 0.0)


def parse_summary(line: bytes) -> dict[str, Any] | None:
    """Read a line as the object that was posted.

    Args:
        line: The bytes of one line, with or without its end.

    Returns:
        The five fields, duration as a number; None when the line is not a summary's.
    """
    fields = parse_line(line)
    if fields is None:
        return None
    try:
        return dict(zip(COLUMNS, [*fields[:4], _number(fields[4])], strict=True))
    except ValueError:
        return None


def is_whole(line: bytes) -> bool:
    """Say whether a last line without its end has everything else.

    Args:
        line: The bytes after the last line end.

    Returns:
        True if it reads as a summary whose duration is, digit for digit, the time between its entry and its exit.
    """
    fields = parse_line(line)
    if fields is None:
        return False
    try:
        return fields[4] == format_duration(duration_between(fields[2], fields[3]))
    except (TypeError, ValueError):
        return False


def _number(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError(text)
    return value


def _second(canonical: str) -> int:
    moment = datetime.fromisoformat(canonical)
    if moment.tzinfo is None:
        raise ValueError(canonical)
    return int((moment - _EPOCH).total_seconds() // 1)
