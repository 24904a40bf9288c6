"""The CSV file when the disk is full, fails or is touched by others; and reading it."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.summaries import HEADER, ids_in, index_of, posted, summary
from writer import rawfile
from writer.csvfile import SummaryFile
from writer.index import Index


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "summaries.csv"


# -- the disk


def fail_after(count: int, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let so many bytes more be written, then fail as a full disk does."""
    real, left = os.write, count

    def write(fd: int, data: bytes) -> int:
        nonlocal left
        if left <= 0:
            raise OSError(code, os.strerror(code))
        written = real(fd, bytes(data)[:left])
        left -= written
        return written

    monkeypatch.setattr(os, "write", write)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG, errno.EIO])
@pytest.mark.parametrize("count", [0, 1, 90, 137])
def test_a_failed_write_leaves_whole_lines_and_goes_on_later(
    path: Path, monkeypatch: pytest.MonkeyPatch, code: int, count: int
) -> None:
    with SummaryFile(path) as file:
        file.append([summary("a")])
        before = path.read_bytes()
        with monkeypatch.context() as patch:
            fail_after(count, code, patch)
            with pytest.raises(OSError, match=os.strerror(code)) as caught:
                file.append([summary("b"), summary("c"), summary("a")])
            assert caught.value.errno == code
        assert path.read_bytes() == before
        assert file.append([summary("b"), summary("c"), summary("a")]) == (2, 1)
    assert ids_in(path) == ["a", "b", "c"]


def test_a_failed_fsync_is_a_failed_write(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int) -> None:
        raise OSError(errno.EIO, "the disk fails")

    with SummaryFile(path) as file:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            with pytest.raises(OSError, match="the disk fails"):
                file.append([summary("a")])
        assert path.read_bytes() == HEADER
        assert file.append([summary("a")]) == (1, 0)
    assert ids_in(path) == ["a"]


def test_what_could_not_be_cut_off_at_once_is_cut_off_before_the_next_write(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.EIO, "the disk fails")

    with SummaryFile(path) as file:
        with monkeypatch.context() as patch:
            fail_after(50, errno.ENOSPC, patch)
            patch.setattr(os, "ftruncate", fail)
            with pytest.raises(OSError, match="No space"):
                file.append([summary("a")])
            with pytest.raises(OSError, match="the disk fails"):
                file.append([summary("a")])
        assert len(path.read_bytes()) == len(HEADER) + 50
        with file.snapshot() as snapshot:
            assert snapshot.read() == HEADER
        assert file.append([summary("b")]) == (1, 0)
    assert ids_in(path) == ["b"]


