"""A day for the audit to look at: journals, what the sinks have, and a way to spoil either."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from carpark.domain.events import Event, StaySummary, VehicleEntered, format_duration
from carpark.ledger import COLUMNS, CSV_LINES
from carpark.ops.audit import Sources, Verdict, audit
from carpark.plugins.base import ReadBack
from tests.support.reference import account_for
from tests.support.stays import entered, exited


def stay(number: int, plate: str | None = None) -> list[Event]:
    """Make the entry and the exit of a stay; the higher the number, the later it is."""
    plate = plate or f"P{number:06}"
    return [entered(f"e{number}", plate, 10 * number), exited(f"x{number}", plate, 10 * number + 7)]


def summaries_of(events: Iterable[Event]) -> list[StaySummary]:
    """Make the summaries that events must come to, in the order of their exits."""
    found = (StaySummary.of_stay(*summary) for summary in account_for(events).summaries)
    return sorted(found, key=lambda summary: summary.exit_date_time)


class Day:
    """Files in a folder, and the verdict on them.

    Args:
        folder: Where the files are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journals = [folder / "entry.jsonl", folder / "exit.jsonl"]
        self.csv = folder / "summaries.csv"
        self.show = 10

    def publish(self, events: Sequence[Event], *, unconfirmed: Sequence[Event] = ()) -> None:
        """Write the journals; the unconfirmed events come last."""
        for kind, path in zip(("entry", "exit"), self.journals, strict=True):
            sure = [event.to_json() for event in events if event.kind == kind]
            doubtful = [event.to_json() for event in unconfirmed if event.kind == kind]
            lines = ['{"confirmed": 0}', *sure, json.dumps({"confirmed": len(sure)}), *doubtful]
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def summarise(self, summaries: Iterable[StaySummary]) -> None:
        """Write the CSV."""
        write_csv(self.csv, summaries)

    @property
    def sinks(self) -> dict[str, ReadBack]:
        """What the one sink keeps."""
        return {"http-csv": ReadBack.of_file(self.csv, CSV_LINES.read)}

    def verdict(self, **sources: Any) -> Verdict:
        """Audit the day."""
        return audit(Sources(**{"journals": self.journals, "sinks": self.sinks, **sources}), show=self.show)


def write_csv(path: Path, summaries: Iterable[StaySummary]) -> None:
    """Write a CSV as the writer does."""
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for summary in summaries:
            rows.writerow((summary.to_dict() | {"duration": format_duration(summary.duration)}).values())


def write_lines(path: Path, summaries: Iterable[StaySummary]) -> None:
    """Write JSON lines as the sink ``jsonl`` does."""
    path.write_text("".join(json.dumps(summary.to_dict()) + "\n" for summary in summaries), encoding="utf-8")


def write_database(path: Path, summaries: Iterable[StaySummary]) -> None:
    """Write a database as the sink ``sqlite`` does."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(f"CREATE TABLE stays ({', '.join(COLUMNS)})")
        database.executemany(
            "INSERT INTO stays VALUES (?, ?, ?, ?, ?)", [tuple(s.to_dict().values()) for s in summaries]
        )


def wrongs(verdict: Verdict) -> tuple[int, int, int]:
    """Give lost, duplicated and unexpected."""
    return verdict.lost, verdict.duplicated, verdict.unexpected


def entries_of(events: Iterable[Event]) -> list[Event]:
    """Pick the entries."""
    return [event for event in events if isinstance(event, VehicleEntered)]
