"""The plate generators keep the rules of their countries."""

from __future__ import annotations

import random
import re
from collections import Counter
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carpark.domain.events import canonical_plate
from carpark.errors import InvalidSetting
from carpark.plugins import PlateGenerator, PluginContext, Plugins
from carpark.plugins.plates.file import FilePlates, parse_plates
from carpark.plugins.plates.patterns import SingaporePlates, UkPlates, age_identifiers
from carpark.settings import load_settings
from carpark.testing import make_context

PLUGINS = Plugins()
COUNTRIES = ["alphanumeric", "uk", "singapore", "germany", "california"]
PUBLISHED_IN_SINGAPORE = [
    *("GBA1511G", "SGA4137A", "SGF2306R", "SGM6322E", "SJK6655U", "SHA9587P", "SHB1703T", "SJF5759L", "XD3634X"),
    *("SBS9683X", "PA9707R", "EA4254T", "GY55C", "E75H", "E115B", "EL1A"),
]


def make(name: str, seed: int = 1, at: datetime = datetime(2026, 11, 23, tzinfo=UTC)) -> PlateGenerator:
    context = PluginContext(load_settings({"CARPARK_PLATES": name}), {}, lambda: at)
    return PLUGINS.make_plates(context, random.Random(seed))


@pytest.mark.parametrize("name", COUNTRIES)
@given(seed=st.integers())
def test_everything_generated_validates(name: str, seed: int) -> None:
    plates = make(name, seed)
    for _ in range(20):
        plate = plates.sample()
        assert plates.is_valid(plate)
        assert plates.is_valid(canonical_plate(plate))


@pytest.mark.parametrize("name", COUNTRIES)
@given(text=st.text(max_size=20))
def test_no_text_makes_a_validator_raise(name: str, text: str) -> None:
    assert make(name).is_valid(text) in (True, False)


@pytest.mark.parametrize(
    ("name", "valid", "invalid"),
    [
        ("alphanumeric", ["QBF 0427", "qbf-0427", "AAA0000"], ["QB 0427", "QBF 427", "QBF 04270", "ÄBF 0427"]),
        ("uk", ["LB07 XYZ", "lb07xyz", "AB51 ABC"], ["IB07XYZ", "QB07XYZ", "LZ07XYZ", "LB07XIZ", "LB07XYQ", "LB7XYZ"]),
        (
            "california",
            ["8BSG447", "1ABC000", "9AIC123", "9AOC123", "9AQC123", "9ZZZ999"],
            ["0BSG447", "8ISG447", "8OSG447", "8QSG447", "8BSI447", "8BSO447", "8BSQ447", "8BS447", "8BSG4470"],
        ),
    ],
)
def test_plates_by_hand(name: str, valid: list[str], invalid: list[str]) -> None:
    plates = make(name)
    assert [plate for plate in valid if not plates.is_valid(plate)] == []
    assert [plate for plate in invalid if plates.is_valid(plate)] == []


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("alphanumeric", r"[A-Z]{3} [0-9]{4}"),
        ("uk", r"[A-HJ-PR-Y]{2}[0-9]{2} [A-HJ-PR-Z]{3}"),
        ("singapore", r"[A-Z]{1,3} [1-9][0-9]{0,3} [A-EGHJ-MPR-UX-Z]"),
        ("germany", r"[A-ZÄÖÜ]{1,3}-[A-Z]{1,2} [1-9][0-9]{0,3}"),
        ("california", r"[1-9][A-HJ-NPR-Z][A-Z][A-HJ-NPR-Z][0-9]{3}"),
    ],
)
def test_a_sample_is_written_as_on_the_plate_and_every_character_occurs(name: str, form: str) -> None:
    plates = make(name)
    samples = [plates.sample() for _ in range(5000)]
    assert [plate for plate in samples if not re.fullmatch(form, plate)] == []
    rare = {character for character, times in Counter("".join(samples)).items() if times < 50}
    assert rare == set()
    wanted = set("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") - ({"I", "Q"} if name == "uk" else set())
    assert wanted <= set("".join(samples))


# Singapore


