"""Reads sinks back: CSV, JSON lines, SQLite."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from carpark.errors import InvalidSetting
from carpark.ops.audit.facts import Facts, row_of

COLUMNS = ("id", "vehicle_plate", "entry_date_time", "exit_date_time", "duration")
_TYPICAL_LINE = 110
"""Bytes; the place in a file is not known while it is read ahead."""
_SQLITE = b"SQLite format 3\0"


def read_rows(path: Path, sink: int, facts: Facts, since: str, advance: Callable[[int], None]) -> tuple[int, list[str]]:
    """Read what a sink has.

    Args:
        path: Its file: a CSV, JSON lines or a SQLite database, which is seen from its beginning. One that is not there
            has no rows.
        sink: The sink's number.
        facts: Takes the rows.
        since: Stays that ended before this canonical time are left out.
        advance: Hears how many bytes have been read.

    Returns:
        How many rows were taken, and the lines that are no summaries.

    Raises:
        InvalidSetting: The file cannot be read, or is something else.
    """
    count, foreign = 0, []
    what = row_of(sink)
    try:
        for row in _rows(path, advance):
            if isinstance(row, str):
                foreign.append(row)
                continue
            id_, plate, entered, left, duration = row
            if left >= since:
                count += 1
                facts.add([(plate, what, id_, entered, left, duration)])
    except (OSError, sqlite3.Error, UnicodeDecodeError, csv.Error) as error:
        raise InvalidSetting("the file of summaries", str(path), f"one that can be read ({error})") from error
    return count, foreign


def _rows(path: Path, advance: Callable[[int], None]) -> Iterator[list[str] | str]:
    if not path.exists():
        return
    with path.open("rb") as file:
        start = file.read(len(_SQLITE))
        size = file.seek(0, 2)
        file.seek(max(0, size - 1))
        ends = file.read(1) == b"\n"
    if start == _SQLITE:
        yield from _of_sqlite(path)
        advance(size)
    elif start.startswith(b"{"):
        yield from _of_lines(path, ends, advance)
    else:
        yield from _of_csv(path, ends, advance)


def _of_sqlite(path: Path) -> Iterator[list[str]]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        for row in database.execute(f"SELECT {', '.join(COLUMNS)} FROM stays"):  # noqa: S608 - our own names
            yield [str(value) for value in row]


def _of_lines(path: Path, ends: bool, advance: Callable[[int], None]) -> Iterator[list[str] | str]:
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            advance(len(line))
            try:
                fields = json.loads(line)
                yield [str(fields[name]) for name in COLUMNS]
            except (ValueError, KeyError, TypeError):
                if ends or line.endswith("\n"):
                    yield line.strip()


def _of_csv(path: Path, ends: bool, advance: Callable[[int], None]) -> Iterator[list[str] | str]:
    """Read a CSV. A last line without its end was not acknowledged: it is left out unless it is surely whole."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        if next(reader, None) not in (None, list(COLUMNS)):
            raise csv.Error(f"wanted the header {','.join(COLUMNS)}")
        before: list[str] | None = None
        for number, row in enumerate(reader):
            if before is not None:
                yield _checked(before)
            before = row
            if not number % 1000:
                advance(1000 * _TYPICAL_LINE)
        if before is not None and ends:
            yield _checked(before)


def _checked(row: list[str]) -> list[str] | str:
    return row if len(row) == len(COLUMNS) else ",".join(row)
