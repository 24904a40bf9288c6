"""The index beside the file: never believed too much, made again when it does not fit, lost without harm."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from carpark.ledger import ledger as ledger_module
from carpark.ledger.index import Index
from tests.support.ledgers import CSV, JSONL, Keeper
from tests.support.summaries import index_of

IDS = [f"id-{number}" for number in range(2000)]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Tell which indexes were made again."""
    found: list[Path] = []
    real = Index.remove

    def remove(index: Index) -> None:
        found.append(index.path)
        real(index)

    monkeypatch.setattr(Index, "remove", remove)
    return found


def log_of(path: Path) -> Path:
    return path.with_name(f"{index_of(path).name}-wal")


def copy(path: Path, folder: Path, *, log: bool) -> Path:
    """Copy a file with its index as they are at this moment, which is what SIGKILL leaves, or a power cut."""
    folder.mkdir()
    for each in (path, index_of(path), *([log_of(path)] if log else [])):
        shutil.copy2(each, folder)
    return folder / path.name


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


def run_on_it(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(index_of(path))) as db, db:
        for statement in statements:
            db.execute(statement)


def make_another_kind(path: Path, before: bytes) -> None:
    index_of(path).unlink()
    run_on_it(path, "CREATE TABLE ids (something)")


def make_it_of_an_earlier_version(path: Path, before: bytes) -> None:
    run_on_it(path, "PRAGMA user_version = 1", "ALTER TABLE state ADD COLUMN clean INTEGER")


def lose_ids(path: Path, before: bytes) -> None:
    run_on_it(path, "DELETE FROM ids WHERE offset > 100")


def lose_its_state(path: Path, before: bytes) -> None:
    run_on_it(path, "DELETE FROM state")


def lose_a_table(path: Path, before: bytes) -> None:
    run_on_it(path, "DROP TABLE buckets")


@pytest.mark.parametrize(
    "harm",
    [
        *(damage_nothing, delete_it, fill_it_with_garbage, cut_it, empty_it, put_back_an_old_one, make_another_kind),
        *(make_it_of_an_earlier_version, lose_ids, lose_its_state, lose_a_table),
    ],
    ids=lambda harm: harm.__name__,
)
def test_it_is_made_again_or_caught_up(keeper: Keeper, path: Path, harm: Callable[[Path, bytes], None]) -> None:
    keeper.write(path, *IDS[:500])
    before = index_of(path).read_bytes()
    keeper.write(path, *IDS[500:])
    harm(path, before)
    with keeper.open(path) as ledger:
        assert keeper.append(ledger) == (0, 0)
        assert ledger.ask(Index.totals) == (2000, 2000 * 5400)
        assert sum(ledger.ask(lambda index: index.stays(3600, 0, 2**40)).values()) == 2000
        assert keeper.append(ledger, *IDS, "new") == (1, 2000)
    assert path.read_bytes() == keeper.content(*IDS, "new")


def test_it_never_claims_an_id_that_the_file_lacks(keeper: Keeper, path: Path) -> None:
    keeper.write(path, "a", "b", "c")
    path.write_bytes(keeper.content("a"))  # a backup was put back
    assert keeper.write(path, "a", "b", "c") == (2, 1)
    path.write_bytes(keeper.content("d", "a", "b"))  # or another file
    assert keeper.write(path, "a", "b", "c", "d") == (1, 3)
    assert path.read_bytes() == keeper.content("d", "a", "b", "c")


@pytest.mark.parametrize("is_open", [True, False])
def test_a_line_changed_in_the_middle_is_noticed_when_its_id_comes_or_at_the_start(
    keeper: Keeper, path: Path, is_open: bool
) -> None:
    with keeper.open(path) as ledger:
        keeper.append(ledger, "a", *IDS)
        if not is_open:
            ledger.close()
            ledger = keeper.open(path)
            ledger.close()
        stamp = path.stat()
        path.write_bytes(keeper.content("x", *IDS))
        if is_open:
            os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
            assert keeper.append(ledger, "a", "x", "id-5") == (1, 2)
        else:
            assert keeper.write(path, "x", "id-5") == (0, 2)
            assert keeper.write(path, "a") == (1, 0)
    assert path.read_bytes() == keeper.content("x", *IDS, "a")


