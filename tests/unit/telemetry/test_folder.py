"""The folder in which the numbers of a master's processes come together."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from carpark.errors import InvalidSetting
from carpark.telemetry import folder
from tests.support.processes import ROOT

ENTER = """
import sys
from carpark.telemetry.folder import enter
print(*enter(int(sys.argv[1])), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of folders, in a temporary folder of the test's own."""
    held: dict[Path, tuple[int, bool]] = {}
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(folder, "_held", held)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    yield folder._base()
    for lock, _ in held.values():
        os.close(lock)


@pytest.fixture
def others() -> Iterator[Callable[[int], tuple[subprocess.Popen[str], bool]]]:
    """Start processes that enter a master's folder; give each, and whether it was the first there."""
    started = []

    def start(master: int) -> tuple[subprocess.Popen[str], bool]:
        process = subprocess.Popen(
            [sys.executable, "-c", ENTER, str(master)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        started.append(process)
        assert process.stdout
        return process, process.stdout.readline().endswith(" True\n")

    yield start
    for process in started:
        process.communicate()


def test_the_first_process_in_a_folder_is_told_so_each_time_and_no_other_is(
    base: Path, others: Callable[[int], tuple[subprocess.Popen[str], bool]]
) -> None:
    assert folder.enter(7) == (base / "7", True)
    assert folder.enter(7) == (base / "7", True)
    assert others(7)[1] is False
    assert others(8)[1] is True


def test_what_dead_masters_left_goes_and_what_the_living_use_stays(
    base: Path, others: Callable[[int], tuple[subprocess.Popen[str], bool]]
) -> None:
    dead, _ = others(8)
    others(9)
    for master in (8, 9):
        (base / str(master) / "counter_1.db").touch()
    dead.kill()
    dead.wait()
    (base / "a file").touch()
    (base / "a link").symlink_to(base.parent)
    folder.enter(7)
    assert {path.name for path in base.iterdir()} == {"7", "9", "a file", "a link"}
    assert (base / "9" / "counter_1.db").exists()


def test_what_a_dead_master_of_the_same_id_left_is_emptied_once(
    base: Path, others: Callable[[int], tuple[subprocess.Popen[str], bool]]
) -> None:
    (base / "7").mkdir()
    (base / "7" / "counter_1.db").touch()
    assert others(7)[1] is True
    assert not (base / "7" / "counter_1.db").exists()
    (base / "7" / "counter_2.db").touch()
    assert folder.enter(7) == (base / "7", False)
    assert (base / "7" / "counter_2.db").exists()


def test_a_folder_that_another_master_removes_before_it_is_locked_is_made_again(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def slowly(path: Path) -> int | None:
        lock = opener(path)
        if not opened:
            opened.append(path)
            folder._remove_dead(path)  # as another master does that starts at this moment
            assert not path.exists()
        return lock

    opener = folder._open
    monkeypatch.setattr(folder, "_open", slowly)
    here, is_first = folder.enter(1)
    assert is_first
    assert list(here.iterdir()) == []


def test_a_folder_in_a_dead_masters_folder_goes_with_it(base: Path) -> None:
    (base / "7" / "odd").mkdir(parents=True)
    (base / "7" / "odd" / "file").touch()
    folder.enter(1)
    assert [path.name for path in base.iterdir()] == ["1"]


def test_a_folder_that_somebody_else_has_put_there_is_not_used(base: Path, tmp_path: Path) -> None:
    base.rmdir()
    (tmp_path / "elsewhere").mkdir()
    base.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidSetting, match="belongs to somebody else"):
        folder.enter(7)
