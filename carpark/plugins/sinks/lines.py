"""The sinks that write lines: ``csv`` and ``jsonl``, to a file of this machine, and ``stdout``."""

from __future__ import annotations

import io
import json
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from pydantic import BaseModel, Field

from carpark.domain.events import StaySummary
from carpark.errors import InvalidSetting, SinkUnavailable
from carpark.ledger import CSV_LINES, JSON_LINES, Ledger, LineFormat
from carpark.plugins.base import PluginContext, ReadBack, Sink, SinkType
from carpark.plugins.findings import check_ledger
from carpark.plugins.spec import hookimpl
from carpark.settings.values import File


class LineFileSink(Sink):
    """Appends a line per summary to a file that several processes may share; the ledger knows which ids it holds.

    Args:
        path: The file; it and its folder are made when they do not exist. A torn last line is cut off.
        form: What its lines look like.
        setting: The setting that names it, for errors.
        timeout: Seconds to wait for another process that is appending.

    Raises:
        InvalidSetting: The file cannot be opened or written, stays locked, or begins with another header.
        ServiceError: The disk is full or fails.
    """

    def __init__(self, path: Path, form: LineFormat, setting: str, timeout: float) -> None:
        self._form, self._ledger = form, Ledger(path, form, setting, shared=timeout)

    def deliver(self, summaries: Sequence[StaySummary]) -> None:
        """Append the lines that the file does not have yet.

        Args:
            summaries: What becomes lines.

        Raises:
            SinkUnavailable: The file cannot be written, its disk is full, or another process holds it for too long.
        """
        try:
            self._ledger.append([self._form.line(summary) for summary in summaries])
        except OSError as error:
            raise SinkUnavailable(f"{self._ledger.path}: {error}") from error

    def close(self) -> None:
        """Let go of the file."""
        self._ledger.close()


class StreamSink(Sink):
    """Writes a line per summary to the standard output, where nothing can be read back.

    It knows the last 100,000 ids that this process wrote and takes those without effect; older ones, and those of
    other processes, it writes again.

    Args:
        form: What the lines look like.
        stream: Where to write; by default the standard output of the moment.
    """

    remembered = 100_000

    def __init__(self, form: LineFormat, stream: TextIO | None = None) -> None:
        self._form, self._stream = form, stream
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
                        stream.write(_fitting(self._form.write(summary).decode(), stream.encoding) + "\n")
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
        return json.dumps(json.loads(line), separators=(",", ":"))
    return line


def _standard_output() -> TextIO:
    # Dramatiq puts a pipe to its log in the place of a worker's standard output.
    stream: TextIO | None = sys.stdout
    if not isinstance(stream, io.TextIOBase):
        stream = sys.__stdout__
    if stream is None:
        raise OSError("there is none")
    return stream


class CsvSettings(BaseModel, frozen=True, extra="forbid"):
    """The settings of the sink ``csv``."""

    csv: File = Field(default=Path("data/stays.csv"), description="the file that the sink `csv` appends to")


class JsonlSettings(BaseModel, frozen=True, extra="forbid"):
    """The settings of the sink ``jsonl``."""

    jsonl: File = Field(default=Path("data/stays.jsonl"), description="the file that the sink `jsonl` appends to")


def _make_file(context: PluginContext, variable: str, path: Path, form: LineFormat) -> LineFileSink:
    if path.absolute() == context.settings.csv.absolute():
        raise InvalidSetting(variable, str(path), "another file than CARPARK_CSV, which is the writer's alone")
    return LineFileSink(path, form, variable, context.settings.sink_timeout)


@hookimpl
def carpark_register_sinks() -> Sequence[SinkType]:
    """Offer ``csv``, ``jsonl`` and ``stdout``.

    Returns:
        The three offers.
    """
    return [
        SinkType(
            "csv",
            lambda context: _make_file(context, "CARPARK_SINK_CSV", context.own.csv, CSV_LINES),
            "appends rows to the local file CARPARK_SINK_CSV, without the writer",
            CsvSettings,
            "SINK_",
            check=lambda context: [check_ledger("CARPARK_SINK_CSV", context.own.csv)],
            read_back=lambda context: ReadBack.of_file(context.own.csv, CSV_LINES.read),
        ),
        SinkType(
            "jsonl",
            lambda context: _make_file(context, "CARPARK_SINK_JSONL", context.own.jsonl, JSON_LINES),
            "appends JSON lines to the local file CARPARK_SINK_JSONL",
            JsonlSettings,
            "SINK_",
            check=lambda context: [check_ledger("CARPARK_SINK_JSONL", context.own.jsonl)],
            read_back=lambda context: ReadBack.of_file(context.own.jsonl, JSON_LINES.read),
        ),
        SinkType("stdout", lambda context: StreamSink(JSON_LINES), "prints JSON lines"),
    ]
