"""The ledger as bytes: open and lock it, see its header, mend its last line, append, read it from either end."""

from __future__ import annotations

import codecs
import errno
import fcntl
import hashlib
import io
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from carpark.domain.events import PRIVATE
from carpark.errors import CarparkError, FileInUse, InvalidSetting, ServiceError
from carpark.ledger.rows import LineFormat
from carpark.web.ports import cause_of

_LONGEST_LINE = 4096
_CHUNK, _BLOCK = 1 << 18, 1 << 16
_LONGEST_TAIL = 1 << 20
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
_PLACE = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}
_MARK_BYTES = 512
_LOCK_POLL = 0.005  # seconds; the kernel waits for a lock for ever or not at all

logger = logging.getLogger("carpark.ledger")


class Stamp(NamedTuple):
    """How far an index goes into a file, and how to tell whether it is still that file."""

    upto: int
    mark: bytes  # a digest of the bytes just before that
    mtime: int  # when the file was last written, in nanoseconds since 1970


class AppendOnlyFile:
    """The file, which `open` makes, with its folders, when it is missing. Not thread-safe; what reads it may be."""

    def __init__(self, path: Path, form: LineFormat, setting: str) -> None:
        self.path, self._form, self._setting = path, form, setting
        self.first = 0  # where the first line after the header begins
        self.size = 0  # where the last line ends that its owner knows of; who appends moves it on
        self.line_end = form.line_end
        self._fd, self._torn = -1, bytearray()

    # -- who holds it

    def open(self) -> bool:
        """Open it if it is not open yet; tell whether it was not."""
        if self.is_open:
            return False
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and not self.path.is_file():
            wanted = "a file, or the name of a new one; this is something else"
            raise InvalidSetting(self._setting, str(self.path), wanted)
        # Whatever another program appends meanwhile, what is written goes behind it and not over it.
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, PRIVATE)
        return True

    @property
    def is_open(self) -> bool:
        return self._fd >= 0

    def lock(self, wait: float | None) -> None:
        """Have the file alone: at once or never (`FileInUse`), or within so many seconds (`TimeoutError`)."""
        deadline = time.monotonic() + (wait or 0)
        while True:
            try:
                return fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if wait is None:
                    raise FileInUse(self._setting, str(self.path)) from None
                if time.monotonic() > deadline:
                    raise TimeoutError("another process holds its lock") from None
                time.sleep(_LOCK_POLL)

    def unlock(self) -> None:
        """Let others have it."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def is_in_place(self) -> bool:
        """Tell whether the open file is the one at the path: it may have been moved or deleted meanwhile."""
        with suppress(OSError):
            return os.path.samestat(os.fstat(self._fd), self.path.stat())
        return False

    def close(self) -> None:
        """Let go of it. May be called again."""
        if self.is_open:
            self.unlock()  # a download that still runs has the same lock, which closing alone would leave
            os.close(self._fd)
            self._fd = -1

    def grown(self) -> int:
        """Say how many bytes more, or fewer, there are than its owner knows of; its own torn write is cut off first."""
        if self._torn:
            self._cut_off()
        return os.fstat(self._fd).st_size - self.size

    # -- its two ends

    def begin(self) -> None:
        """See that it begins with its header, or write that into a new file; repair a torn last line."""
        self._torn = bytearray()
        header = self._form.header
        head = os.pread(self._fd, len(header) + 2, 0)
        # A file that came with bare line feeds keeps them.
        self.line_end = b"\n" if head.startswith(header + b"\n") else self._form.line_end
        first = header + self.line_end if header else b""
        if not head.startswith(first):
            if not first.startswith(head):
                marked = ", without the byte order mark that is before it" if head.startswith(codecs.BOM_UTF8) else ""
                wanted = f"a new file, or one whose first line is {header.decode()}{marked}"
                raise InvalidSetting(self._setting, str(self.path), wanted)
            self._write(first[len(head) :])  # new, or its writer was killed within the header
        if not head:
            _sync_folder(self.path.parent)
        self.first = len(first)
        self.size = self._mended()

    def _mended(self) -> int:
        """Complete a last line that lacks only its end, cut off any other; give where the last line then ends."""
        size = os.fstat(self._fd).st_size
        if size == self.first or os.pread(self._fd, 1, size - 1) == b"\n":
            return size
        start = max(self.first, size - _LONGEST_TAIL)
        tail = os.pread(self._fd, size - start, start)
        last_end = tail.rfind(b"\n")
        if last_end < 0 and start > self.first:
            wanted = "a file of summaries; its end is a line longer than any summary"
            raise InvalidSetting(self._setting, str(self.path), wanted)
        end, torn = start + last_end + 1, tail[last_end + 1 :]
        if self._form.is_whole(torn):
            end += len(torn.rstrip(b"\r"))
            os.ftruncate(self._fd, end)
            self._write(self.line_end)
            return end + len(self.line_end)
        os.ftruncate(self._fd, end)  # nobody was told that it is kept, so its summary comes again
        self.sync()
        logger.warning("the last line of %s was torn and is cut off: %r", self.path, torn[:200])
        return end

    # -- writing

    def append(self, data: bytearray) -> bool:
        """Append lines and sync them, or nothing; tell whether they are where the file ended, or behind another's."""
        try:
            self._write(data)
        except OSError:
            self._torn = data  # also after a failed fsync: what is on disk then is not known
            with suppress(OSError):
                self._cut_off()
            raise
        return os.fstat(self._fd).st_size == self.size + len(data)

    def sync(self) -> None:
        """Wait until what is in the file is on disk."""
        os.fsync(self._fd)

    def _write(self, data: bytes | bytearray) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        self.sync()

    def _cut_off(self) -> None:
        """Remove what a failed write left, but nothing of another program."""
        left = os.pread(self._fd, len(self._torn) + 1, self.size)
        if self._torn.startswith(left):
            if left:
                os.ftruncate(self._fd, self.size)
                self.sync()
            self._torn = bytearray()

    # -- reading

    def stamp(self, upto: int | None = None) -> Stamp:
        """Say how an index that goes so far, by default to the end, knows the file again."""
        upto = self.size if upto is None else upto
        start = max(0, upto - _MARK_BYTES)
        mark = hashlib.blake2b(os.pread(self._fd, upto - start, start), digest_size=16).digest()
        return Stamp(upto, mark, os.fstat(self._fd).st_mtime_ns)

    def line_at(self, offset: int) -> bytes:
        """Read the line that begins there; what is no whole line of usual length is empty."""
        line, end, _ = os.pread(self._fd, max(0, min(_LONGEST_LINE, self.size - offset)), offset).partition(b"\n")
        return line if end else b""

    def lines(self, offset: int) -> Iterator[tuple[int, bytes]]:
        """Read lines forwards, each with its offset, from one that begins there."""
        rest, position = b"", offset
        while chunk := os.pread(self._fd, min(_CHUNK, self.size - position), position):
            position += len(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield offset, line
                offset += len(line) + 1

    def lines_backwards(self, count: int) -> Iterator[bytes]:
        """Read lines from the end, a block at a time, as far back as so many may begin."""
        rest, position = b"", self.size
        stop = max(self.first, position - count * _LONGEST_LINE)
        while position > stop:
            start = max(stop, position - _BLOCK)
            rest, *lines = (os.pread(self._fd, position - start, start) + rest).split(b"\n")
            position = start
            yield from filter(None, reversed(lines))
        if position == self.first and rest:
            yield rest

    def snapshot(self) -> Snapshot:
        """Open the file as it is now, up to the last line that is on disk."""
        return Snapshot(self._fd, min(self.size, os.fstat(self._fd).st_size))  # it may have been emptied


class Snapshot(io.RawIOBase):
    """The file as it was at one moment: what is appended later is not seen."""

    def __init__(self, fd: int, size: int) -> None:
        super().__init__()
        self._fd, self.size, self._position = os.dup(fd), size, 0

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it can be read from any place."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read on, up to the end."""
        data = os.pread(self._fd, max(0, min(len(buffer), self.size - self._position)), self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        """Let go of the file."""
        if not self.closed:
            os.close(self._fd)
        super().close()


def unusable(setting: str, path: Path, error: OSError | sqlite3.Error, index: Path | None = None) -> CarparkError:
    """Say why a file, or the index beside it, cannot be used: its name, folder or mode is wrong, or the disk fails."""
    beside = f", and its index {str(index)!r} beside it" if index else ""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest of it is in what way
    if error.errno in _DISK if isinstance(error, OSError) else code not in _PLACE:
        return ServiceError(f"{setting}={str(path)!r}{beside}: {cause_of(error)}")
    return InvalidSetting(setting, str(path), f"a file that can be read and written{beside} ({cause_of(error)})")


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
