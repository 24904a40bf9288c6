"""The file when the disk is full, fails or is touched by others; and reading it."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from carpark.ledger.file import AppendOnlyFile
from tests.support.ledgers import JSONL, WRITER, Keeper
from tests.support.summaries import posted


def fail(*_: object) -> None:
    raise OSError(errno.EIO, "the disk fails")


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
    keeper: Keeper, path: Path, monkeypatch: pytest.MonkeyPatch, code: int, count: int
) -> None:
    with keeper.open(path) as ledger:
        keeper.append(ledger, "a")
        with monkeypatch.context() as patch:
            fail_after(count, code, patch)
            with pytest.raises(OSError, match=os.strerror(code)) as caught:
                keeper.append(ledger, "b", "c", "a")
            assert caught.value.errno == code
        assert path.read_bytes() == keeper.content("a")
        assert keeper.append(ledger, "b", "c", "a") == (2, 1)
    assert path.read_bytes() == keeper.content("a", "b", "c")


def test_a_failed_sync_is_a_failed_write(keeper: Keeper, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with keeper.open(path) as ledger:
        keeper.append(ledger)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            with pytest.raises(OSError, match="the disk fails"):
                keeper.append(ledger, "a")
        assert path.read_bytes() == keeper.header
        synced: list[bytes] = []
        monkeypatch.setattr(os, "fsync", lambda fd: synced.append(path.read_bytes()))
        assert keeper.append(ledger, "a") == (1, 0)
        assert synced[-1] == keeper.content("a")


def test_what_could_not_be_cut_off_at_once_is_cut_off_before_the_next_write(
    keeper: Keeper, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with keeper.open(path) as ledger:
        with monkeypatch.context() as patch:
            fail_after(50, errno.ENOSPC, patch)
            patch.setattr(os, "ftruncate", fail)
            with pytest.raises(OSError, match="No space"):
                keeper.append(ledger, "a")
            with pytest.raises(OSError, match="the disk fails"):
                keeper.append(ledger, "a")
        assert len(path.read_bytes()) == len(keeper.header) + 50
        if keeper is WRITER:
            with ledger.snapshot() as snapshot:
                assert snapshot.read() == keeper.header
        assert keeper.append(ledger, "b") == (1, 0)
    assert path.read_bytes() == keeper.content("b")


def test_everyone_who_waits_is_told_of_a_failure(keeper: Keeper, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[OSError] = []
    syncing, go_on = threading.Event(), threading.Event()

    def fail_slowly(fd: int) -> None:
        syncing.set()
        assert go_on.wait(10)
        fail()

    with keeper.open(path) as ledger:
        monkeypatch.setattr(os, "fsync", fail_slowly)

        def post(number: int) -> None:
            try:
                keeper.append(ledger, f"{number}")
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
    assert len({*map(id, failures)}) == 5
    assert path.read_bytes() == keeper.header


# -- others


def test_in_a_file_that_was_moved_away_nothing_is_written(keeper: Keeper, path: Path) -> None:
    """The writer has to be started again; the sinks begin a new one."""
    with keeper.open(path) as ledger:
        keeper.append(ledger, "a")
        moved = path.rename(path.with_name("moved"))
        if keeper is WRITER:
            with pytest.raises(OSError, match=r"was moved or deleted; start the writer again"):
                keeper.append(ledger, "b")
            assert "was moved or deleted" in (ledger.problem() or "")
            moved.rename(path)
            assert ledger.problem() is None
            assert keeper.append(ledger, "b") == (1, 0)
            assert path.read_bytes() == keeper.content("a", "b")
        else:
            assert keeper.append(ledger, "a", "b") == (2, 0)
            assert path.read_bytes() == keeper.content("a", "b")
            assert moved.read_bytes() == keeper.content("a")


LINE = WRITER.lines("b")


@pytest.mark.parametrize("more", [b"", LINE[:20], LINE * 1000], ids=["a line", "a torn one too", "many lines too"])
@pytest.mark.parametrize("begins", [True, False], ids=["a summary", "none"])
def test_what_another_program_appends_is_not_overwritten(keeper: Keeper, path: Path, more: bytes, begins: bool) -> None:
    """The writer stops, and its next start takes it in; the sinks take it in at once."""
    theirs = (keeper.lines("b") if begins else b"x\n") + more
    told: list[bool] = []
    with keeper.open(path) as ledger:
        ledger.on_foreign = lambda: told.append(True)
        keeper.append(ledger, "a")
        with path.open("ab") as other:
            other.write(theirs)
        before = path.read_bytes()
        if keeper is WRITER:
            for _ in range(2):
                with pytest.raises(OSError, match=r"another program has appended to .*stays: nothing of it was overwr"):
                    keeper.append(ledger, "a", "c")
                assert path.read_bytes() == before
            assert "another program" in (ledger.problem() or "")
            assert told == [True]
            assert [one["id"] for one in ledger.latest(10)] == ["a"]
            ledger.close()
            ledger = keeper.open(path)
        is_there = begins or (keeper is not JSONL and more.endswith(LINE))
        assert keeper.append(ledger, "a", "b", "c") == ((1, 2) if is_there else (2, 1))
        ledger.close()
    assert path.read_bytes().startswith(before[: before.rindex(b"\n") + 1])


def append_before(path: Path, what: bytes) -> Callable[[int, bytes], int]:
    """Make an `os.write` before which another program appends something."""
    real = os.write

    def write(fd: int, data: bytes) -> int:
        with path.open("ab") as other:
            other.write(what)
        return real(fd, data)

    return write


@pytest.mark.parametrize("begins", [True, False], ids=["a summary", "none"])
def test_what_another_program_appends_in_the_moment_of_a_write_is_not_overwritten_either(
    keeper: Keeper, path: Path, monkeypatch: pytest.MonkeyPatch, begins: bool
) -> None:
    theirs = keeper.lines("b") if begins else b"1,2\r\n"
    with keeper.open(path) as ledger:
        keeper.append(ledger, "a")
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", append_before(path, theirs))
            assert keeper.append(ledger, "c", "d") == (2, 0), "they are on disk"
        assert path.read_bytes() == keeper.content("a") + theirs + keeper.lines("c", "d")
        if keeper is WRITER:
            with pytest.raises(OSError, match="another program has appended"):
                keeper.append(ledger, "e")
        else:
            assert keeper.append(ledger, "c", "d") == (0, 2)
    assert keeper.write(path, "a", "b", "c", "d", "e") == ((1, 4) if begins else (2, 3))


def test_a_failed_write_cuts_off_nothing_of_another_program(
    keeper: Keeper, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with keeper.open(path) as ledger:
        keeper.append(ledger)
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", append_before(path, keeper.lines("b")))
            patch.setattr(os, "fsync", fail)
            with pytest.raises(OSError, match="the disk fails"):
                keeper.append(ledger, "c")
        assert path.read_bytes() == keeper.content("b", "c")
        if keeper is WRITER:
            with pytest.raises(OSError, match="another program has appended"):
                keeper.append(ledger, "c")
        else:
            assert keeper.append(ledger, "b", "c", "d") == (1, 2)
    assert path.read_bytes().startswith(keeper.content("b", "c"))


def test_a_file_that_was_emptied_in_place_is_begun_anew(keeper: Keeper, path: Path) -> None:
    with keeper.open(path) as ledger:
        keeper.append(ledger, "a", "b")
        os.truncate(path, 0)  # what `> stays` does
        if keeper is WRITER:
            with ledger.snapshot() as snapshot:
                assert (snapshot.size, snapshot.read()) == (0, b"")
            assert ledger.latest(10) == []
        assert keeper.append(ledger, "b", "c") == (2, 0)
        assert keeper.append(ledger, "c") == (0, 1)
    assert path.read_bytes() == keeper.content("b", "c")


def test_an_emptied_file_is_begun_anew_after_a_failed_write_too(
    keeper: Keeper, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with keeper.open(path) as ledger:
        keeper.append(ledger, "a")
        with monkeypatch.context() as broken:
            broken.setattr(os, "fsync", fail)
            broken.setattr(os, "ftruncate", fail)
            with pytest.raises(OSError, match="the disk fails"):
                keeper.append(ledger, "b")
        os.truncate(path, 0)
        assert keeper.append(ledger, "c") == (1, 0)
    assert path.read_bytes() == keeper.content("c")


@pytest.mark.parametrize("ids", [("x", "b"), ("x",), ("x", "y")], ids=lambda ids: "".join(ids))
def test_other_summaries_written_in_its_place_are_gone_on_with(keeper: Keeper, path: Path, ids: tuple[str]) -> None:
    """Also when the file is as long as before, or ends as before and is shorter."""
    with keeper.open(path) as ledger:
        keeper.append(ledger, "a", "b")
        path.write_bytes(keeper.content(*ids))
        assert keeper.append(ledger, *ids, "a") == (1, len(ids))
    assert path.read_bytes() == keeper.content(*ids, "a")


@pytest.mark.parametrize("content", [b"something,else\r\n1,2\r\n", b"x", b"id,vehicle_plate\r\n"])
def test_something_else_written_in_its_place_is_left_alone_and_said(path: Path, content: bytes) -> None:
    with WRITER.open(path) as ledger:
        WRITER.append(ledger, "a")
        for longer in (content, content.ljust(len(WRITER.content("a")), b"x")):
            path.write_bytes(longer)
            for _ in range(2):
                with pytest.raises(OSError, match=r"CARPARK_FILE='.*': wanted a new file, or one whose first line is"):
                    WRITER.append(ledger, "b")
                assert path.read_bytes() == longer
        path.write_bytes(WRITER.header)
        assert WRITER.append(ledger, "b") == (1, 0)
    assert path.read_bytes() == WRITER.content("b")


# -- reading


def test_the_latest_come_newest_first_however_many_there_are(path: Path) -> None:
    ids = [f'{number},"{"x" * 100}"' for number in range(3000)]
    with WRITER.open(path) as ledger:
        assert ledger.latest(10) == []
        WRITER.append(ledger, *ids)
        assert [found["id"] for found in ledger.latest(1)] == ids[:-2:-1]
        assert [found["id"] for found in ledger.latest(1000)] == ids[: -1000 - 1 : -1]
        assert [found["id"] for found in ledger.latest(10_000)] == ids[::-1]
        assert ledger.latest(1) == [posted(ids[-1])]


def test_lines_are_found_at_every_block_boundary(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    for length in (1, 2, 3, 65535, 65536, 65537):
        path.write_bytes(WRITER.header + b"first\n" + b"x" * length + b"\nlast\n")
        file = AppendOnlyFile(path, WRITER.form, "CARPARK_FILE")
        file.open()
        file.begin()
        assert list(file.lines_backwards(100)) == [b"last", b"x" * length, b"first"]
        assert [line for _, line in file.lines(file.first)] == [b"first", b"x" * length, b"last"]
        file.close()


def test_a_snapshot_ends_where_the_file_ended_and_can_be_read_from_any_place(path: Path) -> None:
    with WRITER.open(path) as ledger:
        WRITER.append(ledger, "a")
        with ledger.snapshot() as snapshot:
            WRITER.append(ledger, "b")
            content = snapshot.read()
            assert content == WRITER.content("a")
            assert snapshot.read(10) == b""
            assert snapshot.seek(-3, os.SEEK_END) == len(content) - 3
            assert snapshot.read(100) == b"0\r\n"
            snapshot.seek(0)
            snapshot.seek(2, os.SEEK_CUR)
            assert snapshot.read(4) == b",veh"
