"""The append-only file of summaries: each id once, on disk before anyone is told so."""

from __future__ import annotations

import errno
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from itertools import islice
from pathlib import Path
from typing import Any, Self, TypeVar

from carpark.errors import CarparkError
from carpark.failpoints import failpoints
from carpark.ledger.file import AppendOnlyFile, Snapshot, Stamp, unusable
from carpark.ledger.index import Entry, Index
from carpark.ledger.rows import CSV_LINES, Line, LineFormat

_MOST_UNINDEXED = 10_000
_BATCH = 50_000
_LONG_TAIL = 1 << 20
_T = TypeVar("_T")

logger = logging.getLogger(__name__)


class _Waiting:
    """One caller's list, from its arrival to its answer."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.lines = deque(lines)  # each is let go of when its text is among what will be written
        self.written = self.duplicates = 0
        self.done = False
        self.error: OSError | None = OSError(errno.EIO, "the list was not written")


class Ledger:
    """The file and its index. All methods may be called from any thread.

    Where ``shared`` is None it is one process's alone: the lock is held until it is closed, and once another program
    has appended to it, nothing more is written, because whose the lines are has to be settled; ``foreign`` then says
    what is to be done. Else several processes share it: each waits ``shared`` seconds at most for the lock, holds it
    for a list, and reads in first what others have appended; it holds nothing after it was made, so that it can be
    carried over a fork. ``setting`` names the file in errors.
    """

    def __init__(
        self,
        path: Path,
        form: LineFormat = CSV_LINES,
        setting: str = "CARPARK_CSV",
        shared: float | None = None,
    ) -> None:
        self.path, self._form, self._setting, self._shared = path, form, setting, shared
        self.foreign = ""
        self.on_foreign: Callable[[], object] = lambda: None
        self._file = AppendOnlyFile(path, form, setting)
        self._index = Index(Path(f"{path}.index.sqlite"), shared=shared is not None)
        self._reached = failpoints()
        self._waiting: deque[_Waiting] = deque()
        self._arrival, self._commit, self._index_lock = threading.Lock(), threading.Lock(), threading.RLock()
        self._late: dict[bytes, int] = {}
        self._moved = f"{path} was moved or deleted; start the writer again"
        self._is_closed = False
        try:
            self._hold(is_start=True)
        except BaseException as error:
            self._let_go()
            if isinstance(error, OSError):
                raise unusable(setting, path, error) from error
            raise
        if shared is not None:
            self._let_go()

    # -- holding the file

    def _hold(self, *, is_start: bool = False) -> None:
        """Have the file alone, and know all that is in it."""
        if self._is_closed:
            raise OSError(errno.EBADF, f"{self.path} is closed")
        while True:
            is_new = self._file.open()
            self._file.lock(self._shared)
            if self._file.is_in_place():
                break
            if self._shared is None:
                raise OSError(errno.ESTALE, self._moved)
            self._let_go()
        with self._index_lock:  # a page is not to count what is being begun anew
            if is_new:
                self._file.begin()
                self._open_index(is_start)
                return
            grown = self._file.grown()
            if self.foreign or (grown > 0 and self._shared is None):
                raise self._note_foreign()
            if grown:
                self._file.begin()
            self._catch_up()

    def _let_go(self) -> None:
        self._index.close()
        self._file.close()

    def _note_foreign(self) -> OSError:
        if not self.foreign:
            self.foreign = (
                f"another program has appended to {self.path}: nothing of it was overwritten, and nothing more is "
                "written; see to it that none does, look at the last lines, and start the writer again, which takes in "
                "those that are summaries"
            )
            self.on_foreign()
        return OSError(errno.ESTALE, self.foreign)

    # -- writing

    def append(self, lines: Sequence[Line]) -> tuple[int, int]:
        """Write the lines whose ids are new, and sync them, or nothing; say how many were new, and how many were not.

        Lists that arrive while another one is written share one sync.
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
        failed = True
        try:
            self._hold()
            data, entries = self._new_lines(group)
            if data:
                self._write(data, entries)
            for one in group:
                one.error = None
            failed = False
        except (OSError, sqlite3.Error, CarparkError) as error:
            for one in group:
                one.error = _as_oserror(error)
        finally:
            for one in group:
                one.done = True
            if self._shared is not None:
                self._let_go() if failed else self._file.unlock()

    def _new_lines(self, group: list[_Waiting]) -> tuple[bytearray, dict[bytes, Entry]]:
        data, entries = bytearray(), dict[bytes, Entry]()
        for one in group:
            while one.lines:
                line = one.lines.popleft()
                digest = line.digest
                if digest in entries or self._has(digest, line.id):
                    one.duplicates += 1
                    continue
                entries[digest] = Entry(digest, self._file.size + len(data), line.exit_second, line.duration)
                data += line.text
                data += self._file.line_end
                one.written += 1
        return data, entries

    def _has(self, digest: bytes, id_: str) -> bool:
        """Tell whether the file has an id; what the index says of it is looked up there."""
        offset = self._late.get(digest)
        if offset is None:
            offset = self.ask(lambda index: index.offset_of(digest))
        if offset is None:
            return False
        fields = self._form.fields(self._file.line_at(offset))
        if fields and fields[0] == id_:
            return True
        logger.warning("the index of %s does not fit it; making it again", self.path)
        with self._index_lock:
            self._rebuild()
            return self._index.offset_of(digest) is not None

    def _write(self, data: bytearray, entries: dict[bytes, Entry]) -> None:
        self._reached("writer-received")
        is_alone = self._file.append(data)
        self._reached("writer-written")
        if is_alone:
            with self._index_lock:  # so that nobody makes the index again with these and then counts them twice
                self._file.size += len(data)
                if not self._late:
                    with suppress(sqlite3.Error):  # else the next list finds the index behind
                        self._index.add(entries.values(), self._file.stamp())
        elif self._shared is None:  # they are on disk, somewhere among the other's: the next start finds them
            self._note_foreign()

    # -- the index

    def _open_index(self, is_start: bool) -> None:
        with suppress(sqlite3.DatabaseError):
            self._index.open()
            stamp, now = self._index.stamp, self._file.stamp()
            # At a start an edit in the middle shows; later it may be but what a failed write left, and was cut off.
            is_untouched = not is_start or stamp.upto < now.upto or stamp.mtime == now.mtime
            if is_untouched and self._fits(stamp) and self._index.is_complete():
                self._read_in(stamp.upto)
                return
        self._rebuild()

    def _fits(self, stamp: Stamp) -> bool:
        """Tell whether the index is of this file, as it is or as it was before more was appended."""
        return not stamp.upto or (stamp.upto <= self._file.size and stamp.mark == self._file.stamp(stamp.upto).mark)

    def _catch_up(self) -> None:
        """Read into the index what it lacks of the file; while it cannot be written, memory stands in for it."""
        self._late.clear()
        stamp = self.ask(lambda index: index.stamp)
        if not self._fits(stamp):
            logger.warning("%s was changed by another program; reading it again", self.path)
            self._file.begin()
            return self._rebuild()
        try:
            self._read_in(stamp.upto)
        except sqlite3.OperationalError:
            lines = list(islice(self._file.lines(max(stamp.upto, self._file.first)), _MOST_UNINDEXED))
            if len(lines) == _MOST_UNINDEXED:
                raise
            self._late = {line.digest: offset for offset, text in lines if (line := self._form.parse(text))}
        except sqlite3.DatabaseError:
            self._rebuild()

    def _read_in(self, upto: int) -> None:
        """Read into the index what the file has behind a length."""
        upto, foreign = max(upto, self._file.first), 0
        if upto == self._file.size:
            return
        self._file.sync()  # who wrote these lines may have died before
        entries: list[Entry] = []
        with self._index.building() if self._file.size - upto > _LONG_TAIL else nullcontext():
            for offset, text in self._file.lines(upto):
                upto = offset + len(text) + 1
                if line := self._form.parse(text):
                    entries.append(Entry(line.digest, offset, line.exit_second, line.duration))
                else:
                    foreign += 1
                if len(entries) == _BATCH or upto == self._file.size:
                    self._index.add(entries, self._file.stamp(upto))
                    entries.clear()
        if foreign:
            logger.warning("%d lines of %s are not summaries; they are left as they are", foreign, self.path)

    def _rebuild(self) -> None:
        try:
            self._late.clear()
            self._index.remove()
            self._index.open()
            self._read_in(0)
        except (OSError, sqlite3.Error) as error:
            raise unusable(self._setting, self.path, error, self._index.path) from error

    def ask(self, question: Callable[[Index], _T]) -> _T:
        """Ask the index, which counts the file without reading it; a damaged one is made again."""
        with self._index_lock:
            if not self._file.is_open:
                raise OSError(errno.EBADF, f"{self.path} is closed")
            try:
                return question(self._index)
            except sqlite3.DatabaseError:
                logger.warning("the index of %s is damaged; making it again", self.path)
                self._rebuild()
                return question(self._index)

    # -- reading

    def latest(self, limit: int) -> list[dict[str, Any]]:
        """Read the last summaries of the file, as they were posted, the newest first."""
        read = map(self._form.summary, self._file.lines_backwards(limit))
        return list(islice((summary for summary in read if summary is not None), limit))

    def snapshot(self) -> Snapshot:
        """Open the file as it is now, up to the last line that is on disk; the caller closes it."""
        return self._file.snapshot()

    def problem(self) -> str | None:
        """Say what is wrong and what to do when the file is not where it was, or not this process's alone any more."""
        return self.foreign or (None if self._file.is_in_place() else self._moved)

    # -- the end

    def close(self) -> None:
        """Finish the list in hand and let go of the file. May be called again."""
        with self._commit, self._index_lock:
            self._is_closed = True
            self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _as_oserror(error: Exception) -> OSError:
    """Make an error of one's own for each caller that waits."""
    if isinstance(error, OSError):
        return OSError(error.errno or errno.EIO, error.strerror or str(error))
    return OSError(errno.EIO, str(error))
