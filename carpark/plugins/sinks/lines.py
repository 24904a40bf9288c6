"""The sinks that write lines: ``csv`` and ``jsonl``, to a file of this machine, and ``stdout``."""

from __future__ import annotations

import codecs
import csv
import fcntl
import hashlib
import io
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from pydantic import BaseModel, Field

from carpark.domain.events import PRIVATE, StaySummary, duration_between, format_duration
from carpark.errors import InvalidSetting, InvalidSummary, SinkUnavailable
from carpark.plugins.base import PluginContext, Sink, SinkType
from carpark.plugins.findings import check_file
from carpark.plugins.rows import read_back_file
from carpark.plugins.spec import hookimpl
from carpark.settings.values import File
from carpark.web.ports import cause_of

_LOCK_POLL = 0.005  # seconds; the kernel waits for a lock for ever or not at all
_READ_BYTES = 1024 * 1024


@dataclass(frozen=True)
class LineFormat:
    """How a summary becomes a line, and a line a summary. A line has no ``\\n`` but the one at its end.

    Args:
        header: The file's first line, or nothing.
        write: Makes a line.
        id_of: Reads the id of a line, fast, because this is done for each line of a file; None where it has none.
        read: Reads a line that may be torn; None where it is not surely a whole one.
    """

    header: str
    write: Callable[[StaySummary], str]
    id_of: Callable[[str], str | None]
    read: Callable[[str], StaySummary | None]


def _write_row(summary: StaySummary) -> str:
    row = io.StringIO()
    csv.writer(row).writerow((summary.to_dict() | {"duration": format_duration(summary.duration)}).values())
    return row.getvalue()


def _id_of_row(line: str) -> str | None:
    return _cells(line)[0] if '"' in line else line.partition(",")[0]


def _read_row(line: str) -> StaySummary | None:
    fields: dict[str, object] = dict(zip(StaySummary.model_fields, _cells(line), strict=False))
    try:
        fields["duration"] = float(str(fields.get("duration")))
        summary = StaySummary.parse(fields)
    except (ValueError, InvalidSummary):
        return None
    # A number that was torn is a number still; what lies between the two times tells.
    return summary if summary.duration == duration_between(summary.entry_date_time, summary.exit_date_time) else None


def _cells(line: str) -> list[str]:
    try:
        return next(csv.reader([line]), [""])
    except csv.Error:
        return [""]


def _write_object(summary: StaySummary) -> str:
    return json.dumps(summary.to_dict(), ensure_ascii=False, separators=(",", ":")) + "\n"


def _id_of_object(line: str) -> str | None:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return None
    id_ = fields.get("id") if isinstance(fields, dict) else None
    return id_ if isinstance(id_, str) else None


def _read_object(line: str) -> StaySummary | None:
    try:
        return StaySummary.parse(json.loads(line))
    except (ValueError, RecursionError, InvalidSummary):
        return None


CSV_LINES = LineFormat(",".join(StaySummary.model_fields) + "\r\n", _write_row, _id_of_row, _read_row)
"""RFC 4180, with the columns of the writer's file."""

JSON_LINES = LineFormat("", _write_object, _id_of_object, _read_object)
"""A JSON object per line."""