def test_everyone_who_waits_is_told_of_a_failure(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[OSError] = []
    syncing, go_on = threading.Event(), threading.Event()

    def fail(fd: int) -> None:
        syncing.set()
        assert go_on.wait(10)
        raise OSError(errno.EIO, "the disk fails")

    with SummaryFile(path) as file:
        monkeypatch.setattr(os, "fsync", fail)

        def post(number: int) -> None:
            try:
                file.append([summary(f"{number}")])
            except OSError as error:
                failures.append(error)

        threads = [threading.Thread(target=post, args=(number,)) for number in range(5)]
        for thread in threads:
            thread.start()
        assert syncing.wait(10)
        go_on.set()
        for thread in threads:
            thread.join(10)
        monkeypatch.undo()
        assert len(failures) == 5
    assert path.read_bytes() == HEADER


def test_nothing_is_written_into_a_file_that_was_moved_away(path: Path) -> None:
    with SummaryFile(path) as file:
        file.append([summary("a")])
        moved = path.rename(path.with_name("moved.csv"))
        with pytest.raises(OSError, match=r"was moved or deleted; start the writer again"):
            file.append([summary("b")])
        assert ids_in(moved) == ["a"]
        moved.rename(path)
        assert file.append([summary("b")]) == (1, 0)
    assert ids_in(path) == ["a", "b"]


LINE = b"b,B123,2026-11-23T10:30:00.000000Z,2026-11-23T12:00:00.000000Z,5400\r\n"


def appending(path: Path, what: bytes) -> Callable[[int, bytes], int]:
    """Make an `os.write` before which another program appends something."""
    real = os.write

    def write(fd: int, data: bytes) -> int:
        with path.open("ab") as other:
            other.write(what)
        return real(fd, data)

    return write


@pytest.mark.parametrize("what", [LINE, LINE + LINE[:20], b"x", b"\n", LINE * 1000])
def test_after_another_program_has_appended_nothing_is_written_and_the_next_start_takes_it_in(
    path: Path, what: bytes
) -> None:
    told: list[bool] = []
    with SummaryFile(path) as file:
        file.on_foreign = lambda: told.append(True)
        file.append([summary("a")])
        with path.open("ab") as other:
            other.write(what)
        before = path.read_bytes()
        for _ in range(2):
            with pytest.raises(OSError, match=r"another program has appended to .*summaries.csv: nothing of it was ov"):
                file.append([summary("a"), summary("c")])
            assert path.read_bytes() == before
        assert "another program" in (file.problem() or "")
        assert told == [True]
        assert [one["id"] for one in file.latest(10)] == ["a"]
    with SummaryFile(path) as file:
        assert file.append([summary("a"), summary("b"), summary("c")]) == ((1, 2) if what.startswith(LINE) else (2, 1))
    assert path.read_bytes().startswith(before[: before.rindex(b"\n") + 1])


@pytest.mark.parametrize("what", [LINE, b"1,2\r\n"])
def test_what_another_program_appends_in_the_moment_of_a_write_is_not_overwritten_either(
    path: Path, monkeypatch: pytest.MonkeyPatch, what: bytes
) -> None:
    with SummaryFile(path) as file:
        file.append([summary("a")])
        before = path.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", appending(path, what))
            assert file.append([summary("c"), summary("d")]) == (2, 0), "they are on disk"
        assert path.read_bytes() == before + what + LINE.replace(b"b,", b"c,", 1) + LINE.replace(b"b,", b"d,", 1)
        with pytest.raises(OSError, match="another program has appended"):
            file.append([summary("e")])
    with SummaryFile(path) as file:
        assert file.append([summary(id_) for id_ in "acde"]) == (1, 3)


def test_a_failed_write_cuts_off_nothing_of_another_program(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int) -> None:
        raise OSError(errno.EIO, "the disk fails")

    with SummaryFile(path) as file:
        before = path.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", appending(path, LINE))
            patch.setattr(os, "fsync", fail)
            with pytest.raises(OSError, match="the disk fails"):
                file.append([summary("c")])
        assert path.read_bytes().startswith(before + LINE)
        with pytest.raises(OSError, match="another program has appended"):
            file.append([summary("c")])
        assert path.read_bytes().startswith(before + LINE)


def test_a_file_that_was_emptied_in_place_is_begun_anew(path: Path) -> None:
    with SummaryFile(path) as file:
        file.append([summary("a"), summary("b")])
        os.truncate(path, 0)  # what `> summaries.csv` does
        with file.snapshot() as snapshot:
            assert (snapshot.size, snapshot.read()) == (0, b"")
        assert file.latest(10) == []
        assert file.append([summary("b"), summary("c")]) == (2, 0)
        assert file.append([summary("c")]) == (0, 1)
        assert file.totals().rows == 2
        with file.snapshot() as snapshot:
            assert snapshot.read() == path.read_bytes()
    assert path.read_bytes().startswith(HEADER)
    assert ids_in(path) == ["b", "c"]


def test_an_emptied_file_is_begun_anew_after_a_failed_write_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "broken")

    with SummaryFile(path) as file:
        file.append([summary("a")])
        with monkeypatch.context() as broken:
            broken.setattr(os, "fsync", fail)
            broken.setattr(os, "ftruncate", fail)
            with pytest.raises(OSError, match="broken"):
                file.append([summary("b")])
        os.truncate(path, 0)
        assert file.append([summary("c")]) == (1, 0)
    assert ids_in(path) == ["c"]


