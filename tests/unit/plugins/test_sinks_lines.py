"""The line writer: exact lines, torn ends, several processes, full disks."""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carpark.domain.events import StaySummary
from carpark.errors import InvalidSetting, SinkUnavailable
from carpark.plugins import Plugins, Sink
from carpark.plugins.sinks import lines
from carpark.plugins.sinks.lines import CSV_LINES, JSON_LINES, LineFileSink, LineFormat, StreamSink
from carpark.testing import make_context, make_summaries, make_summary

PLUGINS = Plugins()
FORMATS = pytest.mark.parametrize("form", [CSV_LINES, JSON_LINES], ids=["csv", "jsonl"])


def content(form: LineFormat, *summaries: StaySummary) -> bytes:
    return (form.header + "".join(form.write(summary) for summary in summaries)).encode()


def test_the_csv_has_the_writers_columns_and_rfc_4180s_lines(tmp_path: Path) -> None:
    path = tmp_path / "stays.csv"
    LineFileSink(path, CSV_LINES, 1).deliver([make_summary('a,"b"', stayed=timedelta(seconds=0.25))])
    assert path.read_bytes() == (
        b"id,vehicle_plate,entry_date_time,exit_date_time,duration\r\n"
        b'"a,""b""",QBF0427,2026-11-23T18:00:00.000000Z,2026-11-23T18:00:00.250000Z,0.25\r\n'
    )


def test_a_json_line_is_the_summary(tmp_path: Path) -> None:
    path, summary = tmp_path / "stays.jsonl", make_summary("Zoë\u2028")
    LineFileSink(path, JSON_LINES, 1).deliver([summary])
    assert json.loads(path.read_text(encoding="utf-8")) == summary.to_dict()
    assert path.read_bytes().count(b"\n") == 1


@given(id_=st.text(min_size=1, max_size=128), micros=st.integers(0, 10**12))
@pytest.mark.parametrize("form", [CSV_LINES, JSON_LINES], ids=["csv", "jsonl"])
def test_every_line_is_read_back(form: LineFormat, id_: str, micros: int) -> None:
    try:
        made = make_summary(id_, "ÄÖ1", stayed=timedelta(microseconds=micros))
        summary = StaySummary.parse(made.to_dict())
    except Exception:
        return  # an id that no summary can have
    line = form.write(summary)
    assert line.count("\n") == 1
    assert form.id_of(line[:-1]) == id_
    assert form.read(line[:-1]) == summary


@FORMATS
def test_wherever_a_crash_tears_a_file_the_next_start_repairs_it_and_nothing_is_lost(
    form: LineFormat, tmp_path: Path
) -> None:
    stayed = timedelta(seconds=1234.56789)
    summaries = [make_summary(f'exit,"{number}"', "ÄÖ1", stayed=stayed) for number in range(3)]
    whole = content(form, *summaries)
    safe = len(content(form, *summaries[:2]))
    for end in [*range(len(form.header) + 1), *range(safe, len(whole) + 1)]:
        path = tmp_path / f"{end}"
        path.write_bytes(whole[:end])
        LineFileSink(path, form, 1).deliver(summaries)
        assert path.read_bytes() == whole, end


@FORMATS
def test_a_torn_line_is_repaired_at_start(form: LineFormat, tmp_path: Path) -> None:
    path, summaries = tmp_path / "stays", make_summaries(2)
    path.write_bytes(content(form, *summaries)[:-9])
    LineFileSink(path, form, 1)
    assert path.read_bytes() == content(form, summaries[0])


@FORMATS
def test_a_last_line_that_only_lacks_its_line_break_is_kept(form: LineFormat, tmp_path: Path) -> None:
    path, summaries = tmp_path / "stays", make_summaries(2)
    path.write_bytes(content(form, *summaries).rstrip())
    LineFileSink(path, form, 1)
    assert path.read_bytes() == content(form, *summaries)


@FORMATS
def test_a_line_that_is_nobodys_stays_where_it_is(form: LineFormat, tmp_path: Path) -> None:
    path, summaries = tmp_path / "stays", make_summaries(2)
    strange = b'garbage "\r in between\xff,\n[1]\n{"id": 5}\n' + b"[" * 5000 + b"\n\n"
    path.write_bytes(content(form, summaries[0]) + strange)
    LineFileSink(path, form, 1).deliver(summaries)
    assert path.read_bytes() == content(form, summaries[0]) + strange + form.write(summaries[1]).encode()


def test_a_file_of_another_kind_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "stays.csv"
    for text in ("name,phone\r\nAda,5\r\n", "name"):
        path.write_text(text)
        with pytest.raises(InvalidSetting, match=r"CARPARK_SINK_CSV=.*its first line is not id,vehicle_plate"):
            make("csv", CARPARK_SINK_CSV=str(path))
        assert path.read_text() == text.replace("\r\n", "\n")
    path.write_text(f"\ufeff{CSV_LINES.header}")
    with pytest.raises(InvalidSetting, match=r"its first line is not id,.*: a byte order mark is before it"):
        make("csv", CARPARK_SINK_CSV=str(path))


@pytest.mark.parametrize(("name", "variable"), [("csv", "CARPARK_SINK_CSV"), ("jsonl", "CARPARK_SINK_JSONL")])
def test_a_path_that_cannot_be_a_file_is_an_error_that_names_the_setting(
    name: str, variable: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "stays"):
        with pytest.raises(InvalidSetting, match=variable):
            make(name, **{variable: str(path)})