@pytest.mark.parametrize("plate", PUBLISHED_IN_SINGAPORE)
def test_a_published_singapore_plate_is_valid_and_every_single_digit_error_in_it_is_found(plate: str) -> None:
    plates = make("singapore")
    assert plates.is_valid(plate)
    wrong = [
        plate[:place] + digit + plate[place + 1 :]
        for place, right in enumerate(plate)
        if right.isdigit()
        for digit in "0123456789"
        if digit != right
    ]
    assert wrong
    assert [text for text in wrong if plates.is_valid(text)] == []


@given(prefix=st.from_regex(r"[A-Z]{1,3}", fullmatch=True), number=st.integers(1, 9999), data=st.data())
def test_any_singapore_plate_has_one_check_letter_and_no_single_digit_error(
    prefix: str, number: int, data: st.DataObject
) -> None:
    plates, digits = make("singapore"), str(number)
    check = SingaporePlates.check_letter(prefix, digits)
    valid = [letter for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if plates.is_valid(f"{prefix}{digits}{letter}")]
    assert valid == [check]
    place = data.draw(st.integers(0, len(digits) - 1))
    digit = data.draw(st.sampled_from([digit for digit in "0123456789" if digit != digits[place]]))
    assert not plates.is_valid(f"{prefix}{digits[:place]}{digit}{digits[place + 1 :]}{check}")


def test_a_singapore_plate_has_one_to_three_letters_and_one_to_four_digits() -> None:
    plates = make("singapore")
    for prefix, number in (("SBSA", "1"), ("SBS", ""), ("", "1"), ("ÄBS", "1")):
        assert [x for x in "AZYXUTSRPMLKJHGEDCB" if plates.is_valid(f"{prefix}{number}{x}")] == []
    assert [x for x in "AZYXUTSRPMLKJHGEDCB" if plates.is_valid(f"SBS12345{x}")] == []


# The United Kingdom


@pytest.mark.parametrize(
    ("day", "identifier"),
    [
        (date(2001, 9, 1), "51"),
        (date(2002, 2, 28), "51"),
        (date(2002, 3, 1), "02"),
        (date(2002, 8, 31), "02"),
        (date(2002, 9, 1), "52"),
        (date(2019, 1, 15), "68"),
        (date(2020, 2, 29), "69"),
        (date(2026, 11, 23), "76"),
        (date(2050, 9, 1), "00"),
    ],
)
def test_the_age_identifier_of_a_day(day: date, identifier: str) -> None:
    assert age_identifiers(day)[-1] == identifier


def test_the_age_identifiers_begin_in_september_2001() -> None:
    assert age_identifiers(date(2001, 8, 31)) == ()
    assert age_identifiers(date(2003, 3, 1)) == ("51", "02", "52", "03")


@given(moment=st.datetimes(datetime(2001, 9, 2), datetime(2060, 1, 1), timezones=st.just(UTC)), seed=st.integers())
def test_a_uk_plate_is_never_younger_than_the_clock(moment: datetime, seed: int) -> None:
    plates = make("uk", seed, moment)
    for _ in range(10):
        assert plates.sample()[2:4] in age_identifiers(moment.date())


def test_a_uk_plate_of_tomorrow_becomes_valid_with_the_day() -> None:
    today = datetime(2026, 8, 31, 23, 59, tzinfo=UTC)
    plates = UkPlates(PluginContext(load_settings({}), {}, lambda: today), random.Random(1))
    assert not plates.is_valid("LB76XYZ")
    assert "76" not in {plates.sample()[2:4] for _ in range(2000)}
    today = datetime(2026, 9, 1, tzinfo=UTC)
    assert plates.is_valid("LB76XYZ")
    assert "76" in {plates.sample()[2:4] for _ in range(2000)}


def test_numbers_that_were_never_an_age_are_refused() -> None:
    plates = make("uk")
    identifiers = {f"{number:02}" for number in range(100) if plates.is_valid(f"LB{number:02}XYZ")}
    assert identifiers == {f"{n:02}" for n in range(2, 27)} | {str(n) for n in range(51, 77)}


def test_a_clock_before_the_first_plate_is_an_error_that_says_so() -> None:
    with pytest.raises(InvalidSetting, match=r"CARPARK_PLATES='uk'.*2001-09-01"):
        make("uk", at=datetime(1999, 1, 1, tzinfo=UTC))


# Germany


