"""A summary as a line of the CSV, and back."""

from __future__ import annotations

import csv
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carpark.domain.events import StaySummary
from tests.support.summaries import stay, summary
from writer.rows import HEADER, is_whole, line_of, parse_line, parse_row, parse_summary

IDS = st.text(min_size=1, max_size=128).filter(
    lambda text: all(unicodedata.category(character) not in ("Cc", "Cs") for character in text)
)


@given(IDS)
def test_any_id_comes_back_as_it_went_in(id_: str) -> None:
    line = summary(id_)
    for line_end in (b"", b"\r\n", b"\n"):
        assert parse_summary(line.text + line_end) == stay(id_).to_dict()
        assert parse_row(line.text + line_end) == line.row
    assert next(csv.reader([line.text.decode()], strict=True))[0] == id_


@given(IDS)
def test_a_line_is_one_line(id_: str) -> None:
    assert not {*b"\r\n"} & {*summary(id_).text}


def test_only_what_must_be_quoted_is_quoted() -> None:
    assert summary("a b=1").text.startswith(b"a b=1,B123,2026-11-23T10:30:00.000000Z,")
    assert summary('a,"b"').text.startswith(b'"a,""b""",B123,')


@pytest.mark.parametrize(("minutes", "text"), [(90, b"5400"), (0, b"0"), (1 / 240, b"0.25"), (1e-6 / 60, b"0.000001")])
def test_a_duration_is_written_without_exponent_and_without_trailing_zeros(minutes: float, text: bytes) -> None:
    assert summary("x", minutes=minutes).text.rsplit(b",", 1)[1] == text


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\r\n",
        b"a,b,c,d",
        b"a,b,c,d,1,2",
        b",B1,2026-11-23T10:30:00.000000Z,2026-11-23T10:30:00.000000Z,0",
        b'"a,B1,2026-11-23T10:30:00.000000Z,2026-11-23T10:30:00.000000Z,0',
        b'"a"b,B1,2026-11-23T10:30:00.000000Z,2026-11-23T10:30:00.000000Z,0',
        b"\xff,B1,2026-11-23T10:30:00.000000Z,2026-11-23T10:30:00.000000Z,0",
        b"\0" * 100,
    ],
)
def test_what_is_no_line_of_ours_is_none(line: bytes) -> None:
    assert parse_line(line) is None
    assert parse_row(line) is None
    assert parse_summary(line) is None


def test_a_line_that_a_person_has_edited_still_counts_for_its_id() -> None:
    row = parse_row(b"a,B1,yesterday,today,long")
    assert row is not None
    assert (row.id, row.exit_second, row.duration) == ("a", None, 0.0)
    assert parse_summary(b"a,B1,yesterday,today,long") is None


def test_every_torn_line_is_told_from_a_whole_one() -> None:
    whole = summary('a,"b"', minutes=90.5051).text
    assert is_whole(whole)
    assert is_whole(whole + b"\r")
    assert not [cut for cut in range(len(whole)) if is_whole(whole[:cut])]


def test_a_line_whose_duration_is_not_the_time_between_counts_as_torn() -> None:
    odd = StaySummary.parse({**stay("a").to_dict(), "duration": 5400.5})
    assert not is_whole(line_of(odd).text)


def test_digests_have_one_length_and_tell_ids_apart() -> None:
    digests = {summary(f"{number}").row.digest for number in range(1000)}
    assert len(digests) == 1000
    assert {len(digest) for digest in digests} == {16}


def test_the_header_is_the_contracts() -> None:
    assert HEADER == b"id,vehicle_plate,entry_date_time,exit_date_time,duration"
