"""The sink ``sqlite``: a database with one table, ``stays``, that any SQLite tool opens."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

from pydantic import BaseModel, Field

from carpark.domain.events import PRIVATE, StaySummary
from carpark.errors import InvalidSetting, SinkUnavailable
from carpark.plugins.base import PluginContext, ReadBack, Sink, SinkType
from carpark.plugins.findings import check_file
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
_SELECT = "SELECT id, vehicle_plate, entry_date_time, exit_date_time, duration FROM stays"
_INSERT = """
INSERT INTO stays (id, vehicle_plate, entry_date_time, exit_date_time, duration)
VALUES (:id, :vehicle_plate, :entry_date_time, :exit_date_time, :duration)
ON CONFLICT (id) DO NOTHING
"""


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
        self._open().close()

    def deliver(self, summaries: Sequence[StaySummary]) -> None:
        """Insert the rows that are not there yet.

        It is opened each time: a connection survives no fork, and one to a file that was removed or replaced would go
        on taking rows that nobody sees.

        Args:
            summaries: What becomes rows.

        Raises:
            SinkUnavailable: The database is locked for too long, its disk is full, or the like.
        """
        try:
            with closing(self._open()) as connection, connection:
                connection.executemany(_INSERT, [summary.to_dict() for summary in summaries])
        except (sqlite3.Error, OSError) as error:
            raise SinkUnavailable(f"{self._path}: {error}") from error

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):  # SQLite says it better
            self._path.touch(PRIVATE)
        connection = sqlite3.connect(self._path, timeout=self._timeout)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")  # with WAL, NORMAL may lose the last rows with the power
            connection.executescript(_SCHEMA)
            with closing(connection.execute(f"{_SELECT} LIMIT 0")):
                return connection
        except BaseException:
            connection.close()
            raise


class SqliteSettings(BaseModel, frozen=True, extra="forbid"):
    """The settings of the sink ``sqlite``."""

    sqlite: File = Field(default=Path("data/stays.sqlite"), description="the database of the sink `sqlite`")


def _read(path: Path) -> Iterator[list[str]]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        for row in database.execute(_SELECT):
            yield [str(value) for value in row]


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
            read_back=lambda context: ReadBack.of_file(context.own.sqlite, _read),
        )
    ]
