"""The CSV file of summaries: append only, each id once, on disk before anyone is told so."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from carpark.errors import CarparkError
from carpark.failpoints import failpoints
from writer import index as index_module
from writer import rawfile
from writer.index import Index, Stamp, Totals
from writer.rows import HEADER, Line, Row, parse_line, parse_row, parse_summary

_MOST_UNINDEXED = 10_000
_REBUILD_BATCH = 20_000
_LONGEST_LINE = 4096
_T = TypeVar("_T")

logger = logging.getLogger("writer")


class _Waiting:
    """One caller's list, from its arrival to its answer."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.lines = deque(lines)  # each is let go of when its text is among what will be written
        self.written = self.duplicates = 0
        self.done = False
        self.error: OSError | None = OSError(errno.EIO, "the list was not written")


class SummaryFile:
    """The CSV and its index. All methods may be called from any thread.

    Once another program has appended to the file, nothing more is written: whose the lines are has to be settled, and
    where they are in the index is not known.

    Args:
        path: The CSV. It and its folders are made when they are missing; its last line is repaired when it is torn.

    Attributes:
        foreign: What is to be done about another program that has appended to the file, once that is noticed.
        on_foreign: Called when it is noticed.

    Raises:
        FileInUse: Another writer holds the file.
        InvalidSetting: The file cannot be used: it is something else, or may not be read and written.
        ServiceError: The disk is full or fails.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.index_path = Path(f"{path}.index.sqlite")
        self._reached = failpoints()
        self._waiting: deque[_Waiting] = deque()
        self._arrival = threading.Lock()
        self._commit = threading.Lock()
        self._index_lock = threading.RLock()
        self._unindexed: dict[bytes, tuple[int, Row]] = {}
        self._torn = b""
        self.foreign = ""
        self.on_foreign: Callable[[], object] = lambda: None
        self._fd = rawfile.open_locked(path)
        try:
            self._begin()
            self._index = self._open_index()
        except OSError as error:
            os.close(self._fd)
            raise rawfile.unusable(path, error) from error
        except BaseException:
            os.close(self._fd)
            raise

    def _begin(self) -> None:
        self._line_end = rawfile.begin(self._fd, self.path)
        self._first = len(HEADER) + len(self._line_end)
        self._size = rawfile.mend(self._fd, self.path, self._line_end)

    # -- writing

    def append(self, lines: Sequence[Line]) -> tuple[int, int]:
        """Write the lines whose ids are new; when this returns they are flushed and fsynced.

        Lists that arrive while another one is being written share one fsync.

        Args:
            lines: Of any number of summaries; an id may come again, in the list too.

        Returns:
            How many were written, and how many were duplicates.

        Raises:
            OSError: The disk is full or fails; nothing of the list is kept, and it can be tried again.
        """
        mine = _Waiting(lines)
        del lines
        with self._arrival:
            self._waiting.append(mine)
        with self._commit:
            if not mine.done:
                with self._arrival:
                    group = list(self._waiting)
                    self._waiting.clear()
                self._write_group(group)
        if mine.error is not None:
            raise mine.error
        return mine.written, mine.duplicates

    def _write_group(self, group: list[_Waiting]) -> None:
        try:
            self._check_place()
            data, rows = self._new_lines(group)
            if data:
                self._reached("writer-received")
                self._write(data)
                self._reached("writer-written")
                if os.fstat(self._fd).st_size == self._size + len(data):
                    self._take_in(rows, len(data))
                else:  # they are on disk, somewhere among the other's: the next start finds them
                    self._note_foreign()
            for one in group:
                one.error = None
        except (OSError, sqlite3.Error, CarparkError) as error:
            for one in group:
                one.error = _as_oserror(error)
        finally:
            for one in group:
                one.done = True

    def _new_lines(self, group: list[_Waiting]) -> tuple[bytearray, dict[bytes, tuple[int, Row]]]:
        if self._unindexed:
            self._flush_index()
        if len(self._unindexed) >= _MOST_UNINDEXED:
            with self._index_lock:
                self._rebuild()
        data = bytearray()
        rows: dict[bytes, tuple[int, Row]] = {}
        for one in group:
            while one.lines:
                line = one.lines.popleft()
                digest = line.row.digest
                if digest in rows or self._has(digest, line.row.id):
                    one.duplicates += 1
                    continue
                rows[digest] = (self._size + len(data), line.row)
                data += line.text
                data += self._line_end
                one.written += 1
        return data, rows

    def _has(self, digest: bytes, id_: str) -> bool:
        if digest in self._unindexed:
            return True
        offset = self._ask(lambda index: index.offset_of(digest))
        if offset is None:
            return False
        if self._id_at(offset) == id_:
            return True
        logger.warning("writer: the index of %s does not fit it; making it again", self.path)
        with self._index_lock:
            self._rebuild()
            return self._index.offset_of(digest) is not None

    def _id_at(self, offset: int) -> str | None:
        line, end, _ = os.pread(self._fd, min(_LONGEST_LINE, max(0, self._size - offset)), offset).partition(b"\n")
        fields = parse_line(line) if end else None
        return fields[0] if fields else None

    def _write(self, data: bytearray) -> None:
        try:
            if self._torn:
                self._cut_off()
            rawfile.append_all(self._fd, data)
            os.fsync(self._fd)
        except OSError:
            self._torn = self._torn or bytes(data)  # also after a failed fsync: what is on disk then is not known
            with contextlib.suppress(OSError):
                self._cut_off()
            raise

    def _cut_off(self) -> None:
        """Remove what a failed write left, but nothing of another program."""
        if not self._torn.startswith(os.pread(self._fd, len(self._torn) + 1, self._size)):
            raise self._note_foreign()
        os.ftruncate(self._fd, self._size)
        os.fsync(self._fd)
        self._torn = b""

    def _note_foreign(self) -> OSError:
        self.foreign = (
            f"another program has appended to {self.path}: nothing of it was overwritten, and nothing more is written; "
            "see to it that none does, look at the last lines, and start the writer again, which takes in those that "
            "are summaries"
        )
        self.on_foreign()
        return OSError(errno.ESTALE, self.foreign)

    def _take_in(self, rows: dict[bytes, tuple[int, Row]], written: int) -> None:
        with self._index_lock:  # so that nobody makes the index again with these and then counts them twice
            self._size += written
            self._unindexed.update(rows)
            self._flush_index()

    def _flush_index(self) -> None:
        """Put into the index what is in the file; while that fails (a full disk), memory stands in for it."""
        with self._index_lock, contextlib.suppress(sqlite3.Error):
            lines = ((digest, offset, row) for digest, (offset, row) in self._unindexed.items())
            self._index.add(lines, self._stamp())
            self._unindexed.clear()

    def _check_place(self) -> None:
        """Notice that the file was moved, deleted or written by something else, before anything is lost in it."""
        problem = self.problem()
        if problem:
            raise OSError(errno.ESTALE, problem)
        size = os.fstat(self._fd).st_size
        if size > self._size and not self._torn:
            raise self._note_foreign()
        if size < self._size:
            logger.warning("writer: %s was changed by another program; reading it again", self.path)
            with self._index_lock:
                self._torn = b""
                self._unindexed.clear()  # first: what follows may fail, and these lines may be gone
                self._begin()
                self._rebuild()

    # -- reading

    def latest(self, limit: int) -> list[dict[str, Any]]:
        """Read the last summaries of the file.

        Args:
            limit: The most to return.

        Returns:
            The objects as they were posted, in canonical form, the newest first.
        """
        lines = rawfile.lines_backwards(self._fd, self._first, self._size, limit * _LONGEST_LINE)
        return list(islice((summary for line in lines if (summary := parse_summary(line)) is not None), limit))

    def snapshot(self) -> rawfile.Snapshot:
        """Open the file as it is now.

        Returns:
            A binary file that ends with the last line that is on disk; the caller closes it.
        """
        # It may have been emptied by another program, which the next list notices.
        return rawfile.Snapshot(self._fd, min(self._size, os.fstat(self._fd).st_size))

    def totals(self) -> Totals:
        """Count the file without reading it.

        Returns:
            Its rows and the sum of their durations.
        """
        return self._ask(lambda index: index.totals())

    def stays(self, width: int, first: int, last: int) -> Mapping[int, int]:
        """Count stays over time without reading the file.

        Args:
            width: Seconds per bucket, one of `writer.index.BUCKET_WIDTHS`.
            first: Start of the first bucket, in seconds since 1970.
            last: Start of the last bucket.

        Returns:
            Start of a bucket to the stays that ended in it; empty buckets are missing.
        """
        return self._ask(lambda index: index.stays(width, first, last))

    def first_bucket(self, width: int) -> int | None:
        """Find where the stays begin.

        Args:
            width: Seconds per bucket, one of `writer.index.BUCKET_WIDTHS`.

        Returns:
            Start of the earliest bucket, in seconds since 1970; None when there are no stays.
        """
        return self._ask(lambda index: index.first_bucket(width))

    def last_bucket(self, width: int, upto: int) -> int | None:
        """Find where the stays end.

        Args:
            width: Seconds per bucket, one of `writer.index.BUCKET_WIDTHS`.
            upto: Later buckets are left out, in seconds since 1970.

        Returns:
            Start of the latest bucket up to there; None when there is none.
        """
        return self._ask(lambda index: index.last_bucket(width, upto))

    def problem(self) -> str | None:
        """Say whether the file is still where it was, and this writer's alone.

        Returns:
            What is wrong and what to do, in one line; None when all is well.
        """
        if self.foreign:
            return self.foreign
        ours = os.fstat(self._fd)
        try:
            there = self.path.stat()
        except OSError:
            there = None
        if there and (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):
            return None
        return f"{self.path} was moved or deleted; start the writer again"

    # -- the index

    def _open_index(self) -> Index:
        try:
            index = Index(self.index_path)
        except sqlite3.DatabaseError:
            return self._new_index()
        try:
            if index.believable and self._fits(index.stamp):
                self._catch_up(index)
                return index
        except sqlite3.DatabaseError:
            pass
        index.abandon()
        return self._new_index()

    def _new_index(self) -> Index:
        try:
            index_module.remove(self.index_path)
            index = Index(self.index_path)
            self._catch_up(index)
        except (OSError, sqlite3.Error) as error:
            raise rawfile.unusable(self.path, error, self.index_path) from error
        return index

    def _fits(self, stamp: Stamp) -> bool:
        """Say whether the index is of this file as it is, or as it was before more was appended."""
        if stamp.upto == 0:
            return True  # new
        if not self._first <= stamp.upto <= self._size or stamp.mark != rawfile.mark_at(self._fd, stamp.upto):
            return False
        return stamp.upto < self._size or stamp.mtime == os.fstat(self._fd).st_mtime_ns

    def _stamp(self, upto: int | None = None) -> Stamp:
        upto = self._size if upto is None else upto
        return Stamp(upto, rawfile.mark_at(self._fd, upto), os.fstat(self._fd).st_mtime_ns)

    def _catch_up(self, index: Index) -> None:
        """Read into the index what it lacks of the file."""
        upto, foreign = max(index.stamp.upto, self._first), 0
        lines = rawfile.lines_from(self._fd, upto, self._size)
        index.building(True)
        while batch := list(islice(lines, _REBUILD_BATCH)):
            entries = []
            for offset, line in batch:
                upto = offset + len(line) + 1
                if row := parse_row(line):
                    entries.append((row.digest, offset, row))
                else:
                    foreign += 1
            index.add(entries, self._stamp(upto))
        index.add([], self._stamp())
        index.building(False)
        if foreign:
            logger.warning("writer: %d lines of %s are not summaries; they are left as they are", foreign, self.path)

    def _rebuild(self) -> None:
        self._index.abandon()
        self._index = self._new_index()
        self._unindexed.clear()

    def _ask(self, question: Callable[[Index], _T]) -> _T:
        """Ask the index; a damaged one is made again from the file."""
        with self._index_lock:
            try:
                return question(self._index)
            except sqlite3.DatabaseError:
                logger.warning("writer: the index of %s is damaged; making it again", self.path)
                self._rebuild()
                return question(self._index)

    # -- the end

    def close(self) -> None:
        """Finish the list in hand and let go of the file. May be called again."""
        with self._commit, self._index_lock:
            if self._fd < 0:
                return
            if self._unindexed:
                self._flush_index()
            self._index.close()
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _as_oserror(error: Exception) -> OSError:
    if isinstance(error, OSError):
        return OSError(error.errno or errno.EIO, error.strerror or str(error))
    return OSError(errno.EIO, str(error))
