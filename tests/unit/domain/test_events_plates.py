"""`vehicle_plate`: one spelling for every plate, over all of Unicode."""

from __future__ import annotations

import sys
import time
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from carpark.domain.events import canonical_plate

EVERY_CODE_POINT = range(sys.maxunicode + 1)


def by_the_letter(text: str) -> str | None:
    """The contract's sentence, step by step; None where it refuses."""
    composed = unicodedata.normalize("NFC", text)
    kept = "".join(c for c in composed if unicodedata.category(c) not in ("Zs", "Pd"))
    plate = unicodedata.normalize("NFC", kept.upper())
    right = all(unicodedata.category(c).startswith("L") or unicodedata.category(c) == "Nd" for c in plate)
    return plate if right and 1 <= len(plate) <= 16 else None


def canonical_or_none(text: str) -> str | None:
    try:
        return canonical_plate(text)
    except ValueError:
        return None


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("ABC 1234", "ABC1234"),
        ("abc-1234", "ABC1234"),
        (" b\N{NO-BREAK SPACE}ab\N{EM DASH}1 ", "BAB1"),
        ("A\N{HYPHEN}B\N{NON-BREAKING HYPHEN}C\N{IDEOGRAPHIC SPACE}1", "ABC1"),
        ("Ä 1", "Ä1"),
        ("A\N{COMBINING DIAERESIS} 1", "Ä1"),
        ("a\N{COMBINING DIAERESIS}1", "Ä1"),
        ("A-\N{COMBINING DIAERESIS}1", "Ä1"),
        ("straße", "STRASSE"),
        ("ß" * 8, "S" * 16),
        ("\N{LATIN SMALL LIGATURE FFI}1", "FFI1"),
        ("i\N{COMBINING DOT ABOVE}", "\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}"),
        ("\N{LATIN CAPITAL LETTER D WITH SMALL LETTER Z WITH CARON}", "\N{LATIN CAPITAL LETTER DZ WITH CARON}"),
        ("粤B 12345", "粤B12345"),
        ("\N{ARABIC-INDIC DIGIT THREE}", "\N{ARABIC-INDIC DIGIT THREE}"),
        ("\N{FULLWIDTH LATIN SMALL LETTER A}", "\N{FULLWIDTH LATIN CAPITAL LETTER A}"),
        ("\N{FEMININE ORDINAL INDICATOR}", "\N{FEMININE ORDINAL INDICATOR}"),
        (" - " * 20_000 + "A1", "A1"),
        ("A" * 16, "A" * 16),
        ("\N{HANGUL CHOSEONG KIYEOK}\N{HANGUL JUNGSEONG A}\N{HANGUL JONGSEONG KIYEOK}" * 16, "각" * 16),
        ("\N{GREEK SMALL LETTER ALPHA}\N{COMBINING COMMA ABOVE}\N{COMBINING ACUTE ACCENT}" * 16, "Ἄ" * 16),
    ],
)
def test_a_plate_has_one_spelling(written: str, canonical: str) -> None:
    assert canonical_plate(written) == canonical
    assert by_the_letter(written) == canonical


@pytest.mark.parametrize(
    "written",
    [
        "", " ", "-", " - \N{EM DASH}",
        "A" * 17, "ß" * 9,
        "²", "½", "①", "Ⅷ",
        "A_1", "A.1", "A:1", "A\t1", "A\n", "A\0", "<script>",
        "A\N{ZERO WIDTH SPACE}1", "A\N{SOFT HYPHEN}1", "A\N{MINUS SIGN}1", "\N{BYTE ORDER MARK}A1",
        "Q\N{COMBINING ACUTE ACCENT}", "\N{COMBINING ACUTE ACCENT}A", "ΐ", "\U0001f697", "\ud800", "\ue000",
    ],
)  # fmt: skip
def test_what_is_no_plate_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r"^wanted .*letters and digits, got "):
        canonical_plate(written)
    assert by_the_letter(written) is None


@pytest.mark.slow
def test_every_character_of_unicode_is_read_to_the_letter_and_stays_as_it_is_when_read_again() -> None:
    taken = 0
    for number in EVERY_CODE_POINT:
        for text in (chr(number), "A" + chr(number)):
            plate = canonical_or_none(text)
            assert plate == by_the_letter(text), hex(number)
            if plate is not None:
                taken += 1
                assert canonical_or_none(plate) == plate, hex(number)
    assert taken > 200_000


MARKS = [chr(number) for number in EVERY_CODE_POINT if unicodedata.combining(chr(number))]
CASED = [chr(number) for number in EVERY_CODE_POINT if chr(number).upper() != chr(number)]
SEPARATORS = [chr(number) for number in EVERY_CODE_POINT if unicodedata.category(chr(number)) in ("Zs", "Pd")]


def test_spaces_and_dashes_of_every_script_are_left_out() -> None:
    assert len(SEPARATORS) > 35
    assert canonical_plate("".join(f"{separator}A" for separator in SEPARATORS[:16])) == "A" * 16
    assert {canonical_plate(f"A{separator}1{separator}") for separator in SEPARATORS} == {"A1"}


@settings(deadline=None, max_examples=500)
@given(
    st.lists(
        st.one_of(
            st.characters(), st.sampled_from(CASED), st.sampled_from(MARKS), st.sampled_from(SEPARATORS),
            st.sampled_from("AbÄßǰΐ1²"),
        ),
        max_size=24,
    ).map("".join)
)  # fmt: skip
@example("a-\N{COMBINING DIAERESIS}")
@example("\N{GREEK SMALL LETTER ALPHA}\N{COMBINING GREEK YPOGEGRAMMENI}")
@example("ᾳ\N{COMBINING ACUTE ACCENT}")
def test_any_text_is_read_to_the_letter_and_canonicalising_twice_changes_nothing(text: str) -> None:
    plate = canonical_or_none(text)
    assert plate == by_the_letter(text)
    if plate is not None:
        assert canonical_plate(plate) == plate
        assert canonical_plate(f" {plate[:1]}-{plate[1:]} ") == canonical_plate(f"{plate[:1]}{plate[1:]}")


@settings(deadline=None)
@given(st.text(st.one_of(st.sampled_from(MARKS), st.sampled_from("AÄ각ᄀ")), min_size=60, max_size=200))
@example("각" * 16 + "\N{COMBINING DIAERESIS}" * 49)
def test_the_early_way_out_for_long_text_refuses_nothing_that_is_a_plate(text: str) -> None:
    assert canonical_or_none(text) == by_the_letter(text)


def test_no_character_of_a_plate_stands_for_more_than_four() -> None:
    # What the early way out relies on: neither composing nor upper-casing makes fewer than a quarter of what was there.
    for number in EVERY_CODE_POINT:
        character = chr(number)
        parts = unicodedata.normalize("NFD", character)
        assert len(parts) <= 4
        assert len(unicodedata.normalize("NFD", character.upper())) >= len(parts)


def test_a_body_full_of_combining_marks_costs_no_time() -> None:
    # Sorting them into canonical order takes Python half a second and more, for every such body.
    for text in ("A" + "\u0300\u0316" * 10_000, "A" + "\u0300" * 10_000 + "\u0316" * 10_000):
        started = time.process_time()
        with pytest.raises(ValueError, match="wanted 1 to 16 letters and digits, got 'A"):
            canonical_plate(text)
        assert time.process_time() - started < 0.1
