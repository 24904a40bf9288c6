"""What is in the CSV, for quick questions: a SQLite file beside it that can always be made again from the CSV.

The CSV is the truth and is the only thing that is fsynced per request. The index is written without fsync, which a
killed process survives (the system still holds the pages) and a power cut does not; so it is believed only in the
same boot of the machine as the one that wrote it, or after it was closed in order, and only if it fits the CSV.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from carpark.domain.events import PRIVATE
from writer.rows import Row

BUCKET_WIDTHS = (10, 300, 3600, 86400)
"""Seconds that one bucket of the count of stays over time covers; each is a multiple of the first."""

_VERSION = 1
_SCHEMA = """
CREATE TABLE ids (digest BLOB PRIMARY KEY, offset INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE buckets (width INTEGER, start INTEGER, stays INTEGER NOT NULL, PRIMARY KEY (width, start)) WITHOUT ROWID;
CREATE TABLE state (upto INTEGER, mark BLOB, mtime INTEGER, rows INTEGER, ids INTEGER, seconds REAL, boot TEXT,
                    clean INTEGER);
INSERT INTO state VALUES (0, x'', 0, 0, 0, 0.0, '', 0);
"""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_CACHE_KIB = 4096
_BUILD_CACHE_KIB = 24 * 1024


@dataclass(frozen=True, slots=True)
class Stamp:
    """How far into the CSV the index goes, and how to tell whether it is still that CSV.

    Args:
        upto: Bytes of the CSV that are in the index.
        mark: A digest of the bytes just before ``upto``.
        mtime: When the CSV was last written, in nanoseconds since 1970.
    """

    upto: int
    mark: bytes
    mtime: int


@dataclass(frozen=True, slots=True)
class Totals:
    """The whole file in two numbers.

    Args:
        rows: Summaries in the file.
        seconds: The sum of their durations.
    """

    rows: int
    seconds: float


class Index:
    """The SQLite file. Not thread-safe: its owner holds a lock around each call. Any call may raise sqlite3.Error.

    Args:
        path: The file; made when it is missing. One that is not an index, or a damaged one, is an sqlite3.Error.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with contextlib.suppress(OSError):  # SQLite says it better
            path.touch(PRIVATE)
        self._db = sqlite3.connect(path, timeout=1, isolation_level=None, check_same_thread=False)
        try:
            self._open()
        except BaseException:
            self._db.close()
            raise

    def _open(self) -> None:
        run = self._db.execute
        run("PRAGMA locking_mode = EXCLUSIVE")
        run("PRAGMA journal_mode = DELETE")
        run(f"PRAGMA cache_size = -{_CACHE_KIB}")
        version = run("PRAGMA user_version").fetchone()[0]
        empty = not run("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if empty:
            self._db.executescript(_SCHEMA)
            run(f"PRAGMA user_version = {_VERSION}")
        elif version != _VERSION:
            raise sqlite3.DatabaseError("this is another kind of index")
        _, _, _, _, ids, _, boot, clean = self._state()
        trusted = empty or bool(clean) or (boot != "" and boot == _boot_id())
        self.believable = trusted and run("SELECT count(*) FROM ids").fetchone()[0] == ids
        """Whether it is known to be as it was written, and complete."""
        # That the index is in use must be on disk before anything is written without fsync.
        run("PRAGMA synchronous = FULL")
        run("UPDATE state SET clean = 0, boot = ?", (_boot_id(),))
        run("PRAGMA synchronous = OFF")

    def _state(self) -> tuple[int, bytes, int, int, int, float, str, int]:
        state: tuple[int, bytes, int, int, int, float, str, int] | None
        state = self._db.execute("SELECT * FROM state").fetchone()
        if state is None:
            raise sqlite3.DatabaseError("the index has no state")
        return state

    @property
    def stamp(self) -> Stamp:
        """How far the index goes."""
        return Stamp(*self._state()[:3])

    def totals(self) -> Totals:
        """Count the file.

        Returns:
            Its rows and the sum of their durations.
        """
        state = self._state()
        return Totals(state[3], state[5])

    def offset_of(self, digest: bytes) -> int | None:
        """Look up an id.

        Args:
            digest: The id's digest.

        Returns:
            Where its line begins in the CSV, in bytes; None when the id is not there.
        """
        found = self._db.execute("SELECT offset FROM ids WHERE digest = ?", (digest,)).fetchone()
        return found[0] if found else None

    def add(self, lines: Iterable[tuple[bytes, int, Row]], stamp: Stamp) -> None:
        """Take in lines of the CSV, all of them or, when it raises, none.

        Args:
            lines: Digest, offset and row of each.
            stamp: How far the index goes with them.
        """
        entries, finest, rows, seconds = [], Counter[int](), 0, 0.0
        for digest, offset, row in lines:
            entries.append((digest, offset))
            rows += 1
            seconds += row.duration
            if row.exit_second is not None:
                finest[row.exit_second // BUCKET_WIDTHS[0] * BUCKET_WIDTHS[0]] += 1
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
                (stamp.upto, stamp.mark, stamp.mtime, rows, new_ids, seconds),
            )
            run("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                run("ROLLBACK")
            raise

    def stays(self, width: int, first: int, last: int) -> Mapping[int, int]:
        """Count stays over time, by when they ended.

        Args:
            width: Seconds per bucket, one of `BUCKET_WIDTHS`.
            first: Start of the first bucket, in seconds since 1970.
            last: Start of the last bucket.

        Returns:
            Start of a bucket to the stays that ended in it; empty buckets are missing.
        """
        found = self._db.execute(
            "SELECT start, stays FROM buckets WHERE width = ? AND start BETWEEN ? AND ?", (width, first, last)
        )
        return dict(found.fetchall())

    def first_bucket(self, width: int) -> int | None:
        """Find where the stays begin.

        Args:
            width: Seconds per bucket, one of `BUCKET_WIDTHS`.

        Returns:
            Start of the earliest bucket, in seconds since 1970; None when there are no stays.
        """
        first: int | None = self._db.execute("SELECT min(start) FROM buckets WHERE width = ?", (width,)).fetchone()[0]
        return first

    def last_bucket(self, width: int, upto: int) -> int | None:
        """Find where the stays end.

        Args:
            width: Seconds per bucket, one of `BUCKET_WIDTHS`.
            upto: Later buckets are left out, in seconds since 1970.

        Returns:
            Start of the latest bucket up to there; None when there is none.
        """
        run = self._db.execute
        found = run("SELECT max(start) FROM buckets WHERE width = ? AND start <= ?", (width, upto)).fetchone()
        last: int | None = found[0]
        return last

    def building(self, on: bool) -> None:
        """Use more memory while many lines are taken in.

        Args:
            on: Whether that begins or ends.
        """
        self._db.execute(f"PRAGMA cache_size = -{_BUILD_CACHE_KIB if on else _CACHE_KIB}")
        if not on:
            self._db.execute("PRAGMA shrink_memory")

    def close(self) -> None:
        """Write what is pending through to the disk, so that the index is believed at the next start, and let go."""
        try:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("PRAGMA synchronous = FULL")
                self._db.execute("UPDATE state SET clean = 1")
        finally:
            self._db.close()

    def abandon(self) -> None:
        """Let go without a word: the index is about to be thrown away."""
        self._db.close()


def remove(path: Path) -> None:
    """Throw an index away.

    Args:
        path: Its file; nothing happens when there is none.
    """
    for name in (path, path.with_name(path.name + "-journal"), path.with_name(path.name + "-wal")):
        name.unlink(missing_ok=True)


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
