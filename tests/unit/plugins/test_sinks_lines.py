"""The sinks that write lines: what they say of a file that cannot be used, and the standard output."""

from __future__ import annotations

import fcntl
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from carpark.errors import InvalidSetting, SinkUnavailable
from carpark.ledger import JSON_LINES
from carpark.plugins import Plugins, Sink
from carpark.plugins.sinks.lines import StreamSink
from carpark.settings import load_settings
from carpark.testing import make_context, make_summaries, make_summary
from tests.support.ledgers import CSV, JSONL, Keeper

PLUGINS = Plugins()
SINKS = pytest.mark.parametrize("keeper", [CSV, JSONL], ids=["csv", "jsonl"])


def environ_of(keeper: Keeper, path: Path) -> dict[str, str]:
    return {"CARPARK_SINKS": keeper.name, f"CARPARK_SINK_{keeper.name.upper()}": str(path)}


def make_file(keeper: Keeper, path: Path, **environ: str) -> Sink:
    return make(keeper.name, **environ_of(keeper, path), **environ)


@SINKS
def test_a_summary_is_a_line_of_its_file_and_is_read_back(keeper: Keeper, tmp_path: Path) -> None:
    path, summaries = tmp_path / "stays", make_summaries(3)
    make_file(keeper, path).deliver([*summaries, summaries[0]])
    assert path.read_bytes() == keeper.header + keeper.lines(*summaries)
    environ = environ_of(keeper, path)
    back = Plugins((), environ).read_back(load_settings(environ))[keeper.name]
    assert (back.place, back.exists, back.size) == (str(path), True, path.stat().st_size)
    assert [row[0] for row in back.rows()] == [summary.id for summary in summaries]


@SINKS
def test_a_path_that_cannot_be_a_file_is_an_error_that_names_the_setting(keeper: Keeper, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "stays"):
        with pytest.raises(InvalidSetting, match=f"CARPARK_SINK_{keeper.name.upper()}="):
            make_file(keeper, path)


@SINKS
def test_the_writers_own_file_is_refused(keeper: Keeper, tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="CARPARK_CSV, which is the writer's alone"):
        make_file(keeper, tmp_path / "summaries", CARPARK_CSV=str(tmp_path / "summaries"))


@SINKS
def test_what_the_ledger_says_is_why_it_is_unavailable(keeper: Keeper, tmp_path: Path) -> None:
    path = tmp_path / "stays"
    sink = make_file(keeper, path, CARPARK_SINK_TIMEOUT="0.1")
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(SinkUnavailable, match=f"{path}: .*another process holds its lock"):
            sink.deliver([make_summary()])


def test_stdout_prints_a_line_each_to_the_standard_output_of_the_moment(capsys: pytest.CaptureFixture[str]) -> None:
    one, other = make_summaries(2)
    sink = make("stdout")
    sink.deliver([one, one])
    sink.deliver([one, other])
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [one.to_dict(), other.to_dict()]


def test_stdout_is_the_real_one_where_dramatiq_has_put_its_log_in_its_place(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Pipe:
        def write(self, text: str) -> None:
            raise AssertionError("this is the log")

    monkeypatch.setattr(sys, "stdout", Pipe())
    make("stdout").deliver([make_summary("exit-1")])
    monkeypatch.undo()
    assert json.loads(capfd.readouterr().out)["id"] == "exit-1"


@pytest.mark.parametrize("encoding", ["iso-8859-1", "ascii", "cp1252", "koi8-r", "utf-8", "utf-16"])
def test_stdout_keeps_every_id_and_plate_whatever_its_encoding(encoding: str) -> None:
    stays = [make_summary(id_, plate) for id_, plate in (("a…b ✓ · 😀", "京A1234"), ("x", "WÜ12"), ("y", "Ж123ДЯ"))]
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    StreamSink(JSON_LINES, stream).deliver(stays)
    assert isinstance(stream.buffer, io.BytesIO)
    found = [json.loads(line) for line in stream.buffer.getvalue().decode(encoding).splitlines()]
    assert found == [stay.to_dict() for stay in stays]


def test_stdout_forgets_the_oldest_ids_so_that_its_memory_is_bounded() -> None:
    stream, summaries = io.StringIO(), make_summaries(4)
    sink = StreamSink(JSON_LINES, stream)
    sink.remembered = 2
    sink.deliver(summaries)
    assert len(sink._ids) == 2
    sink.deliver(summaries[3:])
    assert len(stream.getvalue().splitlines()) == 4


def test_a_closed_stdout_is_said(make_closed: Callable[[], io.StringIO]) -> None:
    with pytest.raises(SinkUnavailable, match="standard output"):
        StreamSink(JSON_LINES, make_closed()).deliver([make_summary()])


@pytest.fixture
def make_closed() -> Callable[[], io.StringIO]:
    def make() -> io.StringIO:
        stream = io.StringIO()
        stream.close()
        return stream

    return make


def make(name: str, **environ: str) -> Sink:
    return PLUGINS.make_sinks(make_context({"CARPARK_SINKS": name} | environ))[name]
