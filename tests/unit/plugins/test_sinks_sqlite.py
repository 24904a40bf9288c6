"""The SQLite sink: a database that any tool opens."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from carpark.errors import InvalidSetting, SinkUnavailable
from carpark.plugins import Plugins
from carpark.plugins.sinks.sqlite import SqliteSink
from carpark.testing import make_context, make_summaries, make_summary

PLUGINS = Plugins()


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path)) as database:
        yield database


def test_a_summary_is_a_row_of_sensible_types(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "stays.sqlite"
    sink = SqliteSink(path, 1)
    sink.deliver([make_summary("exit-1", "ÄÖ1", stayed=timedelta(seconds=0.25))])
    sink.close()
    with opened(path) as database:
        assert database.execute("SELECT *, typeof(duration) FROM stays").fetchall() == [
            ("exit-1", "ÄÖ1", "2026-11-23T18:00:00.000000Z", "2026-11-23T18:00:00.250000Z", 0.25, "real")
        ]
        columns = database.execute("SELECT name, type, pk FROM pragma_table_info('stays')").fetchall()
    assert columns == [
        ("id", "TEXT", 1),
        ("vehicle_plate", "TEXT", 0),
        ("entry_date_time", "TEXT", 0),
        ("exit_date_time", "TEXT", 0),
        ("duration", "REAL", 0),
    ]


@pytest.mark.parametrize(
    "question",
    [
        "SELECT * FROM stays WHERE vehicle_plate = 'QBF0427' ORDER BY entry_date_time",
        "SELECT * FROM stays WHERE entry_date_time >= '2026-11-23' ORDER BY entry_date_time",
        "SELECT * FROM stays WHERE id = 'exit-1'",
    ],
)
def test_the_questions_that_people_ask_use_an_index(question: str, tmp_path: Path) -> None:
    path = tmp_path / "stays.sqlite"
    SqliteSink(path, 1).close()
    with opened(path) as database:
        plan = " ".join(row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {question}"))
    assert "SEARCH stays USING" in plan
    assert "TEMP B-TREE" not in plan


def test_a_list_is_stored_whole_or_not_at_all(tmp_path: Path) -> None:
    path, summaries = tmp_path / "stays.sqlite", make_summaries(3)
    sink = SqliteSink(path, 1)
    with opened(path) as database:
        database.execute(
            "CREATE TRIGGER full BEFORE INSERT ON stays WHEN new.id = '" + summaries[2].id + "' "
            "BEGIN SELECT RAISE(FAIL, 'disk full'); END"
        )
    with pytest.raises(SinkUnavailable, match=r"stays\.sqlite: disk full"):
        sink.deliver(summaries)
    with opened(path) as database:
        assert database.execute("SELECT count(*) FROM stays").fetchone() == (0,)
        database.execute("DROP TRIGGER full")
    sink.deliver(summaries)
    sink.close()
    with opened(path) as database:
        assert database.execute("SELECT count(*) FROM stays").fetchone() == (3,)


def test_readers_do_not_stop_the_sink(tmp_path: Path) -> None:
    path = tmp_path / "stays.sqlite"
    sink = SqliteSink(path, 0.1)
    sink.deliver([make_summary()])
    with opened(path) as database:
        database.execute("BEGIN")
        assert database.execute("SELECT count(*) FROM stays").fetchone() == (1,)
        sink.deliver([make_summary()])
    sink.close()


def test_a_lock_that_another_process_keeps_is_said_in_time_and_the_rows_come_later(tmp_path: Path) -> None:
    path, summary = tmp_path / "stays.sqlite", make_summary()
    sink = SqliteSink(path, 0.1)
    with opened(path) as database:
        database.execute("BEGIN EXCLUSIVE")
        with pytest.raises(SinkUnavailable, match="database is locked"):
            sink.deliver([summary])
    sink.deliver([summary])
    sink.close()
    with opened(path) as database:
        assert database.execute("SELECT id FROM stays").fetchall() == [(summary.id,)]


def test_a_database_that_was_removed_is_made_again(tmp_path: Path) -> None:
    path, summaries = tmp_path / "stays.sqlite", make_summaries(2)
    sink = SqliteSink(path, 1)
    sink.deliver(summaries[:1])
    for file in tmp_path.iterdir():
        file.unlink()
    sink.deliver(summaries)
    sink.close()
    with opened(path) as database:
        assert database.execute("SELECT count(*) FROM stays").fetchone() == (2,)


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("milk, eggs, and a longer line so that it has the size of a header\n" * 20)
    before = path.read_bytes()
    with pytest.raises(InvalidSetting, match=r"CARPARK_SINK_SQLITE=.*file is not a database"):
        PLUGINS.make_sinks(make_context({"CARPARK_SINKS": "sqlite", "CARPARK_SINK_SQLITE": str(path)}))
    assert path.read_bytes() == before


def test_a_database_with_another_table_of_this_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "stays.sqlite"
    with opened(path) as database:
        database.execute("CREATE TABLE stays (vehicle_plate TEXT, entry_date_time TEXT, hotel TEXT)")
    with pytest.raises(InvalidSetting, match=r"CARPARK_SINK_SQLITE=.*no such column: id"):
        PLUGINS.make_sinks(make_context({"CARPARK_SINKS": "sqlite", "CARPARK_SINK_SQLITE": str(path)}))


def test_a_folder_that_cannot_be_made_is_an_error_that_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    environ = {"CARPARK_SINKS": "sqlite", "CARPARK_SINK_SQLITE": str(tmp_path / "file" / "stays.sqlite")}
    with pytest.raises(InvalidSetting, match="CARPARK_SINK_SQLITE"):
        PLUGINS.make_sinks(make_context(environ))
