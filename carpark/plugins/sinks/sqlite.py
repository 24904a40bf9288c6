"""The sink ``sqlite``: a database with one table, ``stays``, that any SQLite tool opens."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

from pydantic import BaseModel, Field

from carpark.domain.events import PRIVATE, StaySummary
from carpark.errors import InvalidSetting, SinkUnavailable
from carpark.plugins.base import PluginContext, Sink, SinkType
from carpark.plugins.findings import check_file
from carpark.plugins.rows import read_back_file
from carpark.plugins.spec import hookimpl
from carpark.settings.values import File
from carpark.web.ports import cause_of

_SCHEMA = """
CREATE TABLE IF NOT EXISTS stays (
    id TEXT NOT NULL PRIMARY KEY,
    vehicle_plate TEXT NOT NULL,
    entry_date_time TEXT NOT NULL,
    exit_date_time TEXT NOT NULL,
    duration REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS stays_by_plate ON stays (vehicle_plate, entry_date_time);
CREATE INDEX IF NOT EXISTS stays_by_entry ON stays (entry_date_time);
"""
_NAMES = ", ".join(StaySummary.model_fields)
_VALUES = ", ".join(f":{name}" for name in StaySummary.model_fields)
_PROBE = f"SELECT {_NAMES} FROM stays LIMIT 0"  # noqa: S608 - our own names
_INSERT = f"INSERT INTO stays ({_NAMES}) VALUES ({_VALUES}) ON CONFLICT (id) DO NOTHING"  # noqa: S608 - the same


class SqliteSink(Sink):
    """Inserts each summary as a row of ``stays``, each list in one transaction; several processes may share the file.

    Args:
        path: The database; it and its folder are made when they do not exist.
        timeout: Seconds to wait for another process that is writing.

    Raises:
        OSError: The folder cannot be made.
        sqlite3.Error: The file cannot be opened, is not a database, or has another table ``stays``.
    """

    def __init__(self, path: Path, timeout: float) -> None:
        self._path, self._timeout = path, timeout
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._opened_as: tuple[int, int] | None = None
        # Opened for a look only: what make gives may be carried over a fork, which a connection does not survive.
        self._open().close()

    def deliver(self, summaries: Sequence[StaySummary]) -> None:
        """Insert the rows that are not there yet.

        Args:
            summaries: What becomes rows.

        Raises:
            SinkUnavailable: The database is locked for too long, its disk is full, or the like.
        """
        with self._lock:
            try:
                connection = self._connected()
                with connection:
                    connection.executemany(_INSERT, [summary.to_dict() for summary in summaries])
            except (sqlite3.Error, OSError) as error:
                self._disconnect()
                raise SinkUnavailable(f"{self._path}: {error}") from error

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._disconnect()

    def _connected(self) -> sqlite3.Connection:
        # A file that was removed or replaced would go on taking rows that nobody sees.
        if self._connection is None or self._opened_as != self._identity():
            self._disconnect()
            self._connection = self._open()
            self._opened_as = self._identity()
        return self._connection

    def _identity(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):  # SQLite says it better
            self._path.touch(PRIVATE)
        connection = sqlite3.connect(self._path, timeout=self._timeout, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")  # with WAL, NORMAL may lose the last rows with the power
            connection.executescript(_SCHEMA)
            with closing(connection.execute(_PROBE)):
                return connection
        except BaseException:
            connection.close()
            raise


class SqliteSettings(BaseModel, frozen=True, extra="forbid"):
    """The settings of the sink ``sqlite``."""

    sqlite: File = Field(default=Path("data/stays.sqlite"), description="the database of the sink `sqlite`")


def _make(context: PluginContext) -> SqliteSink:
    path = context.own.sqlite
    try:
        return SqliteSink(path, context.settings.sink_timeout)
    except (OSError, sqlite3.Error) as error:
        raise InvalidSetting(
            "CARPARK_SINK_SQLITE", str(path), f"a database that can be written ({cause_of(error)})"
        ) from error


@hookimpl
def carpark_register_sinks() -> Sequence[SinkType]:
    """Offer ``sqlite``.

    Returns:
        The one offer.
    """
    return [
        SinkType(
            "sqlite",
            _make,
            "inserts into the table stays of the database CARPARK_SINK_SQLITE",
            SqliteSettings,
            "SINK_",
            check=lambda context: [check_file("CARPARK_SINK_SQLITE", context.own.sqlite)],
            read_back=lambda context: read_back_file(context.own.sqlite),
        )
    ]
