"""The CSV file: each id once, whatever happened to the process, the disk or the index before."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from carpark.errors import FileInUse, InvalidSetting, ServiceError
from tests.summaries import HEADER, ids_in, read_csv, summary
from writer import index, rawfile
from writer.csvfile import SummaryFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "summaries.csv"


def write(path: Path, *ids: str) -> tuple[int, int]:
    with SummaryFile(path) as file:
        return file.append([summary(id_) for id_ in ids])


def index_of(path: Path) -> Path:
    return path.with_name(path.name + ".index.sqlite")


def crash(file: SummaryFile) -> None:
    """Let go of the files as SIGKILL does: nothing is finished, nothing is said."""
    file._index.abandon()
    os.close(file._fd)
    file._fd = -1


# -- what is written


def test_a_new_file_has_the_header_and_its_folder_is_made(path: Path) -> None:
    SummaryFile(path).close()
    assert path.read_bytes() == HEADER


def test_summaries_are_lines_in_the_order_they_came(path: Path) -> None:
    assert write(path, "b", 'a,"1"', "ü") == (3, 0)
    assert [line.count("\r\n") for line in path.read_bytes().decode().splitlines(keepends=True)] == [1, 1, 1, 1]
    assert read_csv(path) == [
        {
            "id": id_,
            "vehicle_plate": "B123",
            "entry_date_time": "2026-11-23T10:30:00.000000Z",
            "exit_date_time": "2026-11-23T12:00:00.000000Z",
            "duration": "5400",
        }
        for id_ in ("b", 'a,"1"', "ü")
    ]


def test_an_id_is_written_once_in_a_list_in_a_run_and_after_a_restart(path: Path) -> None:
    with SummaryFile(path) as file:
        assert file.append([summary("a"), summary("b"), summary("a", "OTHER")]) == (2, 1)
        assert file.append([summary("b"), summary("c")]) == (1, 1)
    assert write(path, "a", "b", "c", "d") == (1, 3)
    assert ids_in(path) == ["a", "b", "c", "d"]


def test_an_empty_list_writes_nothing(path: Path) -> None:
    assert write(path) == (0, 0)
    assert path.read_bytes() == HEADER


def test_it_is_on_disk_before_anyone_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SummaryFile(path) as file:
        synced: list[bytes] = []
        monkeypatch.setattr(os, "fsync", lambda fd: synced.append(path.read_bytes()))
        file.append([summary("a"), summary("b")])
        assert synced == [path.read_bytes()]
        file.append([summary("a")])
        assert len(synced) == 1, "a duplicate needs no fsync"


def test_lists_of_many_threads_share_fsyncs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs = []
    first_is_syncing, all_are_waiting = threading.Event(), threading.Event()
    real = os.fsync

    def slow(fd: int) -> None:
        syncs.append(fd)
        first_is_syncing.set()
        assert all_are_waiting.wait(10)
        real(fd)

    with SummaryFile(path) as file:
        monkeypatch.setattr(os, "fsync", slow)
        results: dict[int, tuple[int, int]] = {}

        def post(number: int) -> None:
            results[number] = file.append([summary(f"own-{number}"), summary("shared")])

        threads = [threading.Thread(target=post, args=(number,)) for number in range(8)]
        threads[0].start()
        assert first_is_syncing.wait(10)
        for thread in threads[1:]:
            thread.start()
        while len(file._waiting) < 7:
            threading.Event().wait(0.001)
        all_are_waiting.set()
        for thread in threads:
            thread.join(10)
        monkeypatch.undo()
    assert len(syncs) == 2
    assert sum(written for written, _ in results.values()) == 9
    assert sum(duplicates for _, duplicates in results.values()) == 7
    assert sorted(ids_in(path)) == sorted(["shared", *(f"own-{number}" for number in range(8))])


def test_many_threads_writing_the_same_ids_write_each_once(path: Path) -> None:
    with SummaryFile(path) as file:
        written: list[int] = []

        def post(start: int) -> None:
            for number in range(30):
                written.append(file.append([summary(f"{(start * 7 + number + k) % 60}") for k in range(4)])[0])

        threads = [threading.Thread(target=post, args=(start,)) for start in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert len(ids_in(path)) == len(set(ids_in(path))) == sum(written) == 60


# -- the last line


def test_a_torn_last_line_is_repaired_at_start_wherever_it_was_torn(path: Path) -> None:
    write(path, "a", 'b,"2"', "cü")
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        before = path.read_bytes().split(b"\r\n")[:-1]
        assert write(path) == (0, 0)
        repaired = path.read_bytes()
        assert repaired.endswith(b"\r\n")
        assert repaired.split(b"\r\n")[: len(before)] == before
        assert set(ids_in(path)) <= {"a", 'b,"2"', "cü"}
        write(path, "a", 'b,"2"', "cü")
        assert sorted(ids_in(path)) == ["a", 'b,"2"', "cü"]


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(ids=st.lists(st.text('ab",; ü\u2028', min_size=1, max_size=6), unique=True, max_size=12), cut=st.integers(0, 60))
def test_after_any_tear_the_same_list_completes_the_file(tmp_path: Path, ids: list[str], cut: int) -> None:
    path = tmp_path / "torn.csv"
    for leftover in (path, index_of(path)):
        leftover.unlink(missing_ok=True)
    write(path, *ids)
    content = path.read_bytes()
    path.write_bytes(content[: max(0, len(content) - cut)])
    write(path, *ids)
    assert sorted(ids_in(path)) == sorted(ids)


def test_a_last_line_that_lacks_only_its_end_is_kept(path: Path) -> None:
    write(path, "a", "b")
    path.write_bytes(path.read_bytes()[:-2])
    assert write(path, "b", "c") == (1, 1)
    assert ids_in(path) == ["a", "b", "c"]


def test_a_torn_line_of_zeros_is_cut_off(path: Path) -> None:
    write(path, "a")
    path.write_bytes(path.read_bytes() + bytes(5000))
    assert write(path, "b") == (1, 0)
    assert ids_in(path) == ["a", "b"]


def test_a_file_with_bare_line_feeds_keeps_them(path: Path) -> None:
    write(path, "a")
    path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n"))
    assert write(path, "a", "b") == (1, 1)
    assert b"\r" not in path.read_bytes()
    assert ids_in(path) == ["a", "b"]


# -- files that cannot be used


@pytest.mark.parametrize(
    "content",
    [b"plate,time\r\n", b"id,vehicle_plate\r\n1,B1\r\n", b"\xef\xbb\xbf" + HEADER, b"\n", HEADER[:-2] + b",more\r\n"],
)
def test_a_foreign_file_is_refused_and_left_as_it_is(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(InvalidSetting, match=r"^CARPARK_CSV='.*': wanted a new file, or one whose first line is id,ve"):
        SummaryFile(path)
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_an_end_that_is_longer_than_any_line_is_refused_and_left_as_it_is(path: Path) -> None:
    path.parent.mkdir()
    content = HEADER + b"x" * (2 << 20)
    path.write_bytes(content)
    with pytest.raises(InvalidSetting, match="CARPARK_CSV"):
        SummaryFile(path)
    assert path.read_bytes() == content


def test_a_folder_a_pipe_and_a_name_below_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    for wrong in (tmp_path, tmp_path / "pipe", tmp_path / "file" / "summaries.csv", tmp_path / ("x" * 300)):
        with pytest.raises(InvalidSetting, match=r"^CARPARK_CSV='.*': wanted a file") as caught:
            SummaryFile(wrong)
        assert "\n" not in str(caught.value)


def test_a_file_without_permission_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, "a")

    def refuse(*arguments: object, **named: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(InvalidSetting, match="permission denied"):
        SummaryFile(path)


def test_an_index_that_cannot_be_made_is_one_line(path: Path) -> None:
    index_of(path).mkdir(parents=True)
    with pytest.raises(ServiceError, match=r"^CARPARK_CSV='.*': its index '.*' cannot be written: is a directory$"):
        SummaryFile(path)


def test_a_second_writer_is_refused_until_the_first_has_gone(path: Path) -> None:
    with SummaryFile(path), pytest.raises(FileInUse, match="CARPARK_CSV"):
        SummaryFile(path)
    assert write(path, "a") == (1, 0)


def test_a_download_that_still_runs_does_not_hold_the_file(path: Path) -> None:
    file = SummaryFile(path)
    with file.snapshot():
        file.close()
        assert write(path, "a") == (1, 0)


# -- the index


def damage_nothing(path: Path, before: bytes) -> None:
    pass


def delete_it(path: Path, before: bytes) -> None:
    index_of(path).unlink()


def fill_it_with_garbage(path: Path, before: bytes) -> None:
    index_of(path).write_bytes(b"garbage" * 5000)


def cut_it(path: Path, before: bytes) -> None:
    content = index_of(path).read_bytes()
    index_of(path).write_bytes(content[: len(content) // 2])


def empty_it(path: Path, before: bytes) -> None:
    index_of(path).write_bytes(b"")


def put_back_an_old_one(path: Path, before: bytes) -> None:
    index_of(path).write_bytes(before)


def make_another_kind(path: Path, before: bytes) -> None:
    index_of(path).unlink()
    with sqlite3.connect(index_of(path)) as db:
        db.execute("CREATE TABLE ids (something)")
    db.close()


def lose_ids(path: Path, before: bytes) -> None:
    with sqlite3.connect(index_of(path)) as db:
        db.execute("DELETE FROM ids WHERE offset > 100")
    db.close()


def lose_its_state(path: Path, before: bytes) -> None:
    with sqlite3.connect(index_of(path)) as db:
        db.execute("DELETE FROM state")
    db.close()


@pytest.mark.parametrize(
    "harm",
    [
        damage_nothing,
        delete_it,
        fill_it_with_garbage,
        cut_it,
        empty_it,
        put_back_an_old_one,
        make_another_kind,
        lose_ids,
        lose_its_state,
    ],
    ids=lambda harm: harm.__name__,
)
def test_an_index_is_made_again_or_caught_up(path: Path, harm: Callable[[Path, bytes], None]) -> None:
    ids = [f"id-{number}" for number in range(2000)]
    write(path, *ids[:500])
    before = index_of(path).read_bytes()
    write(path, *ids[500:])
    harm(path, before)
    with SummaryFile(path) as file:
        assert file.totals().rows == 2000
        assert file.totals().seconds == 2000 * 5400
        assert sum(file.stays(3600, 0, 2**40).values()) == 2000
        assert file.append([summary(id_) for id_ in [*ids, "new"]]) == (1, 2000)
    assert ids_in(path) == [*ids, "new"]


def test_the_index_never_claims_an_id_that_the_file_lacks(path: Path) -> None:
    write(path, "a", "b", "c")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]))  # a backup was put back
    assert write(path, "a", "b", "c") == (2, 1)
    path.write_bytes(b"".join([lines[0], lines[3].replace(b"c,", b"d,"), lines[1], lines[2]]))  # or another file
    assert write(path, "a", "b", "c", "d") == (1, 3)
    assert sorted(ids_in(path)) == ["a", "b", "c", "d"]


def test_a_line_changed_behind_its_back_is_noticed_when_its_id_comes(path: Path) -> None:
    with SummaryFile(path) as file:
        file.append([summary("a"), summary("b")])
        stamp = path.stat()
        path.write_bytes(path.read_bytes().replace(b"\r\na,", b"\r\nx,"))
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        assert file.append([summary("a"), summary("x"), summary("b")]) == (1, 2)
        assert file.totals().rows == 3
    assert ids_in(path) == ["x", "b", "a"]


def test_after_a_crash_the_index_is_believed_in_the_same_boot_only(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rebuilt: list[Path] = []
    real = index.remove
    monkeypatch.setattr(index, "remove", lambda path: (rebuilt.append(path), real(path)))
    file = SummaryFile(path)
    file.append([summary("a")])
    crash(file)
    assert write(path, "a") == (0, 1)
    assert rebuilt == []
    file = SummaryFile(path)
    file.append([summary("b")])
    crash(file)
    monkeypatch.setattr(index, "_boot_id", lambda: "after a power cut")
    assert write(path, "a", "b") == (0, 2)
    assert len(rebuilt) == 1
    monkeypatch.setattr(index, "_boot_id", lambda: "after an orderly end")
    assert write(path, "a", "b") == (0, 2)
    assert len(rebuilt) == 1


def test_an_index_that_is_behind_after_a_crash_catches_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = SummaryFile(path)
    file.append([summary("a")])
    monkeypatch.setattr(file, "_flush_index", lambda: None)  # killed between the file and the index
    file.append([summary("b"), summary("c")])
    crash(file)
    assert write(path, "a", "b", "c", "d") == (1, 3)
    assert ids_in(path) == ["a", "b", "c", "d"]


def test_an_index_that_breaks_while_it_is_used_is_made_again(path: Path) -> None:
    with SummaryFile(path) as file:
        file.append([summary(f"{number}") for number in range(100)])
        file._index.abandon()
        assert file.append([summary("7"), summary("new")]) == (1, 1)
        assert file.totals().rows == 101
    assert len(ids_in(path)) == 101


def test_an_index_that_cannot_be_written_is_stood_in_for_by_memory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with SummaryFile(path) as file:
        with monkeypatch.context() as patch:
            patch.setattr(file._index, "add", full)
            assert file.append([summary("a")]) == (1, 0)
            assert file.append([summary("a"), summary("b")]) == (1, 1)
        assert file.append([summary("a"), summary("b")]) == (0, 2)
        assert file.totals().rows == 2
    assert ids_in(path) == ["a", "b"]


def test_memory_stands_in_for_the_index_only_so_far(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("writer.csvfile._MOST_UNINDEXED", 3)
    with SummaryFile(path) as file:
        with monkeypatch.context() as patch:
            patch.setattr(index.Index, "add", full)
            assert file.append([summary(id_) for id_ in "abc"]) == (3, 0)
            with pytest.raises(OSError, match="disk is full"):
                file.append([summary("d")])
        assert file.append([summary(id_) for id_ in "abcd"]) == (1, 3)
    assert ids_in(path) == ["a", "b", "c", "d"]


def test_lines_that_a_person_put_in_are_left_as_they_are(path: Path) -> None:
    write(path, "a")
    with path.open("ab") as file:
        file.write(b'a note\r\n\r\n"torn,1,2,3,4\r\n')
    assert write(path, "a", "b") == (1, 1)
    assert b'a note\r\n\r\n"torn,1,2,3,4\r\nb,' in path.read_bytes()
    with SummaryFile(path) as again:
        assert [found["id"] for found in again.latest(10)] == ["b", "a"]
        assert again.totals().rows == 2


# -- the disk


def fail_after(count: int, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make pwrite write so many bytes more, then fail as a full disk does."""
    real, left = os.pwrite, count

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        nonlocal left
        if left <= 0:
            raise OSError(code, os.strerror(code))
        written = real(fd, bytes(data)[:left], offset)
        left -= written
        return written

    monkeypatch.setattr(os, "pwrite", pwrite)


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


def test_what_another_program_appended_is_taken_in(path: Path) -> None:
    with SummaryFile(path) as file:
        file.append([summary("a")])
        line = path.read_bytes()[len(HEADER) :].replace(b"a,", b"b,")
        with path.open("ab") as other:
            other.write(line + line[:20])
        assert file.append([summary("a"), summary("b"), summary("c")]) == (1, 2)
        assert file.totals().rows == 3
    assert ids_in(path) == ["a", "b", "c"]


# -- reading


def test_the_latest_come_newest_first_however_many_there_are(path: Path) -> None:
    ids = [f'{number},"{"x" * 100}"' for number in range(3000)]
    with SummaryFile(path) as file:
        assert file.latest(10) == []
        file.append([summary(id_) for id_ in ids])
        assert [found["id"] for found in file.latest(1)] == ids[:-2:-1]
        assert [found["id"] for found in file.latest(1000)] == ids[: -1000 - 1 : -1]
        assert [found["id"] for found in file.latest(10_000)] == ids[::-1]
        assert file.latest(1) == [summary(ids[-1]).to_dict()]


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
