"""The journal is written ahead, goes on where it stopped, and says what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carpark.domain.events import VehicleEntered, VehicleExited
from carpark.errors import FileInUse, InvalidSetting, ServiceError
from generators.journal import Journal
from tests.support.generating import entered, exited, numbered

TIME = "2026-11-23T12:00:00.000000Z"
EVENTS = [entered(plate, TIME, f"id-{plate}") for plate in numbered(6)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "journal.jsonl"


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def opened(path: Path, written: int = 0, confirmed: int = 0) -> Journal:
    journal = Journal(path, VehicleEntered)
    if written:
        journal.append(EVENTS[:written])
    if confirmed:
        journal.confirm(confirmed)
    return journal


def test_an_event_is_on_file_before_it_is_confirmed_and_bare(path: Path) -> None:
    journal = opened(path, 1)
    assert lines(path) == [{"confirmed": 0}, EVENTS[0].to_dict()]
    journal.confirm(1)
    assert lines(path) == [{"confirmed": 0}, EVENTS[0].to_dict(), {"confirmed": 1}]
    journal.close()


def test_confirmed_counts_from_the_top_over_all_runs(path: Path) -> None:
    opened(path, 2, 2).close()
    journal = opened(path)
    journal.append(EVENTS[2:4])
    journal.confirm(2)
    journal.close()
    assert [line["confirmed"] for line in lines(path) if "confirmed" in line] == [0, 2, 4]


def test_what_is_not_confirmed_is_the_tail(path: Path) -> None:
    opened(path, 5, 2).close()
    journal = opened(path)
    assert (journal.count, journal.confirmed) == (5, 2)
    assert journal.tail() == EVENTS[2:5]
    journal.confirm(2)
    assert journal.tail() == EVENTS[4:5]
    journal.close()


def test_the_plates_of_all_runs_are_remembered(path: Path) -> None:
    journal = opened(path, 4, 2)
    assert list(journal.plates()) == numbered(4)
    journal.close()


@given(cut=st.integers(0, 200))
def test_a_torn_last_line_is_removed_and_nothing_else(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("torn") / "journal.jsonl"
    opened(path, 3, 2).close()
    whole = path.read_bytes()
    path.write_bytes(whole[: max(0, len(whole) - cut)])
    kept = path.read_bytes().count(b"\n")
    opened(path).close()
    assert path.read_bytes() == b"".join(whole.splitlines(keepends=True)[:kept])


def test_a_torn_line_that_is_longer_than_a_block_is_removed(path: Path) -> None:
    opened(path, 2, 2).close()
    whole = path.read_bytes()
    path.write_bytes(whole + b"x" * 10_000)
    opened(path).close()
    assert path.read_bytes() == whole


@pytest.mark.parametrize("torn", [b"{", b'{"conf', b'{"confirmed": 0}'])
def test_a_torn_first_line_is_written_anew(path: Path, torn: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(torn)
    journal = opened(path, 1)
    assert lines(path) == [{"confirmed": 0}, EVENTS[0].to_dict()]
    journal.close()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"id": "a", "vehicle_plate": "B1"}', "line 1 has no end"),
        (EVENTS[0].to_json().encode(), "line 1 has no end"),
        (b'{"confirmed": 1}', "line 1 has no end"),
        (b"one\ntwo\nthree", "line 1 is not an entry event"),
        (b"\x7fELF\x00\xff" * 2000, "line 1 has no end"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "line 1 is not an entry event"),
        (EVENTS[0].to_json().encode() + b"\n7\ntorn", "line 2 is not an object"),
        (
            EVENTS[0].to_json().encode() + b"\n" + exited("A", TIME).to_json().encode() + b"\nx",
            "line 2 is not an entry",
        ),
    ],
)
def test_a_file_that_is_no_journal_is_refused_and_left_as_it_is(path: Path, content: bytes, reason: str) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(InvalidSetting, match=reason):
        opened(path)
    assert path.read_bytes() == content


def test_a_journal_has_one_writer(path: Path) -> None:
    journal = opened(path)
    with pytest.raises(FileInUse, match="--journal="):
        opened(path)
    journal.close()
    opened(path).close()


def test_the_other_cameras_journal_is_refused(path: Path) -> None:
    opened(path, 2, 1).close()
    with pytest.raises(
        InvalidSetting, match=r"wanted a journal of the exit generator, or a new file; line 2 is not an exit"
    ):
        Journal(path, VehicleExited)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("not JSON", "line 3 is not an entry event"),
        ("[]", "line 3 is not an object"),
        ("{}", "line 3 is not an entry event"),
        ('{"confirmed": 9}', "line 3 says that 9 of 1 events are confirmed"),
        ('{"confirmed": true}', "line 3 is not an entry event"),
        (exited("A", TIME).to_json(), "line 3 is not an entry event"),
    ],
)
def test_a_line_that_is_wrong_is_named(path: Path, line: str, reason: str) -> None:
    opened(path, 1).close()
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InvalidSetting, match=reason):
        opened(path)


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="--journal="):
        Journal(tmp_path, VehicleEntered)


def test_a_full_disk_is_an_error_before_anything_is_sent() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    journal = Journal.__new__(Journal)
    journal.path, journal.count, journal._file = full, 0, full.open("wb")
    with pytest.raises(ServiceError, match="cannot be written: no space left"):
        journal.append(EVENTS[:1])
    journal.close()


def test_the_latest_time_is_known_however_often_the_clock_was_set_back(path: Path) -> None:
    journal = Journal(path, VehicleEntered)
    assert journal.last is None
    times = [f"2026-11-23T{hour}:00:00.000000Z" for hour in (12, 14, 13)]
    journal.append([entered("AB12", time) for time in times])
    journal.close()
    journal = Journal(path, VehicleEntered)
    assert journal.last == times[1]
    journal.close()