def test_what_waits_for_the_index_is_forgotten_with_the_file_that_it_was_in(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with SummaryFile(path) as file:
        with monkeypatch.context() as broken:
            broken.setattr(Index, "add", fail)
            assert file.append([summary("a")]) == (1, 0)
            os.truncate(path, 0)
            with contextlib.suppress(OSError):
                file.append([summary("a")])
            with contextlib.suppress(OSError):
                file.append([summary("a")])
        file.append([summary("a")])
    assert ids_in(path) == ["a"]


def test_another_file_of_summaries_written_in_its_place_is_gone_on_with(path: Path) -> None:
    with SummaryFile(path) as file:
        file.append([summary("a"), summary("b")])
        path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n").replace(b"\na,", b"\nx,"))
        assert file.append([summary("x"), summary("a")]) == (1, 1)
        assert [one["id"] for one in file.latest(10)] == ["a", "b", "x"]
    assert b"\r" not in path.read_bytes()
    assert ids_in(path) == ["x", "b", "a"]


@pytest.mark.parametrize("content", [b"something,else\r\n1,2\r\n", b"x", b"id,vehicle_plate\r\n"])
def test_something_else_written_in_its_place_is_left_alone_and_said(path: Path, content: bytes) -> None:
    with SummaryFile(path) as file:
        file.append([summary("a")])
        path.write_bytes(content)
        for _ in range(2):
            with pytest.raises(OSError, match=r"CARPARK_CSV='.*': wanted a new file, or one whose first line is id,"):
                file.append([summary("b")])
            assert path.read_bytes() == content
        path.write_bytes(HEADER)
        assert file.append([summary("b")]) == (1, 0)
    assert ids_in(path) == ["b"]


# -- reading


def test_the_latest_come_newest_first_however_many_there_are(path: Path) -> None:
    ids = [f'{number},"{"x" * 100}"' for number in range(3000)]
    with SummaryFile(path) as file:
        assert file.latest(10) == []
        file.append([summary(id_) for id_ in ids])
        assert [found["id"] for found in file.latest(1)] == ids[:-2:-1]
        assert [found["id"] for found in file.latest(1000)] == ids[: -1000 - 1 : -1]
        assert [found["id"] for found in file.latest(10_000)] == ids[::-1]
        assert file.latest(1) == [posted(ids[-1])]


def test_lines_are_found_at_every_block_boundary(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    for length in (1, 2, 3, 65535, 65536, 65537):
        path.write_bytes(b"head\n" + b"first\n" + b"x" * length + b"\nlast\n")
        fd = os.open(path, os.O_RDONLY)
        size = path.stat().st_size
        assert list(rawfile.lines_backwards(fd, 5, size, 1 << 20)) == [b"last", b"x" * length, b"first"]
        assert [line for _, line in rawfile.lines_from(fd, 5, size)] == [b"first", b"x" * length, b"last"]
        os.close(fd)


def test_a_snapshot_ends_where_the_file_ended_and_can_be_read_from_any_place(path: Path) -> None:
    with SummaryFile(path) as file:
        file.append([summary("a")])
        with file.snapshot() as snapshot:
            file.append([summary("b")])
            content = snapshot.read()
            assert content == HEADER + b"a,B123,2026-11-23T10:30:00.000000Z,2026-11-23T12:00:00.000000Z,5400\r\n"
            assert snapshot.read(10) == b""
            assert snapshot.seek(-3, os.SEEK_END) == len(content) - 3
            assert snapshot.read(100) == b"0\r\n"
            snapshot.seek(0)
            snapshot.seek(2, os.SEEK_CUR)
            assert snapshot.read(4) == b",veh"


def test_closing_twice_is_closing_once(path: Path) -> None:
    file = SummaryFile(path)
    file.close()
    file.close()
    assert not index_of(path).with_name(index_of(path).name + "-journal").exists()
