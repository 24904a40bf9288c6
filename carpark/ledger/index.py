"""What is in the file, for quick questions: a SQLite database beside it that can always be deleted.

The file is the truth, and the only thing that is synced for each list; what it has gained is one transaction here.
SQLite's write-ahead log, not synced, is whole after SIGKILL and consistent after a power cut, when it may lack the
last transactions: the file's lines behind the length that the index knows are read in again.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from carpark.domain.events import PRIVATE
from carpark.ledger.file import Stamp

BUCKET_WIDTHS = (10, 300, 3600, 86400)
"""Seconds that one bucket of the count of stays over time covers; each is a multiple of the first."""

_VERSION = 2
_SCHEMA = """
BEGIN;
CREATE TABLE ids (digest BLOB PRIMARY KEY, offset INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE buckets (width INTEGER, start INTEGER, stays INTEGER NOT NULL, PRIMARY KEY (width, start)) WITHOUT ROWID;
CREATE TABLE state (upto INTEGER, mark BLOB, mtime INTEGER, rows INTEGER, ids INTEGER, seconds REAL);
INSERT INTO state VALUES (0, x'', 0, 0, 0, 0.0);
PRAGMA user_version = 2;
COMMIT;
"""
_CACHE_KIB, _BUILD_CACHE_KIB = 4 * 1024, 24 * 1024
_BUSY_SECONDS = 5  # for which another process recovers or closes it


class Entry(NamedTuple):
    """What is known of a line: its id's digest, where it begins, when its stay ended, the stay's seconds."""

    digest: bytes
    offset: int
    exit_second: int | None
    duration: float


class Totals(NamedTuple):
    """The whole file in two numbers: its summaries, and the sum of their durations in seconds."""

    rows: int
    seconds: float


class Index:
    """The database, of one process or shared by several. Not thread-safe. Any call may raise sqlite3.Error."""

    def __init__(self, path: Path, *, shared: bool) -> None:
        self.path, self._shared = path, shared
        self._db = sqlite3.connect(":memory:", check_same_thread=False)  # none yet

    def open(self) -> None:
        """Open it; it is made when it is missing."""
        self.close()
        with suppress(OSError):  # SQLite says it better
            self.path.touch(PRIVATE)
        self._db = sqlite3.connect(self.path, _BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        run = self._db.execute
        run(f"PRAGMA locking_mode = {'NORMAL' if self._shared else 'EXCLUSIVE'}")
        run("PRAGMA page_size = 1024")  # each id touches a page of its own, which goes into the log as a whole
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = NORMAL")
        run("PRAGMA wal_autocheckpoint = 16000")  # pages: what waits for a checkpoint is one list in many
        run(f"PRAGMA cache_size = -{_CACHE_KIB}")
        version = run("PRAGMA user_version").fetchone()[0]
        if not version and not run("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            self._db.executescript(_SCHEMA)
        elif version != _VERSION:
            raise sqlite3.DatabaseError("this is another kind of index")

    def close(self) -> None:
        """Let go of it. May be called again."""
        self._db.close()

    def remove(self) -> None:
        """Throw it away, if there is one."""
        self.close()
        for ending in ("", "-wal", "-shm", "-journal"):
            Path(f"{self.path}{ending}").unlink(missing_ok=True)

    @property
    def stamp(self) -> Stamp:
        """How far it goes, and into which file."""
        return Stamp(*self._state("upto, mark, mtime"))

    def totals(self) -> Totals:
        """Count the file without reading it."""
        return Totals(*self._state("rows, seconds"))

    def is_complete(self) -> bool:
        """Tell whether it has the ids that it should have; takes some milliseconds per 100,000."""
        return bool(self._state("ids = (SELECT count(*) FROM ids)")[0])

    def _state(self, columns: str) -> tuple[Any, ...]:
        state: tuple[Any, ...] | None = self._db.execute(f"SELECT {columns} FROM state").fetchone()  # noqa: S608 - ours
        if state is None:
            raise sqlite3.DatabaseError("the index has no state")
        return state

    def offset_of(self, digest: bytes) -> int | None:
        """Look up where the line of an id begins; None when the id is not there."""
        found = self._db.execute("SELECT offset FROM ids WHERE digest = ?", (digest,)).fetchone()
        return found[0] if found else None

    def add(self, lines: Iterable[Entry], stamp: Stamp) -> None:
        """Take in lines of the file, which is on disk so far: all of them or, when it raises, none."""
        entries, finest, rows, seconds = [], Counter[int](), 0, 0.0
        for digest, offset, exit_second, duration in lines:
            entries.append((digest, offset))
            rows += 1
            seconds += duration
            if exit_second is not None:
                finest[exit_second // BUCKET_WIDTHS[0] * BUCKET_WIDTHS[0]] += 1
        buckets = Counter[tuple[int, int]]()
        for start, stays in finest.items():
            for width in BUCKET_WIDTHS:
                buckets[width, start // width * width] += stays
        entries.sort()  # neighbours in the tree are written together
        run = self._db.execute
        run("BEGIN IMMEDIATE")
        try:
            before = self._db.total_changes
            self._db.executemany("INSERT OR IGNORE INTO ids VALUES (?, ?)", entries)
            new_ids = self._db.total_changes - before
            self._db.executemany(
                "INSERT INTO buckets VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET stays = stays + excluded.stays",
                ((width, start, stays) for (width, start), stays in buckets.items()),
            )
            run(
                "UPDATE state SET upto = ?, mark = ?, mtime = ?, rows = rows + ?, ids = ids + ?, seconds = seconds + ?",
                (*stamp, rows, new_ids, seconds),
            )
            run("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                run("ROLLBACK")
            raise

    def stays(self, width: int, first: int, last: int) -> Mapping[int, int]:
        """Count stays by when they ended, in seconds since 1970: the buckets with any, by their start."""
        found = self._db.execute(
            "SELECT start, stays FROM buckets WHERE width = ? AND start BETWEEN ? AND ?", (width, first, last)
        )
        return dict(found.fetchall())

    def bounds(self, upto: int) -> tuple[int, int] | None:
        """Find the first of the finest buckets and the last up to there; None when there is none up to there."""
        run, width = self._db.execute, BUCKET_WIDTHS[0]
        last = run("SELECT max(start) FROM buckets WHERE width = ? AND start <= ?", (width, upto)).fetchone()[0]
        first = run("SELECT min(start) FROM buckets WHERE width = ?", (width,)).fetchone()[0]
        return None if last is None else (first, last)

    @contextmanager
    def building(self) -> Iterator[None]:
        """Use more memory while many lines are taken in."""
        self._db.execute(f"PRAGMA cache_size = -{_BUILD_CACHE_KIB}")
        yield
        self._db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._db.execute("PRAGMA shrink_memory")
