"""Everything that the audit reads, put in the order of plates by a temporary database: memory stays small."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from types import TracebackType
from typing import Self

from carpark.domain.events import StaySummary, VehicleEntered, VehicleExited

KINDS = (VehicleEntered.kind, VehicleExited.kind)
"""What the records call an event of `carpark.domain.pairing`: its place here is `ENTRY` or `EXIT`."""

INSIDE = 2
"""The fact that the records have a vehicle inside; 0 and 1 are the events of `carpark.domain.pairing`."""

_FIRST_SINK = 3
SURE, DOUBTFUL = "", "?"
"""Of an event: it was published, or it was perhaps."""

Fact = tuple[str, int, str, str, str, str]
"""Plate, what it is, id, time (of the entry, for stays), time of the exit, and more: doubt, duration or state."""

_SURE_IF_ANY_IS = """
UPDATE facts SET more = '' WHERE what < 2 AND more <> '' AND EXISTS (
    SELECT 1 FROM facts other
    WHERE other.id = facts.id AND other.what = facts.what AND other.what < 2 AND other.more = '')
"""
_KEEP_THE_FIRST = """
DELETE FROM facts WHERE what < 2 AND EXISTS (
    SELECT 1 FROM facts other
    WHERE other.id = facts.id AND other.what = facts.what AND other.what < 2 AND other.rowid < facts.rowid)
"""
_CACHE_KIB = 64 * 1024


def row_of(sink: int) -> int:
    """Name the fact that a sink has a row."""
    return _FIRST_SINK + 2 * sink


def under_way_to(sink: int) -> int:
    """Name the fact that the backend still has a summary for a sink."""
    return row_of(sink) + 1


def under_way(sink: int, summary: StaySummary, state: str) -> Fact:
    """Make the fact that the backend still has a summary for a sink."""
    times = summary.entry_date_time, summary.exit_date_time
    return summary.vehicle_plate, under_way_to(sink), summary.id, *times, state


class Facts:
    """A temporary database of facts; it is on disk beyond `_CACHE_KIB` and gone when it is closed."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{_CACHE_KIB}", "temp_store = FILE"):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.execute("CREATE TABLE facts (plate TEXT, what INT, id TEXT, time TEXT, until TEXT, more TEXT)")
        self._database.execute("BEGIN")
        self.count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._database.close()

    def add(self, facts: Iterable[Fact]) -> None:
        """Take facts."""
        self.count += self._database.executemany("INSERT INTO facts VALUES (?, ?, ?, ?, ?, ?)", facts).rowcount

    def once(self) -> int:
        """Keep each event once: of several with one id the first; it is sure if any of them is."""
        self._database.execute("CREATE INDEX events ON facts (id, what) WHERE what < 2")
        repeats = self._database.execute(
            "SELECT 1 FROM facts WHERE what < 2 GROUP BY id, what HAVING count(*) > 1 LIMIT 1"
        )
        if repeats.fetchone() is None:
            return 0
        self._database.execute(_SURE_IF_ANY_IS)
        count = self._database.execute(_KEEP_THE_FIRST).rowcount
        self.count -= count
        return count

    def doubt(self, events: Iterable[tuple[int, str]]) -> None:
        """Mark events as perhaps processed and perhaps not; call it after `once`."""
        self._mark(DOUBTFUL, events)

    def doubtful(self) -> list[tuple[int, str]]:
        """List the events in doubt."""
        return list(self._database.execute("SELECT what, id FROM facts WHERE what < 2 AND more <> ''"))

    def settle(self, events: Iterable[tuple[int, str]]) -> None:
        """Take away the doubt from events."""
        self._mark(SURE, events)

    def _mark(self, doubt: str, events: Iterable[tuple[int, str]]) -> None:
        statement = "UPDATE facts SET more = ? WHERE what = ? AND what < 2 AND id = ?"
        self._database.executemany(statement, ((doubt, *event) for event in events))

    def by_plate(self) -> Iterator[tuple[str, list[Fact]]]:
        """Go through all facts."""
        ordered = self._database.execute("SELECT * FROM facts ORDER BY plate, what, time")
        ordered.arraysize = 1000
        for plate, facts in groupby(ordered, key=itemgetter(0)):
            yield plate, list(facts)
