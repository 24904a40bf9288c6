"""The CSV file: each id once, the last line repaired, foreign files left alone."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from carpark.errors import FileInUse, InvalidSetting
from tests.support.summaries import HEADER, ids_in, index_of, read_csv, summary, write
from writer.csvfile import SummaryFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "summaries.csv"


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


@pytest.mark.slow
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


@pytest.mark.slow
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
    said = r"^CARPARK_CSV='.*': wanted a new file, or one whose first line is id,ve"
    with pytest.raises(InvalidSetting, match=said) as caught:
        SummaryFile(path)
    assert ("byte order mark" in str(caught.value)) == content.startswith(b"\xef\xbb\xbf")
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
    with pytest.raises(InvalidSetting, match=r"^CARPARK_CSV='.*and its index '.*' beside it \(is a directory\)$"):
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