class LineFileSink(Sink):
    """Appends a line per summary to a file and syncs it to the disk; the file's own lines say which ids it holds.

    Several processes may append to one file: each delivery opens and locks it, and reads first what the others have
    added. The ids take about 130 bytes of memory each; for many millions use the sink ``sqlite``.

    Args:
        path: The file; it and its folder are made when they do not exist. A torn last line is cut off.
        lines: What its lines look like.
        timeout: Seconds to wait for another process that holds the lock.

    Raises:
        OSError: The file cannot be opened or written, or stays locked.
        ValueError: The file begins with another header.
    """

    def __init__(self, path: Path, lines: LineFormat, timeout: float) -> None:
        self._path, self._lines, self._timeout = path, lines, timeout
        self._mutex = threading.Lock()
        self._identity = (0, 0)
        self._size = 0
        self._ids: set[bytes] = set()
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._locked() as file:
            self._catch_up(file)

    def deliver(self, summaries: Sequence[StaySummary]) -> None:
        """Append the lines that the file does not have yet.

        Args:
            summaries: What becomes lines.

        Raises:
            SinkUnavailable: The file cannot be written, its disk is full, or another process holds it for too long.
        """
        with self._mutex:
            try:
                with self._locked() as file:
                    self._catch_up(file)
                    new = {digest: one for one in summaries if (digest := _digest(one.id)) not in self._ids}
                    self._append(file, "".join(self._lines.write(one) for one in new.values()))
                    self._ids.update(new)
            except (OSError, ValueError) as error:
                raise SinkUnavailable(f"{self._path}: {error}") from error

    @contextmanager
    def _locked(self) -> Iterator[int]:
        deadline = time.monotonic() + self._timeout
        while True:
            # Whatever a program that takes no lock appends meanwhile, our lines go behind it and not over it.
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, PRIVATE)
            try:
                _lock(file, deadline)
                if self._is_current(file):
                    yield file
                    return
            finally:
                os.close(file)

    def _is_current(self, file: int) -> bool:
        """Tell whether the file that is locked is the one at the path: it may have been moved away meanwhile."""
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(file), self._path.stat())
        return False

    def _catch_up(self, file: int) -> None:
        status = os.fstat(file)
        identity = (status.st_dev, status.st_ino)
        if identity != self._identity or status.st_size < self._size:
            self._identity, self._size, self._ids = identity, 0, set()
        if status.st_size == self._size and self._size:
            return
        ids, self._size, tail = self._read(file, self._size)
        self._ids.update(ids)
        header = self._lines.header.encode()
        if self._size == 0 and header.startswith(tail):
            self._rewrite_end(file, tail, header)
            _sync_folder(self._path)
        elif tail:
            whole = self._lines.read(tail.decode("utf-8", "replace"))
            self._rewrite_end(file, tail, self._lines.write(whole).encode() if whole else b"")
            self._ids.update([_digest(whole.id)] if whole else [])
        else:
            os.fsync(file)  # another process may have died between writing these lines and syncing them

    def _read(self, file: int, start: int) -> tuple[set[bytes], int, bytes]:
        """Read all lines from an offset on: the digests of their ids, where the last one ends, what follows it."""
        ids: set[bytes] = set()
        position, tail, first = start, b"", start == 0 and bool(self._lines.header)
        while chunk := os.pread(file, _READ_BYTES, position):
            position += len(chunk)
            *whole, tail = (tail + chunk).split(b"\n")
            if first and whole:
                head = whole.pop(0).rstrip(b"\r")
                if head != self._lines.header.encode().rstrip():
                    marked = ": a byte order mark is before it" if head.startswith(codecs.BOM_UTF8) else ""
                    raise ValueError(f"its first line is not {self._lines.header.rstrip()}{marked}")
                first = False
            for line in whole:
                if (id_ := self._lines.id_of(line.decode("utf-8", "replace"))) is not None:
                    ids.add(_digest(id_))
        if first and tail and not self._lines.header.encode().startswith(tail):
            raise ValueError(f"its first line is not {self._lines.header.rstrip()}")
        return ids, position - len(tail), tail

    def _rewrite_end(self, file: int, tail: bytes, data: bytes) -> None:
        if not data.startswith(tail):
            os.ftruncate(file, self._size)
            tail = b""
        _append_all(file, data[len(tail) :])
        os.fsync(file)
        self._size += len(data)

    def _append(self, file: int, text: str) -> None:
        if not text:
            return
        data = text.encode()
        try:
            _append_all(file, data)
            os.fsync(file)
        except OSError:
            with suppress(OSError):  # what stays is cut off or taken in by the next delivery
                if data.startswith(os.pread(file, len(data) + 1, self._size)):  # nothing of another program
                    os.ftruncate(file, self._size)
            raise
        if os.fstat(file).st_size == self._size + len(data):  # else the next delivery reads what is between
            self._size += len(data)


