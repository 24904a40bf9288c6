"""The CSV as bytes in a file: open it alone, see its header, mend its last line, read it from either end."""

from __future__ import annotations

import codecs
import errno
import fcntl
import hashlib
import io
import logging
import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

from carpark.domain.events import PRIVATE
from carpark.errors import CarparkError, FileInUse, InvalidSetting, ServiceError
from carpark.web.ports import cause_of
from writer.rows import HEADER, is_whole

SETTING = "CARPARK_CSV"
LINE_END = b"\r\n"
"""What RFC 4180 ends a line with; a file that came with bare line feeds keeps them."""

_CHUNK = 1 << 18
_LONGEST_TAIL = 1 << 20
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
_PLACE = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}
_MARK_BYTES = 512

logger = logging.getLogger("writer")


def open_locked(path: Path) -> int:
    """Open the file for one writer alone; it and its folders are made when they are missing.

    Args:
        path: The file.

    Returns:
        Its descriptor, locked; the lock goes when it is closed or the process ends.

    Raises:
        FileInUse: Another writer holds the file.
        InvalidSetting: It is not a file, or may not be read and written.
        ServiceError: The disk fails.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            raise InvalidSetting(SETTING, str(path), "a file, or the name of a new one; this is something else")
        # Whatever another program appends meanwhile, what is written goes behind it and not over it.
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, PRIVATE)
    except OSError as error:
        raise unusable(path, error) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _sync_folder(path.parent)
    except BlockingIOError:
        os.close(fd)
        raise FileInUse(SETTING, str(path)) from None
    except OSError as error:
        os.close(fd)
        raise unusable(path, error) from error
    return fd


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def begin(fd: int, path: Path) -> bytes:
    """See that the file begins with the header, or write it into a new file.

    Args:
        fd: The file, open to read and write.
        path: Its name, for the error.

    Returns:
        What ends a line in this file.

    Raises:
        InvalidSetting: The file begins with something else. It is left as it is.
    """
    head = os.pread(fd, len(HEADER) + 2, 0)
    for line_end in (LINE_END, b"\n"):
        if head.startswith(HEADER + line_end):
            return line_end
    if not (HEADER + LINE_END).startswith(head):
        wanted = f"a new file, or one whose first line is {HEADER.decode()}"
        marked = ", without the byte order mark that is before it" if head.startswith(codecs.BOM_UTF8) else ""
        raise InvalidSetting(SETTING, str(path), wanted + marked)
    append_all(fd, (HEADER + LINE_END)[len(head) :])  # new, or its writer was killed within the header
    os.fsync(fd)
    return LINE_END


def mend(fd: int, path: Path, line_end: bytes) -> int:
    """Repair a last line that was torn when its writer was killed.

    A last line that only lacks its end gets it (RFC 4180 allows such files); any other is cut off: nobody was told
    that it is kept, so its summary comes again.

    Args:
        fd: The file, open to read and write.
        path: Its name, for the log.
        line_end: What ends a line in this file.

    Returns:
        The size of the file, in bytes.

    Raises:
        InvalidSetting: What follows the last line end is far too long for a summary: this is another kind of file.
    """
    size = os.fstat(fd).st_size
    start = max(0, size - _LONGEST_TAIL)
    tail = os.pread(fd, size - start, start)
    last_end = tail.rfind(b"\n")
    if last_end < 0:
        raise InvalidSetting(SETTING, str(path), "a file of summaries; its end is a line longer than any summary")
    whole = start + last_end + 1
    if whole == size:
        return size
    torn = tail[last_end + 1 :]
    if is_whole(torn):
        end = whole + len(torn.rstrip(b"\r"))
        os.ftruncate(fd, end)
        append_all(fd, line_end)
        os.fsync(fd)
        return end + len(line_end)
    os.ftruncate(fd, whole)
    os.fsync(fd)
    logger.warning("writer: the last line of %s was torn and is cut off: %r", path, torn[:200])
    return whole


def append_all(fd: int, data: bytes | bytearray) -> None:
    """Append bytes, all of them.

    Args:
        fd: The file, opened to be appended to.
        data: What to write.

    Raises:
        OSError: Not everything could be written; a part of it may have been.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def mark_at(fd: int, offset: int) -> bytes:
    """Make a digest by which a place in the file is known again.

    Args:
        fd: The file.
        offset: The place, in bytes.

    Returns:
        A digest of the bytes just before it.
    """
    start = max(0, offset - _MARK_BYTES)
    return hashlib.blake2b(os.pread(fd, offset - start, start), digest_size=16).digest()


def lines_from(fd: int, offset: int, upto: int) -> Iterator[tuple[int, bytes]]:
    """Read lines forwards.

    Args:
        fd: The file.
        offset: Where a line begins.
        upto: Where a line ends; it is not read beyond.

    Yields:
        Each line's offset and its bytes, without the line feed.
    """
    rest = b""
    position = offset
    while position < upto:
        chunk = os.pread(fd, min(_CHUNK, upto - position), position)
        if not chunk:
            return
        position += len(chunk)
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield offset, line
            offset += len(line) + 1


def lines_backwards(fd: int, first: int, upto: int, limit: int) -> Iterator[bytes]:
    """Read lines from the end, a block at a time, however long the file is.

    Args:
        fd: The file.
        first: Where the first line after the header begins.
        upto: Where the last line ends.
        limit: The most bytes to read.

    Yields:
        Lines without their ends, the last one first.
    """
    rest = b""
    position, stop = upto, max(first, upto - limit)
    while position > stop:
        start = max(stop, position - 64 * 1024)
        block = os.pread(fd, position - start, start) + rest
        position = start
        rest, *lines = block.split(b"\n")
        yield from (line for line in reversed(lines) if line)
    if position == first and rest:
        yield rest


def unusable(path: Path, error: OSError | sqlite3.Error, index: Path | None = None) -> CarparkError:
    """Say why a file cannot be used: another name, folder or mode would mend it, or the disk fails.

    Args:
        path: The file.
        error: Of the system or of SQLite.
        index: The file beside it that it is about, if it is about that.

    Returns:
        The error to be raised.
    """
    beside = f", and its index {str(index)!r} beside it" if index else ""
    fails = error.errno in _DISK if isinstance(error, OSError) else _code(error) not in _PLACE
    if fails:
        return ServiceError(f"{SETTING}={str(path)!r}{beside}: {cause_of(error)}")
    return InvalidSetting(SETTING, str(path), f"a file that can be read and written{beside} ({cause_of(error)})")


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest of it is in what way


class Snapshot(io.RawIOBase):
    """The file as it was at one moment: what is appended later is not seen.

    Args:
        fd: The file; a descriptor of its own is taken of it.
        size: Where it ends, in bytes.
    """

    def __init__(self, fd: int, size: int) -> None:
        super().__init__()
        self._fd, self.size, self._position = os.dup(fd), size, 0

    def readable(self) -> bool:
        """Say that it can be read.

        Returns:
            True.
        """
        return True

    def seekable(self) -> bool:
        """Say that it can be read from any place.

        Returns:
            True.
        """
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place.

        Args:
            offset: Bytes from the place that ``whence`` names.
            whence: As for any file.

        Returns:
            The place, in bytes from the beginning.
        """
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read into a buffer.

        Args:
            buffer: Takes the bytes.

        Returns:
            How many there were; 0 at the end.
        """
        wanted = max(0, min(len(buffer), self.size - self._position))
        data = os.pread(self._fd, wanted, self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        """Let go of the file."""
        if not self.closed:
            os.close(self._fd)
        super().close()
