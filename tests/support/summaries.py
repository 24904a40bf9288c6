"""Summaries to test with, and the CSV as another program reads it."""

from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from carpark.domain.events import StaySummary, format_time
from carpark.ledger import CSV_LINES, Ledger, Line

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
HEADER = b"id,vehicle_plate,entry_date_time,exit_date_time,duration\r\n"


def stay(id_: str, plate: str = "B123", *, minutes: float = 90, left: datetime = NOON) -> StaySummary:
    """Make a summary of a stay that ended at a time."""
    return StaySummary.of_stay(id_, plate, format_time(left - timedelta(minutes=minutes)), format_time(left))


def summary(id_: str, plate: str = "B123", *, minutes: float = 90, left: datetime = NOON) -> Line:
    """Make such a summary as the file takes it."""
    return CSV_LINES.line(stay(id_, plate, minutes=minutes, left=left))


def posted(id_: str, plate: str = "B123", **changes: Any) -> dict[str, Any]:
    """Make the object that is posted."""
    return {**stay(id_, plate).to_dict(), **changes}


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read the file with Python's csv module, as strictly as it can."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def ids_in(path: Path) -> list[str]:
    """Read the ids of the file, in its order."""
    return [row["id"] for row in read_csv(path)]


def write(path: Path, *ids: str) -> tuple[int, int]:
    """Open the file, write summaries with these ids, close it."""
    with Ledger(path) as file:
        return file.append([summary(id_) for id_ in ids])


def index_of(path: Path) -> Path:
    """Say where the file's index is."""
    return path.with_name(path.name + ".index.sqlite")
