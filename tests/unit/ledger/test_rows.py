"""A summary as a line, and back: both formats."""

from __future__ import annotations

import csv
import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carpark.domain.events import StaySummary
from carpark.ledger import COLUMNS, CSV_LINES, JSON_LINES, LineFormat
from tests.support.summaries import stay

FORMS = pytest.mark.parametrize("form", [CSV_LINES, JSON_LINES], ids=["csv", "jsonl"])
IDS = st.text(min_size=1, max_size=128).filter(
    lambda text: all(unicodedata.category(character) not in ("Cc", "Cs") for character in text)
)
TIME = "2026-11-23T10:30:00.000000Z"


@FORMS
@given(id_=IDS, minutes=st.integers(0, 10**12).map(lambda micros: micros / 6e7))
def test_any_summary_comes_back_as_it_went_in(form: LineFormat, id_: str, minutes: float) -> None:
    summary = stay(id_, "ÄÖ1", minutes=minutes)
    line = form.line(summary)
    assert not {*b"\r\n"} & {*line.text}, "a line is one line"
    for line_end in (b"", b"\r\n", b"\n"):
        assert form.summary(line.text + line_end) == summary.to_dict()
        assert form.parse(line.text + line_end) == line
        assert form.is_whole(line.text + line_end)


@given(IDS)
def test_every_program_reads_the_lines(id_: str) -> None:
    assert next(csv.reader([CSV_LINES.write(stay(id_)).decode()], strict=True))[0] == id_
    assert json.loads(JSON_LINES.write(stay(id_))) == stay(id_).to_dict()


def test_the_lines_are_the_contracts() -> None:
    assert CSV_LINES.header == b"id,vehicle_plate,entry_date_time,exit_date_time,duration"
    plain = f"B123,{TIME},2026-11-23T12:00:00.000000Z,5400".encode()
    assert CSV_LINES.write(stay("a b=1")) == b"a b=1," + plain, "only what must be quoted is quoted"
    assert CSV_LINES.write(stay('a,"b"')) == b'"a,""b""",' + plain
    assert JSON_LINES.write(stay("Zoë\u2028")).startswith('{"id":"Zoë\u2028","vehicle_plate":"B123","entry'.encode())


@pytest.mark.parametrize(("minutes", "text"), [(90, b"5400"), (0, b"0"), (1 / 240, b"0.25"), (1e-6 / 60, b"0.000001")])
def test_a_duration_is_written_without_exponent_and_without_trailing_zeros(minutes: float, text: bytes) -> None:
    assert CSV_LINES.write(stay("x", minutes=minutes)).rsplit(b",", 1)[1] == text


@pytest.mark.parametrize(
    ("form", "line"),
    [
        *((form, line) for form in (CSV_LINES, JSON_LINES) for line in (b"", b"\r\n", b"\0" * 100, b"[" * 5000)),
        (CSV_LINES, b"a,b,c,d"),
        (CSV_LINES, b"a,b,c,d,1,2"),
        (CSV_LINES, f",B1,{TIME},{TIME},0".encode()),
        (CSV_LINES, f'"a,B1,{TIME},{TIME},0'.encode()),
        (CSV_LINES, f'"a"b,B1,{TIME},{TIME},0'.encode()),
        (CSV_LINES, b"\xff" + f",B1,{TIME},{TIME},0".encode()),
        (JSON_LINES, b"[1]"),
        (JSON_LINES, b'{"id": "a"}'),
        (JSON_LINES, JSON_LINES.write(stay("a")).replace(b'"a"', b"5")),
        (JSON_LINES, JSON_LINES.write(stay("a")).replace(b'"a"', b'""')),
    ],
)
def test_what_is_no_line_of_ours_is_none(form: LineFormat, line: bytes) -> None:
    assert form.fields(line) is None
    assert form.parse(line) is None
    assert form.summary(line) is None
    assert not form.is_whole(line)


@FORMS
@pytest.mark.parametrize("changes", [{"duration": "long"}, {"exit_date_time": "today"}, {"duration": "-1"}])
def test_a_line_that_a_person_has_edited_still_counts_for_its_id(form: LineFormat, changes: dict[str, str]) -> None:
    edited = {**stay("a").to_dict(), **changes}
    text = json.dumps(edited).encode() if form is JSON_LINES else ",".join(map(str, edited.values())).encode()
    line = form.parse(text)
    assert line is not None
    assert (line.id, line.duration) == ("a", 0.0)
    assert (form.summary(text) is None) == ("duration" in changes)
    assert not form.is_whole(text)


@FORMS
def test_every_torn_line_is_told_from_a_whole_one(form: LineFormat) -> None:
    whole = form.write(stay('a,"b"', minutes=90.5051))
    assert not [cut for cut in range(len(whole)) if form.is_whole(whole[:cut])]


@FORMS
def test_a_line_whose_duration_is_not_the_time_between_counts_as_torn(form: LineFormat) -> None:
    assert not form.is_whole(form.write(StaySummary.parse({**stay("a").to_dict(), "duration": 5400.5})))


def test_digests_have_one_length_and_tell_ids_apart() -> None:
    digests = {CSV_LINES.line(stay(f"{number}")).digest for number in range(1000)}
    assert len(digests) == 1000
    assert {len(digest) for digest in digests} == {16}


# -- the audit's reading


def whole(form: LineFormat, *lines: bytes, end: bytes | None = None) -> bytes:
    end = form.line_end if end is None else end
    return b"".join(line + end for line in ([form.header] if form.header else []) + list(lines))


def rows(form: LineFormat, path: Path, content: bytes) -> list[list[str] | str]:
    path.write_bytes(content)
    found: Iterator[list[str] | str] = form.read(path)
    return list(found)


@FORMS
def test_the_audit_reads_every_line_and_names_what_is_no_row(form: LineFormat, tmp_path: Path) -> None:
    one, two = form.write(stay("a")), form.write(stay('b,"2"'))
    strange = [b'garbage "\r in between\xff,', b"", b"[1]"]
    content = whole(form, one, *strange, two)
    found = rows(form, tmp_path / "file", content)
    assert [row if isinstance(row, str) else row[0] for row in found] == [
        *("a", 'garbage "\r in between\ufffd,', "", "[1]", 'b,"2"'),
    ]
    assert found[0] == [str(value) for value in form.fields(one) or ()]
    for cut in range(1, len(two)):
        torn = content[: -len(form.line_end) - cut]
        assert rows(form, tmp_path / "file", torn) == found[:-1], "a torn last line was not acknowledged"
    assert rows(form, tmp_path / "file", content[: -len(form.line_end)]) == found, "it lacks only its end"


def test_the_audit_takes_what_a_spreadsheet_saved_and_nothing_that_is_not_a_file_of_summaries(tmp_path: Path) -> None:
    row = CSV_LINES.write(stay("a"))
    saved = b"\xef\xbb\xbf" + whole(CSV_LINES, b",".join(b'"%b"' % cell for cell in row.split(b",")), end=b"\n")
    assert rows(CSV_LINES, tmp_path / "file", saved) == [row.decode().split(",")]
    for begun in (b"", CSV_LINES.header[:9], CSV_LINES.header):
        assert rows(CSV_LINES, tmp_path / "file", begun) == []
    for other in (b"a,b\n", b"id,vehicle_plate\r\n", JSON_LINES.write(stay("a"))):
        with pytest.raises(ValueError, match=f"wanted the header {','.join(COLUMNS)}"):
            rows(CSV_LINES, tmp_path / "file", other)