class StreamSink(Sink):
    """Writes a line per summary to the standard output, where nothing can be read back.

    It knows the last 100,000 ids that this process wrote and takes those without effect; older ones, and those of
    other processes, it writes again.

    Args:
        lines: What the lines look like.
        stream: Where to write; by default the standard output of the moment.
    """

    remembered = 100_000

    def __init__(self, lines: LineFormat, stream: TextIO | None = None) -> None:
        self._lines, self._stream = lines, stream
        self._mutex = threading.Lock()
        self._ids: dict[str, None] = {}

    def deliver(self, summaries: Sequence[StaySummary]) -> None:
        """Write the lines that were not written yet.

        Args:
            summaries: What becomes lines.

        Raises:
            SinkUnavailable: Nobody reads the stream any more, or it is closed.
        """
        with self._mutex:
            try:
                stream = self._stream or _standard_output()
                for summary in summaries:
                    if summary.id not in self._ids:
                        stream.write(_fitting(self._lines.write(summary), stream.encoding))
                        stream.flush()  # line by line, so that the lines of several processes stay whole
                        self._remember(summary.id)
            except (OSError, ValueError) as error:
                raise SinkUnavailable(f"standard output: {error}") from error

    def _remember(self, id_: str) -> None:
        self._ids[id_] = None
        if len(self._ids) > self.remembered:
            del self._ids[next(iter(self._ids))]


def _fitting(line: str, encoding: str | None) -> str:
    """Give a line of JSON as a stream can take it: JSON has a way to write each character in ASCII."""
    try:
        line.encode(encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(json.loads(line), separators=(",", ":")) + "\n"
    return line


def _standard_output() -> TextIO:
    # Dramatiq puts a pipe to its log in the place of a worker's standard output.
    stream: TextIO | None = sys.stdout
    if not isinstance(stream, io.TextIOBase):
        stream = sys.__stdout__
    if stream is None:
        raise OSError("there is none")
    return stream


def _lock(file: int, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError("another process holds its lock") from None
            time.sleep(_LOCK_POLL)
        else:
            return


def _digest(id_: str) -> bytes:
    return hashlib.blake2b(id_.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _append_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _sync_folder(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class CsvSettings(BaseModel, frozen=True, extra="forbid"):
    """The settings of the sink ``csv``."""

    csv: File = Field(default=Path("data/stays.csv"), description="the file that the sink `csv` appends to")


class JsonlSettings(BaseModel, frozen=True, extra="forbid"):
    """The settings of the sink ``jsonl``."""

    jsonl: File = Field(default=Path("data/stays.jsonl"), description="the file that the sink `jsonl` appends to")


def _make_file(context: PluginContext, variable: str, path: Path, lines: LineFormat) -> LineFileSink:
    if path.absolute() == context.settings.csv.absolute():
        raise InvalidSetting(variable, str(path), "another file than CARPARK_CSV, which is the writer's alone")
    try:
        return LineFileSink(path, lines, context.settings.sink_timeout)
    except (OSError, ValueError) as error:
        raise InvalidSetting(
            variable, str(path), f"a file that lines can be appended to ({cause_of(error)})"
        ) from error


def _make_csv(context: PluginContext) -> Sink:
    return _make_file(context, "CARPARK_SINK_CSV", context.own.csv, CSV_LINES)


def _make_jsonl(context: PluginContext) -> Sink:
    return _make_file(context, "CARPARK_SINK_JSONL", context.own.jsonl, JSON_LINES)


def _make_stdout(context: PluginContext) -> Sink:
    return StreamSink(JSON_LINES)


@hookimpl
def carpark_register_sinks() -> Sequence[SinkType]:
    """Offer ``csv``, ``jsonl`` and ``stdout``.

    Returns:
        The three offers.
    """
    return [
        SinkType(
            "csv",
            _make_csv,
            "appends rows to the local file CARPARK_SINK_CSV, without the writer",
            CsvSettings,
            "SINK_",
            check=lambda context: [check_file("CARPARK_SINK_CSV", context.own.csv)],
            read_back=lambda context: read_back_file(context.own.csv),
        ),
        SinkType(
            "jsonl",
            _make_jsonl,
            "appends JSON lines to the local file CARPARK_SINK_JSONL",
            JsonlSettings,
            "SINK_",
            check=lambda context: [check_file("CARPARK_SINK_JSONL", context.own.jsonl)],
            read_back=lambda context: read_back_file(context.own.jsonl),
        ),
        SinkType("stdout", _make_stdout, "prints JSON lines"),
    ]
