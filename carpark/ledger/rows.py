"""One summary as one line of a file, both ways: RFC 4180 and JSON lines."""

from __future__ import annotations

import codecs
import csv
import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from carpark.domain.events import StaySummary, duration_between, format_duration

COLUMNS = tuple(StaySummary.model_fields)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST_STAY = 9999 * 366 * 86400.0


class Line(NamedTuple):
    """A line, and what the index keeps of it; a long list of these takes a fraction of the memory of summaries."""

    id: str
    text: bytes  # in UTF-8, without its end
    exit_second: int | None  # since 1970; None when the line does not say
    duration: float  # in seconds; 0.0 when the line does not say

    @property
    def digest(self) -> bytes:
        """The id at a fixed length of 16 bytes, wide enough that no two ids ever meet."""
        return hashlib.blake2b(self.id.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class LineFormat(ABC):
    """How a summary is written as a line, and the one way in which lines are read."""

    header: bytes  # the first line without its end; empty where there is none
    line_end: bytes  # of a new file

    @abstractmethod
    def write(self, summary: StaySummary) -> bytes:
        """Write a canonical summary, which has no control characters, as a line without its end."""

    @abstractmethod
    def fields(self, text: bytes) -> list[str] | None:
        """Read a line's five fields as texts; None when it is not a summary's, or torn."""

    def line(self, summary: StaySummary) -> Line:
        """Make of a summary what a ledger takes."""
        duration = min(summary.duration, _LONGEST_STAY)
        return Line(summary.id, self.write(summary), _second(summary.exit_date_time), duration)

    def parse(self, text: bytes) -> Line | None:
        """Read a line; one that a person has edited still counts for its id."""
        fields = self.fields(text)
        if fields is None:
            return None
        try:
            second, duration = _second(fields[3]), float(fields[4])
        except ValueError:
            second, duration = None, 0.0
        return Line(fields[0], text.rstrip(b"\r\n"), second, duration if 0 <= duration <= _LONGEST_STAY else 0.0)

    def summary(self, text: bytes) -> dict[str, Any] | None:
        """Read a line as the object that was posted; None when it is not a summary's."""
        if (fields := self.fields(text)) is None:
            return None
        try:
            duration = float(fields[4])
        except ValueError:
            return None
        return dict(zip(COLUMNS, [*fields[:4], duration], strict=True)) if 0 <= duration < math.inf else None

    def is_whole(self, text: bytes) -> bool:
        """Tell whether a last line lacks nothing but its end: its duration is the time between its two times."""
        fields = self.fields(text)
        try:
            # A number that was torn is a number still, but another one: durations are written without needless zeros.
            return fields is not None and float(fields[4]) == duration_between(fields[2], fields[3])
        except (TypeError, ValueError):
            return False

    def read(self, path: Path) -> Iterator[list[str] | str]:
        """Read a whole file for the audit: the fields of each row, or the text of a line that is none.

        A last line without its end was not acknowledged: it is left out unless it is surely whole. A ValueError says
        that the file begins with something else.
        """
        with path.open("rb") as file:
            if self.header:
                head = file.readline().removeprefix(codecs.BOM_UTF8)  # of a copy that a spreadsheet saved
                if head.rstrip(b"\r\n") != self.header and not (self.header + self.line_end).startswith(head):
                    raise ValueError(f"wanted the header {self.header.decode()}")
            for text in file:
                fields, ends = self.fields(text), text.endswith(b"\n")
                if ends or self.is_whole(text):
                    yield fields or text.decode("utf-8", "replace").strip()


class _Csv(LineFormat):
    header = ",".join(COLUMNS).encode()
    line_end = b"\r\n"

    def write(self, summary: StaySummary) -> bytes:
        texts = (
            _quoted(summary.id),
            _quoted(summary.vehicle_plate),
            summary.entry_date_time,
            summary.exit_date_time,
            format_duration(summary.duration),
        )
        return ",".join(texts).encode()

    def fields(self, text: bytes) -> list[str] | None:
        try:
            line = text.rstrip(b"\r\n").decode()
            fields = next(csv.reader([line], strict=True), []) if '"' in line else line.split(",")
        except (UnicodeDecodeError, csv.Error):
            return None
        return fields if len(fields) == len(COLUMNS) and fields[0] else None


class _JsonLines(LineFormat):
    header = b""
    line_end = b"\n"

    def write(self, summary: StaySummary) -> bytes:
        return json.dumps(summary.to_dict(), ensure_ascii=False, separators=(",", ":")).encode()

    def fields(self, text: bytes) -> list[str] | None:
        try:
            found = json.loads(text)
            fields = [str(found[name]) for name in COLUMNS]
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        return fields if fields[0] and isinstance(found["id"], str) else None


CSV_LINES: LineFormat = _Csv()
"""RFC 4180, with the columns in the order of `StaySummary`'s fields."""

JSON_LINES: LineFormat = _JsonLines()
"""A JSON object per line."""


def _quoted(text: str) -> str:
    if '"' in text or "," in text:
        return '"' + text.replace('"', '""') + '"'
    return text


def _second(canonical: str) -> int:
    moment = datetime.fromisoformat(canonical)
    if moment.tzinfo is None:
        raise ValueError(canonical)
    return int((moment - _EPOCH).total_seconds() // 1)