@pytest.mark.parametrize(
    ("plate", "valid"),
    [
        ("B-AB 1", True),
        ("BA-B 1", True),
        ("BAB1", True),
        ("B\u2013AB\u00a01234", True),
        ("B·AB/1234", True),
        ("\uff22\uff0d\uff21\uff22\u3000\uff11", True),
        ("B\u200f-A\u200cB 1", True),
        ("B.A.B1", False),
        ("b ab 1", True),
        ("MÜ-N 42", True),
        ("MU\u0308-N 42", True),
        ("ÄÖÜ-AB 123", True),
        ("BAB-AB 123", True),
        ("BAB-AB 1234", False),
        ("BABAB1234", False),
        ("BAB-A 1234", True),
        ("B-AB 0", False),
        ("B-AB 01", False),
        ("B-AB 12345", False),
        ("BABA-B 1", False),
        ("B-ABC 1", False),
        ("BABABA1", False),
        ("B-AÜ 1", False),
        ("BAÜ1", False),
        ("B-1", False),
        ("B1", False),
        ("B-A-B1", False),
        ("B-SS 1", False),
        ("B-HJ12", False),
        ("B-S 1", True),
        ("BSS1", True),
        ("SS1", True),
        ("MÜSS1", True),
        ("B-AB 1E", False),
    ],
)
def test_a_german_plate_is_judged_by_its_parts_where_it_shows_them(plate: str, valid: bool) -> None:
    assert make("germany").is_valid(plate) is valid


def test_no_german_plate_has_one_of_the_letter_pairs_that_are_never_given_out() -> None:
    plates = make("germany")
    middles = {plates.sample().partition("-")[2].partition(" ")[0] for _ in range(20_000)}
    assert not middles & {"HJ", "KZ", "NS", "SA", "SD", "SS"}
    assert len([middle for middle in middles if len(middle) == 2]) == 26 * 26 - 6


# A list of one's own


def test_a_file_of_plates_has_comments_and_empty_lines() -> None:
    lines = ["# ours\n", "\n", "B-AB 1\n", "  qbf 0427  # the boss\n", "Ä1"]
    assert parse_plates(lines) == {"BAB1": "B-AB 1", "QBF0427": "qbf 0427", "Ä1": "Ä1"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("B-AB 1\nB-AB 2\nBA-B 1\n", "line 3, 'BA-B 1', is the plate of line 1 again"),
        ("B-AB 1\nB\tAB 2\n", "line 2, 'B\\tAB 2': wanted letters and digits"),
        ("1234567890123456789012345", "line 1, '1234567890123456789012345': wanted 1 to 24 letters and digits"),
        ("# nothing\n", "there is no plate in it"),
        ("", "there is no plate in it"),
    ],
)
def test_a_wrong_line_is_named_by_its_number(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "plates.txt"
    path.write_text(text)
    with pytest.raises(InvalidSetting) as caught:
        from_file(str(path))
    assert complaint in str(caught.value)
    assert (caught.value.name, caught.value.value) == ("CARPARK_PLATES_FILE", str(path))


def test_a_file_that_cannot_be_read_is_an_error_that_says_why(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes("Ä1\n".encode("latin-1"))
    for path, complaint in [
        ("", "because CARPARK_PLATES is file"),
        (str(tmp_path / "missing"), "No such file or directory"),
        (str(tmp_path), "Is a directory"),
        (str(tmp_path / "latin"), "it is not UTF-8"),
    ]:
        with pytest.raises(InvalidSetting, match=complaint):
            from_file(path)


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "plates.txt"
    path.write_bytes(b"\xef\xbb\xbfB-AB 1\r\nB-AB 2\r\n")
    assert from_file(str(path)).population == 2


@given(count=st.integers(1, 30), seed=st.integers())
def test_all_plates_of_a_file_come_before_any_comes_again(count: int, seed: int) -> None:
    given_plates = [f"B-AB {number}" for number in range(1, count + 1)]
    plates = FilePlates(parse_plates(given_plates), random.Random(seed))
    rounds = [[plates.sample() for _ in range(count)] for _ in range(3)]
    assert plates.population == count
    assert all(sorted(one) == sorted(given_plates) for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1 or count < 6


def from_file(path: str) -> PlateGenerator:
    environ = {"CARPARK_PLATES": "file", "CARPARK_PLATES_FILE": path}
    return PLUGINS.make_plates(make_context(environ), random.Random(1))
