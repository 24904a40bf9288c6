"""Each id once, the last line repaired, foreign files left alone, killed anywhere: whoever keeps the ledger."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from carpark.errors import FileInUse, InvalidSetting
from carpark.failpoints import VARIABLE
from carpark.ledger import Ledger
from tests.support.helpers import eventually
from tests.support.ledgers import APPENDER, CSV, JSONL, KEEPERS, WRITER, Keeper, as_line
from tests.support.processes import ROOT
from tests.support.summaries import index_of

SHARED = pytest.mark.parametrize("keeper", [CSV, JSONL], ids=["csv", "jsonl"])
WITH_HEADER = pytest.mark.parametrize("keeper", [WRITER, CSV], ids=["writer", "csv"])

# -- what is written


def test_summaries_are_lines_below_the_header_in_the_order_they_came(keeper: Keeper, path: Path) -> None:
    with keeper.open(path) as ledger:
        assert keeper.append(ledger) == (0, 0)
        assert path.read_bytes() == keeper.header
        assert keeper.append(ledger, "b", 'a,"1"', "ü") == (3, 0)
    assert path.read_bytes() == keeper.content("b", 'a,"1"', "ü")


def test_an_id_is_written_once_in_a_list_in_a_run_and_after_a_restart(keeper: Keeper, path: Path) -> None:
    with keeper.open(path) as ledger:
        assert keeper.append(ledger, "a", "b", "a") == (2, 1)
        assert keeper.append(ledger, "b", "c") == (1, 1)
    assert keeper.write(path, "a", "b", "c", "d") == (1, 3)
    assert path.read_bytes() == keeper.content("a", "b", "c", "d")


def test_it_is_on_disk_before_anyone_is_told(keeper: Keeper, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with keeper.open(path) as ledger:
        keeper.append(ledger)
        synced: list[bytes] = []
        monkeypatch.setattr(os, "fsync", lambda fd: synced.append(path.read_bytes()))
        keeper.append(ledger, "a", "b")
        assert synced == [path.read_bytes()] == [keeper.content("a", "b")]
        keeper.append(ledger, "a")
        assert len(synced) == 1, "a duplicate needs no sync"


def test_what_a_killed_process_may_not_have_synced_is_synced_before_it_counts(
    keeper: Keeper, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.parent.mkdir()
    path.write_bytes(keeper.content("a"))
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    assert keeper.write(path, "a") == (0, 1)
    assert len(synced) == 1


def test_lists_of_many_threads_share_syncs(keeper: Keeper, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs = []
    first_is_syncing, all_are_waiting = threading.Event(), threading.Event()
    real = os.fsync

    def slow(fd: int) -> None:
        syncs.append(fd)
        first_is_syncing.set()
        assert all_are_waiting.wait(10)
        real(fd)

    with keeper.open(path) as ledger:
        keeper.append(ledger)
        monkeypatch.setattr(os, "fsync", slow)
        results: dict[int, tuple[int, int]] = {}

        def post(number: int) -> None:
            results[number] = keeper.append(ledger, f"own-{number}", "shared")

        threads = [threading.Thread(target=post, args=(number,)) for number in range(8)]
        threads[0].start()
        assert first_is_syncing.wait(10)
        for thread in threads[1:]:
            thread.start()
        eventually(lambda: len(ledger._waiting) == 7, interval=0.001)
        all_are_waiting.set()
        for thread in threads:
            thread.join(10)
        monkeypatch.undo()
    assert len(syncs) == 2
    assert sum(written for written, _ in results.values()) == 9
    assert sum(duplicates for _, duplicates in results.values()) == 7
    assert sorted(keeper.ids(path)) == sorted(["shared", *(f"own-{number}" for number in range(8))])


# -- the last line


@pytest.mark.slow
def test_wherever_it_is_torn_the_next_start_repairs_it_and_the_same_list_completes_it(
    keeper: Keeper, path: Path
) -> None:
    ids = ("a", 'b,"ü"')
    whole = keeper.content(*ids)
    path.parent.mkdir()
    for size in [*range(0, len(keeper.header), 5), *range(len(keeper.content("a")) - 3, len(whole))]:
        path.write_bytes(whole[:size])
        keeper.open(path).close()
        repaired = path.read_bytes()
        assert repaired == keeper.header + b"".join(keeper.lines(id_) for id_ in keeper.ids(path))
        assert repaired.startswith(whole[: whole.rfind(b"\n", 0, size) + 1])
        assert len(repaired) <= max(size + len(keeper.form.line_end), len(keeper.header))
        keeper.write(path, *ids)
        assert path.read_bytes() == whole


@pytest.mark.slow
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    keeper=st.sampled_from(list(KEEPERS.values())),
    ids=st.lists(st.text('ab",; ü\u2028', min_size=1, max_size=6), unique=True, max_size=12),
    tail=st.binary(max_size=200),
)
def test_no_bytes_at_its_end_stop_it_from_starting_or_lose_a_line(
    tmp_path: Path, keeper: Keeper, ids: list[str], tail: bytes
) -> None:
    path = tmp_path / "torn"
    for leftover in (path, index_of(path)):
        leftover.unlink(missing_ok=True)
    keeper.write(path, *ids)
    with path.open("ab") as file:
        file.write(tail)
    assert keeper.write(path, *ids, "new") == (1, len(ids))
    assert path.read_bytes().startswith(keeper.content(*ids))
    assert path.read_bytes().endswith(keeper.lines("new"))


def test_a_last_line_that_lacks_only_its_end_is_kept(keeper: Keeper, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(keeper.content("a", "b")[: -len(keeper.form.line_end)])
    assert keeper.write(path, "b", "c") == (1, 1)
    assert path.read_bytes() == keeper.content("a", "b", "c")


def test_a_torn_line_of_zeros_is_cut_off(keeper: Keeper, path: Path) -> None:
    keeper.write(path, "a")
    path.write_bytes(path.read_bytes() + bytes(5000))
    assert keeper.write(path, "b") == (1, 0)
    assert path.read_bytes() == keeper.content("a", "b")


@WITH_HEADER
def test_a_file_with_bare_line_feeds_keeps_them(keeper: Keeper, path: Path) -> None:
    keeper.write(path, "a")
    path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n"))
    assert keeper.write(path, "a", "b") == (1, 1)
    assert path.read_bytes() == keeper.content("a", "b").replace(b"\r\n", b"\n")


def test_lines_that_are_nobodys_are_left_as_they_are(keeper: Keeper, path: Path) -> None:
    keeper.write(path, "a")
    strange = b'a note\r\n\r\n"torn,1,2,3,4\r\n\xff\n[1]\n{"id": 5}\n' + b"[" * 5000 + b"\n"
    with path.open("ab") as file:
        file.write(strange)
    with keeper.open(path) as ledger:
        assert keeper.append(ledger, "a", "b") == (1, 1)
        if keeper is WRITER:
            assert [found["id"] for found in ledger.latest(10)] == ["b", "a"]
    assert path.read_bytes() == keeper.content("a") + strange + keeper.lines("b")


# -- files that cannot be used


@WITH_HEADER
@pytest.mark.parametrize(
    "content",
    [
        *(b"plate,time\r\n", b"name", b"id,vehicle_plate\r\n1,B1\r\n", b"\n"),
        *(b"\xef\xbb\xbf" + WRITER.header, WRITER.form.header + b",more\r\n"),
    ],
)
def test_a_foreign_file_is_refused_and_left_as_it_is(keeper: Keeper, path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    said = r"^CARPARK_FILE='.*': wanted a new file, or one whose first line is id,ve"
    with pytest.raises(InvalidSetting, match=said) as caught:
        keeper.open(path)
    assert ("byte order mark" in str(caught.value)) == content.startswith(b"\xef\xbb\xbf")
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_an_end_that_is_longer_than_any_line_is_refused_and_left_as_it_is(keeper: Keeper, path: Path) -> None:
    path.parent.mkdir()
    content = keeper.header + b"x" * (2 << 20)
    path.write_bytes(content)
    with pytest.raises(InvalidSetting, match="CARPARK_FILE"):
        keeper.open(path)
    assert path.read_bytes() == content


def test_a_folder_a_pipe_and_a_name_below_a_file_are_refused(keeper: Keeper, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    for wrong in (tmp_path, tmp_path / "pipe", tmp_path / "file" / "stays", tmp_path / ("x" * 300)):
        with pytest.raises(InvalidSetting, match=r"^CARPARK_FILE='.*': wanted a file") as caught:
            keeper.open(wrong)
        assert "\n" not in str(caught.value)


def test_a_file_without_permission_is_refused(keeper: Keeper, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **named: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(InvalidSetting, match="permission denied"):
        keeper.open(path)


def test_an_index_that_cannot_be_made_is_one_line(keeper: Keeper, path: Path) -> None:
    index_of(path).mkdir(parents=True)
    with pytest.raises(InvalidSetting, match=r"^CARPARK_FILE='.*and its index '.*' beside it \(is a directory\)$"):
        keeper.open(path)


# -- who holds it


def test_a_second_writer_is_refused_until_the_first_has_gone(path: Path) -> None:
    with WRITER.open(path), pytest.raises(FileInUse, match="CARPARK_FILE"):
        WRITER.open(path)
    assert WRITER.write(path, "a") == (1, 0)


def test_a_download_that_still_runs_does_not_hold_the_file(path: Path) -> None:
    ledger = WRITER.open(path)
    with ledger.snapshot():
        ledger.close()
        assert WRITER.write(path, "a") == (1, 0)


@SHARED
def test_a_lock_that_another_process_keeps_is_said_in_time(keeper: Keeper, path: Path) -> None:
    with Ledger(path, keeper.form, "CARPARK_FILE", shared=0.1) as ledger:
        keeper.append(ledger, "a")
        with path.open("rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            with pytest.raises(OSError, match="another process holds its lock"):
                keeper.append(ledger, "b")
        assert keeper.append(ledger, "b") == (1, 0)


def test_closing_twice_is_closing_once_and_nothing_is_written_after_it(keeper: Keeper, path: Path) -> None:
    ledger = keeper.open(path)
    keeper.append(ledger, "a")
    ledger.close()
    ledger.close()
    assert sorted(path.parent.iterdir()) == [path, index_of(path)]
    with pytest.raises(OSError, match="is closed"):
        keeper.append(ledger, "b")
    with pytest.raises(OSError, match="is closed"):
        ledger.ask(lambda index: index.totals())
    assert path.read_bytes() == keeper.content("a")


# -- killed


@contextmanager
def appending(keeper: Keeper, path: Path, failpoint: str = "") -> Iterator[subprocess.Popen[str]]:
    """Run a process that appends what it is told to, until it is killed."""
    command = [sys.executable, "-c", APPENDER, str(path), keeper.name]
    environ = os.environ | {VARIABLE: failpoint}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("failpoint", ["writer-received", "writer-written"])
@pytest.mark.parametrize("count", [1, 4])
def test_killed_at_each_failpoint_nothing_is_lost_and_nothing_is_twice(
    keeper: Keeper, path: Path, failpoint: str, count: int
) -> None:
    lists = [[f"{number}-{k}" for k in range(200)] for number in range(count)]
    with appending(keeper, path, f"{failpoint}:{count}") as process:
        answers, error = process.communicate("".join(as_line(*ids) for ids in lists), timeout=30)
    assert f"failpoint {failpoint}: killed" in error
    assert answers == "[200, 0]\n" * (count - 1)
    is_there = failpoint == "writer-written"
    assert keeper.ids(path) == [id_ for ids in lists[: count - 1 + is_there] for id_ in ids]
    with keeper.open(path) as ledger:
        assert keeper.append(ledger, *lists[-1]) == ((0, 200) if is_there else (200, 0))
        assert keeper.append(ledger, *lists[0]) == (0, 200)
    assert keeper.ids(path) == [id_ for ids in lists for id_ in ids]


@SHARED
def test_several_processes_append_to_one_file_while_one_is_killed_and_each_line_is_there_once(
    keeper: Keeper, path: Path
) -> None:
    batches = [as_line(*(f"{number}" for number in range(start, start + 8))) for start in range(0, 400, 8)]
    with appending(keeper, path) as one, appending(keeper, path) as other, appending(keeper, path) as third:
        feeds = [(one, batches), (other, batches[::-1]), (third, batches[25:] + batches[:25])]
        for process, feed in feeds:
            assert process.stdin is not None
            process.stdin.write("".join(feed))
            process.stdin.flush()
        assert third.stdout is not None
        for _ in range(10):
            assert third.stdout.readline().startswith("[")
        third.kill()
        for process in (one, other):
            answers, _ = process.communicate(timeout=60)
            assert answers.count("[") == 50
            assert process.returncode == 0
    assert sorted(keeper.ids(path), key=int) == [f"{number}" for number in range(400)]
    with keeper.open(path) as ledger:
        assert keeper.append(ledger, *(f"{number}" for number in range(401))) == (1, 400)
        assert ledger.ask(lambda index: index.is_complete())
