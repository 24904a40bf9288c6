"""The index beside the CSV: never believed too much, made again when it does not fit."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.summaries import crash, ids_in, index_of, summary, write
from writer import index
from writer.csvfile import SummaryFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "summaries.csv"


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

    def remove(path: Path) -> None:
        rebuilt.append(path)
        real(path)

    monkeypatch.setattr(index, "remove", remove)
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
