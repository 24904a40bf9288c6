"""Reads back what the built-in sinks keep: CSV, JSON lines, SQLite."""

from __future__ import annotations

import csv
import json
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from carpark.plugins.base import ReadBack

COLUMNS = ("id", "vehicle_plate", "entry_date_time", "exit_date_time", "duration")
_SQLITE = b"SQLite format 3\0"


def read_back_file(path: Path) -> ReadBack:
    """Say what is in a file of summaries.

    Args:
        path: A CSV, JSON lines or a SQLite database, which is seen from its beginning.

    Returns:
        Its rows. One that is not there has none.
    """
    try:
        status = path.stat()
    except OSError:
        return ReadBack(str(path), lambda: _rows(path), exists=False)
    return ReadBack(str(path), lambda: _rows(path), stat.S_ISREG(status.st_mode), status.st_size)


def _rows(path: Path) -> Iterator[list[str] | str]:
    if not path.exists():
        return
    with path.open("rb") as file:
        start = file.read(len(_SQLITE))
        file.seek(max(0, file.seek(0, 2) - 1))
        ends = file.read(1) == b"\n"
    if start == _SQLITE:
        yield from _of_sqlite(path)
    elif start.startswith(b"{"):
        yield from _of_lines(path, ends)
    else:
        yield from _of_csv(path, ends)


def _of_sqlite(path: Path) -> Iterator[list[str]]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        for row in database.execute(f"SELECT {', '.join(COLUMNS)} FROM stays"):  # noqa: S608 - our own names
            yield [str(value) for value in row]


def _of_lines(path: Path, ends: bool) -> Iterator[list[str] | str]:
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            try:
                fields = json.loads(line)
                yield [str(fields[name]) for name in COLUMNS]
            except (ValueError, KeyError, TypeError):
                if ends or line.endswith("\n"):
                    yield line.strip()


def _of_csv(path: Path, ends: bool) -> Iterator[list[str] | str]:
    """Read a CSV. A last line without its end was not acknowledged: it is left out unless it is surely whole."""
    with path.open(encoding="utf-8-sig", newline="") as file:  # a copy that a spreadsheet saved may have the mark
        reader = csv.reader(file)
        if next(reader, None) not in (None, list(COLUMNS)):
            raise csv.Error(f"wanted the header {','.join(COLUMNS)}")
        before: list[str] | None = None
        for row in reader:
            if before is not None:
                yield _checked(before)
            before = row
        if before is not None and ends:
            yield _checked(before)


def _checked(row: list[str]) -> list[str] | str:
    return row if len(row) == len(COLUMNS) else ",".join(row)