def test_the_writers_own_file_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "summaries.csv")
    with pytest.raises(InvalidSetting, match="CARPARK_CSV, which is the writer's alone"):
        make("csv", CARPARK_SINK_CSV=path, CARPARK_CSV=path)


@FORMATS
def test_a_file_that_was_moved_away_is_begun_anew(form: LineFormat, tmp_path: Path) -> None:
    path, summaries = tmp_path / "stays", make_summaries(3)
    sink = LineFileSink(path, form, 1)
    sink.deliver(summaries[:2])
    path.rename(tmp_path / "stays.1")
    sink.deliver(summaries[1:])
    assert (tmp_path / "stays.1").read_bytes() == content(form, *summaries[:2])
    assert path.read_bytes() == content(form, *summaries[1:])


@FORMATS
def test_a_full_disk_leaves_no_part_of_a_line_and_is_tried_again(
    form: LineFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, summaries = tmp_path / "stays", make_summaries(3)
    sink = LineFileSink(path, form, 1)
    sink.deliver(summaries[:1])
    write = os.write

    def write_little(file: int, data: memoryview) -> int:
        if len(data) < 150:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data[:100])

    with monkeypatch.context() as patch:
        patch.setattr(lines.os, "write", write_little)
        with pytest.raises(SinkUnavailable, match="No space left on device"):
            sink.deliver(summaries)
    assert path.read_bytes() == content(form, *summaries[:1])
    sink.deliver(summaries)
    assert path.read_bytes() == content(form, *summaries)


@FORMATS
def test_what_a_program_without_a_lock_appends_meanwhile_is_not_overwritten(
    form: LineFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, summaries = tmp_path / "stays", make_summaries(4)
    sink = LineFileSink(path, form, 1)
    write, theirs = os.write, form.write(summaries[3]).encode()

    def write_after_another(file: int, data: memoryview) -> int:
        with path.open("ab") as other:
            other.write(theirs)
        return write(file, data)

    with monkeypatch.context() as patch:
        patch.setattr(lines.os, "write", write_after_another)
        sink.deliver(summaries[:2])
    sink.deliver(summaries)
    assert path.read_bytes() == content(form, summaries[3], *summaries[:3])


@FORMATS
def test_what_did_not_reach_the_disk_is_written_again(
    form: LineFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, summaries = tmp_path / "stays", make_summaries(2)
    sink, synced = LineFileSink(path, form, 1), []
    fsync = os.fsync

    def fail(file: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(lines.os, "fsync", fail)
        with pytest.raises(SinkUnavailable, match="Input/output error"):
            sink.deliver(summaries)
    assert path.read_bytes() == content(form)
    monkeypatch.setattr(lines.os, "fsync", lambda file: (synced.append(path.read_bytes()), fsync(file)))
    sink.deliver(summaries)
    assert synced[-1] == content(form, *summaries)


def test_a_lock_that_another_process_keeps_is_said_in_time(tmp_path: Path) -> None:
    path = tmp_path / "stays"
    sink = LineFileSink(path, JSON_LINES, 0.1)
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(SinkUnavailable, match="another process holds its lock"):
            sink.deliver([make_summary()])


APPENDER = """
import json, sys
from pathlib import Path
from carpark.domain.events import StaySummary
from carpark.plugins.sinks import lines
sink = lines.LineFileSink(Path(sys.argv[1]), getattr(lines, sys.argv[2]), 60)
print("ready", flush=True)
for text in sys.stdin:
    sink.deliver([StaySummary.parse(fields) for fields in json.loads(text)])
    print("kept", flush=True)
"""


@pytest.mark.parametrize("form", ["CSV_LINES", "JSON_LINES"])
def test_several_processes_append_to_one_file_while_one_is_killed_and_each_line_is_there_once(
    form: str, tmp_path: Path
) -> None:
    path, summaries = tmp_path / "stays", make_summaries(400)
    batches = [json.dumps([one.to_dict() for one in summaries[i : i + 8]]) for i in range(0, 400, 8)]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", APPENDER, str(path), form],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    try:
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        feeds = [batches, batches[::-1], batches[25:] + batches[:25]]
        for process, feed in zip(started, feeds, strict=True):
            assert process.stdin is not None
            process.stdin.write("\n".join(feed) + "\n")
            process.stdin.flush()
        assert started[2].stdout is not None
        for _ in range(10):
            assert started[2].stdout.readline() == "kept\n"
        started[2].send_signal(signal.SIGKILL)
        for process in started[:2]:
            output, _ = process.communicate(timeout=60)
            assert output == "kept\n" * 50
            assert process.returncode == 0
    finally:
        for process in started:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()
    text = path.read_bytes().decode()
    if form == "CSV_LINES":
        ids = [row["id"] for row in csv.DictReader(io.StringIO(text, newline=""), strict=True)]
    else:
        ids = [json.loads(line)["id"] for line in text.splitlines()]
    assert sorted(ids) == sorted(summary.id for summary in summaries)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(data=st.binary(max_size=200))
def test_no_bytes_after_the_header_stop_a_sink_from_starting(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "stays"
    summary = make_summary()
    for form in (CSV_LINES, JSON_LINES):
        path.write_bytes(form.header.encode() + data)
        LineFileSink(path, form, 1).deliver([summary])
        assert path.read_bytes().endswith(form.write(summary).encode())


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
    return PLUGINS.make_sinks(make_context({"CARPARK_SINKS": name, **environ}))[name]