def test_what_sigkill_or_a_power_cut_leaves_is_caught_up(
    keeper: Keeper, path: Path, tmp_path: Path, made: list[Path]
) -> None:
    """After a power cut the write-ahead log is not on disk, or not all of it is."""
    keeper.write(path, *IDS[:300])
    with keeper.open(path) as ledger:
        for start in range(300, 2000, 100):
            keeper.append(ledger, *IDS[start : start + 100])
        log = log_of(path).read_bytes()
        for length in (0, 1, 32, 1000, len(log) // 2, len(log) - 1, len(log)):
            left = copy(path, tmp_path / f"left-{length}", log=False)
            log_of(left).write_bytes(log[:length])
            made.clear()
            assert keeper.write(left, *IDS, "new") == (1, 2000)
            assert made == []


def test_the_index_of_another_file_is_not_believed_with_its_log_or_with_that_of_the_file_itself(
    keeper: Keeper, path: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    keeper.write(other, *(f"other-{number}" for number in range(3000)))
    keeper.write(path, *IDS[:1000])
    with keeper.open(path) as ledger:
        keeper.append(ledger, *IDS[1000:])
        for number, (index, log) in enumerate([(other, False), (other, True)]):
            left = copy(path, tmp_path / f"left-{number}", log=log)
            shutil.copy2(index_of(index), index_of(left))
            assert keeper.write(left, *IDS, "other-5", "new") == (2, 2000)
            assert left.read_bytes() == keeper.content(*IDS, "other-5", "new")


def test_one_that_breaks_while_it_is_used_is_made_again(keeper: Keeper, path: Path, made: list[Path]) -> None:
    with keeper.open(path) as ledger:
        keeper.append(ledger, *IDS[:100])
        made.clear()
        ledger._index.close()
        assert keeper.append(ledger, "id-7", "new") == (1, 1)
        assert ledger.ask(Index.totals).rows == 101
        assert len(made) == 1
    assert path.read_bytes() == keeper.content(*IDS[:100], "new")


def test_one_that_is_deleted_while_it_is_used_is_not_missed(keeper: Keeper, path: Path) -> None:
    with keeper.open(path) as ledger:
        keeper.append(ledger, *IDS[:100])
        for each in path.parent.glob("*.sqlite*"):
            each.unlink()
        assert keeper.append(ledger, "id-7", "new") == (1, 1)
        if keeper.shared is not None:
            assert keeper.write(path, "id-8", "newer") == (1, 1)
        assert keeper.append(ledger, "id-7", "new", "newer", "newest") == ((1, 3) if keeper.shared else (2, 2))
    assert keeper.write(path, *IDS[:100], "new", "newer", "newest") == (0, 103)


def test_after_a_failed_write_it_is_not_made_again(
    keeper: Keeper, path: Path, monkeypatch: pytest.MonkeyPatch, made: list[Path]
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with keeper.open(path) as ledger:
        keeper.append(ledger, *IDS)
        made.clear()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            with pytest.raises(OSError, match="No space"):
                keeper.append(ledger, "a")
        os.utime(path)  # as cutting it off does, a tick later
        assert keeper.append(ledger, "a", "id-5") == (1, 1)
        assert made == []


def full(*_: object) -> None:
    raise sqlite3.OperationalError("database or disk is full")


def test_one_that_cannot_be_written_is_stood_in_for_by_memory(
    keeper: Keeper, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with keeper.open(path) as ledger:
        keeper.append(ledger, "0")
        with monkeypatch.context() as patch:
            patch.setattr(Index, "add", full)
            assert keeper.append(ledger, "a") == (1, 0)
            assert keeper.append(ledger, "0", "a", "b") == (1, 2)
            assert keeper.append(ledger, "b", "a") == (0, 2)
        assert keeper.append(ledger, "a", "b") == (0, 2)
        assert ledger.ask(Index.totals).rows == 3
    assert path.read_bytes() == keeper.content("0", "a", "b")


def test_memory_stands_in_for_it_only_so_far(keeper: Keeper, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "_MOST_UNINDEXED", 3)
    with keeper.open(path) as ledger:
        keeper.append(ledger, "0")
        with monkeypatch.context() as patch:
            patch.setattr(Index, "add", full)
            assert keeper.append(ledger, *"abc") == (3, 0)
            with pytest.raises(OSError, match="disk is full"):
                keeper.append(ledger, "d")
        assert keeper.append(ledger, *"abcd") == (1, 3)
    assert path.read_bytes() == keeper.content("0", *"abcd")


@pytest.mark.parametrize("keeper", [CSV, JSONL], ids=["csv", "jsonl"])
def test_memory_stands_in_for_all_lines_or_none(keeper: Keeper, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that are no summaries count, too: behind them none may be missed."""
    monkeypatch.setattr(ledger_module, "_MOST_UNINDEXED", 4)
    with keeper.open(path) as ledger:
        keeper.append(ledger, "0")
        with path.open("ab") as file:
            file.write(b"note\nnote\nnote\n" + keeper.lines("a", "b"))
        with monkeypatch.context() as patch:
            patch.setattr(Index, "add", full)
            with pytest.raises(OSError, match="disk is full"):
                keeper.append(ledger, "b")
        assert keeper.append(ledger, "a", "b") == (0, 2)


def test_what_waits_for_it_is_forgotten_with_the_file_that_it_was_in(
    keeper: Keeper, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with keeper.open(path) as ledger:
        keeper.append(ledger)
        with monkeypatch.context() as patch:
            patch.setattr(Index, "add", full)
            assert keeper.append(ledger, "a") == (1, 0)
            os.truncate(path, 0)
            assert keeper.append(ledger, "a") == (1, 0)
            assert keeper.append(ledger, "a") == (0, 1)
        assert keeper.append(ledger, "a") == (0, 1)
    assert path.read_bytes() == keeper.content("a")
