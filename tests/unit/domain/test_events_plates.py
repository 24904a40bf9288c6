"""`vehicle_plate`: one spelling for every plate, over all of Unicode."""

# ruff: noqa: RUF001 - plates of the world look like each other

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
    composed = unicodedata.normalize("NFKC", text)
    kept = "".join(c for c in composed if unicodedata.category(c)[0] not in "ZPS" and unicodedata.category(c) != "Cf")
    plate = unicodedata.normalize("NFKC", kept.upper())
    categories = [unicodedata.category(c) for c in plate]
    right = all(category[0] in "LM" or category == "Nd" for category in categories)
    return plate if right and 1 <= len(plate) <= 24 and any(category[0] != "M" for category in categories) else None


def canonical_or_none(text: str) -> str | None:
    try:
        return canonical_plate(text)
    except ValueError:
        return None


# Plates as they are on vehicles, and as cameras, clerks and keyboards write them: the same vehicle in each spelling.
OF_THE_WORLD = {
    "Argentina": ["AB 123 CD", "AB123CD", "ab·123·cd"],
    "Armenia": ["12 ՀՅ 345", "12ՀՅ345", "12-հյ-345"],
    "Austria": ["W-12345 A", "W 12345A"],
    "Bangladesh": ["ঢাকা মেট্রো-গ ১১-১২৩৪", "ঢাকা মেট্রো গ ১১১২৩৪", "ঢাকা মেট\N{BENGALI SIGN VIRAMA}রো-গ ১১-১২৩৪"],
    "Belarus": ["1234 AB-7", "1234AB7"],
    "Brazil": ["ABC-1D23", "abc1d23", "ABC•1D23"],
    "Bulgaria": ["СВ 1234 АК", "св1234ак"],
    "Cambodia": ["ភ្នំពេញ 2A-1234", "ភ្នំពេញ\u200b2A.1234"],
    "China": ["京A·12345", "京A12345", "京Ａ－１２３４５", "京a•12345", "京A\u00b712345"],
    "China, electric": ["粤B·D12345", "粤BD12345"],
    "Croatia": ["ZG 1234-AB", "ZG-1234-AB", "zg·1234·ab"],
    "Czechia": ["1A2 3456", "1A23456"],
    "Egypt": ["١٢٣٤ ن ب ج", "\u200f١٢٣٤\u200f ن ب ج\u200e", "١٢٣٤ | ن ب ج", "١٢٣٤نبج"],
    "France": ["AB-123-CD", "AB 123 CD", "AB–123–CD"],
    "Georgia": ["AB-123-CD", "ab123cd"],
    "Germany": ["MÜ-N 42E", "MU\u0308-N 42E", "mü·n 42e", "MÜ:N 42E"],
    "Greece": ["ΑΒΕ-1234", "αβε 1234"],
    "Hong Kong": ["AB 1234", "AB\u202f1234"],
    "India": ["DL/1C/AB/1234", "DL 1C AB 1234", "dl-1c-ab-1234", "DL.1C.AB.1234"],
    "Iran": ["۱۲ ب ۳۴۵ – ۶۷", "۱۲ب۳۴۵۶۷", "۱۲\u200cب\u200c۳۴۵-۶۷"],
    "Ireland": ["12-D-12345", "12 D 12345"],
    "Israel": ["12-345-67", "12·345·67", "1234567"],
    "Japan": ["品川 500 さ 12-34", "品川500さ1234", "品川５００さ・・１２－３４", "品川500 さ 12‐34"],
    "Kazakhstan": ["123 ABC 02", "123ABC|02"],
    "Korea": ["12가 3456", "12\u1100\u1161 3456", "１２가３４５６"],
    "Laos": ["ກຂ 1234", "ກຂ-1234"],
    "Myanmar": ["၁က/၁၂၃၄", "၁က-၁၂၃၄"],
    "Nepal": ["बा १ च १२३४", "बा-१-च-१२३४", "बा१च१२३४", "बा\u200d १ च १२३४"],
    "Netherlands": ["AB-12-CD", "AB12CD", "aB.12.Cd"],
    "Poland": ["WA 12345", "WA\N{NO-BREAK SPACE}12345"],
    "Portugal": ["AA·01·AA", "AA-01-AA", "AA 01 AA", "AA•01•AA", "AA∙01∙AA", "AA⋅01⋅AA"],
    "Russia": ["А123ВС 77", "а123вс77", "А123ВС|77"],
    "Serbia": ["BG 123-ČĆ", "BG 123-C\u030cC\u0301", "bg123čć"],
    "Singapore": ["SBA 1234 A", "SBA1234A"],
    "Spain": ["1234 BCD", "1234-BCD"],
    "Sri Lanka": ["ශ්\u200dරී 1234", "ශ්රී 1234", "ශ්රී-1234"],
    "Sri Lanka, provinces": ["WP CAB-1234", "WP CAB – 1234"],
    "Taiwan": ["ABC-1234", "ABC－1234"],
    "Tamil Nadu": ["த.நா 01 ஆ 1234", "த நா-01-ஆ-1234"],
    "Thailand": ["กข 1234 กรุงเทพมหานคร", "กข-1234 (กรุงเทพมหานคร)"],
    "Thailand, a long province": ["1กข 1234 พระนครศรีอยุธยา", "1กข1234พระนครศรีอยุธยา"],
    "Thailand, Kamphaeng Phet": ["กข 12 กำแพงเพชร", "กข 12 ก\u0e4d\u0e32แพงเพชร"],
    "Ukraine": ["АА 1234 ВВ", "аа1234вв", "АА-1234-ВВ"],
    "United Kingdom": ["LB07 XYZ", "lb07xyz", "(LB07) XYZ"],
    "United States": ["8BSG447", "8BSG-447", "8bsg 447", "8BSG*447", "8BSG★447"],
    "Vietnam": ["51F-123.45", "51F 12345", "51F12345", "51f–123·45"],
}


@pytest.mark.parametrize("country", OF_THE_WORLD)
def test_a_vehicle_has_one_plate_in_whatever_spelling(country: str) -> None:
    spellings = OF_THE_WORLD[country]
    plates = {canonical_or_none(each) for spelling in spellings for each in variants(spelling)}
    assert len(plates) == 1
    assert None not in plates


def variants(spelling: str) -> list[str]:
    """The same plate as other programs write it."""
    forms = [unicodedata.normalize(form, spelling) for form in ("NFC", "NFD", "NFKC", "NFKD")]
    wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in spelling)
    between = [mark.join(unicodedata.normalize("NFC", spelling)) for mark in ("\u200f", "\u200c", "\ufeff", "\u00ad")]
    return [
        spelling,
        *forms,
        *between,
        wide,
        spelling.lower(),
        spelling.upper(),
        f"[{spelling}]",
        f" {spelling}\u200e ",
    ]


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("ABC 1234", "ABC1234"),
        ("abc-1234", "ABC1234"),
        (" b\N{NO-BREAK SPACE}ab\N{EM DASH}1 ", "BAB1"),
        ("A\N{HYPHEN}B\N{NON-BREAKING HYPHEN}C\N{IDEOGRAPHIC SPACE}1", "ABC1"),
        ("A\N{LINE SEPARATOR}1\N{PARAGRAPH SEPARATOR}", "A1"),
        ("Ä 1", "Ä1"),
        ("A\N{COMBINING DIAERESIS} 1", "Ä1"),
        ("a\N{COMBINING DIAERESIS}1", "Ä1"),
        ("A-\N{COMBINING DIAERESIS}1", "Ä1"),
        ("straße", "STRASSE"),
        ("ß" * 12, "S" * 24),
        ("\N{LATIN SMALL LIGATURE FFI}1", "FFI1"),
        ("i\N{COMBINING DOT ABOVE}", "\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}"),
        ("\N{LATIN CAPITAL LETTER D WITH SMALL LETTER Z WITH CARON}", "DŽ"),
        ("粤B 12345", "粤B12345"),
        ("\N{ARABIC-INDIC DIGIT THREE}", "\N{ARABIC-INDIC DIGIT THREE}"),
        ("\N{FULLWIDTH LATIN SMALL LETTER A}", "A"),
        ("\N{FEMININE ORDINAL INDICATOR}", "A"),
        ("²½①Ⅷ㊤", "2121VIII上"),
        ("A_1", "A1"), ("A.1", "A1"), ("A:1", "A1"), ("<script>", "SCRIPT"), ("A\N{MINUS SIGN}1", "A1"),
        ("A\N{ZERO WIDTH SPACE}1", "A1"), ("A\N{SOFT HYPHEN}1", "A1"), ("\N{BYTE ORDER MARK}A1", "A1"),
        ("=A1", "A1"), ("\U0001f697 A1", "A1"),
        ("Q\N{COMBINING ACUTE ACCENT}", "Q\N{COMBINING ACUTE ACCENT}"),
        ("\N{COMBINING ACUTE ACCENT}A", "\N{COMBINING ACUTE ACCENT}A"),
        (" - " * 20_000 + "A1", "A1"),
        ("A" * 24, "A" * 24),
        ("\N{HANGUL CHOSEONG KIYEOK}\N{HANGUL JUNGSEONG A}\N{HANGUL JONGSEONG KIYEOK}" * 24, "각" * 24),
        ("\N{GREEK SMALL LETTER ALPHA}\N{COMBINING COMMA ABOVE}\N{COMBINING ACUTE ACCENT}" * 24, "Ἄ" * 24),
    ],
)  # fmt: skip
def test_a_plate_has_one_spelling(written: str, canonical: str) -> None:
    assert canonical_plate(written) == canonical
    assert by_the_letter(written) == canonical


@pytest.mark.parametrize(
    "written",
    [
        "", " ", "-", " - \N{EM DASH}", "?!", "★", "\U0001f697", "\u200f",
        "A" * 25, "ß" * 13, "\N{ARABIC LIGATURE SALLALLAHOU ALAYHE WASALLAM}" * 2,
        "\u2180", "\u16ee", "\u09f4",
        "A\t1", "A\n", "A\0", "A\x1f1", "A\x7f", "\x85A", "A\r\n1",
        "\N{COMBINING ACUTE ACCENT}", "\N{COMBINING ACUTE ACCENT} \N{DEVANAGARI VOWEL SIGN AA}", "´",
        "A\ud800", "\ud800", "\ue000", "A\uffff", "\U000e0080",
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
NO_LETTERS = [
    chr(number)
    for number in EVERY_CODE_POINT
    if unicodedata.category(chr(number))[0] in "ZPS" or unicodedata.category(chr(number)) == "Cf"
]
SEPARATORS = [c for c in NO_LETTERS if by_the_letter(f"A{c}") == by_the_letter(f"{c}A") == "A"]


def test_what_only_separates_or_cannot_be_seen_is_left_out() -> None:
    categories = {unicodedata.category(separator) for separator in SEPARATORS}
    assert categories == {"Zs", "Zl", "Zp", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So", "Cf"}
    assert {canonical_plate(f"A{separator}1{separator}") for separator in SEPARATORS} == {"A1"}


@settings(deadline=None, max_examples=500)
@given(
    st.lists(
        st.one_of(
            st.characters(), st.sampled_from(CASED), st.sampled_from(MARKS), st.sampled_from(SEPARATORS),
            st.sampled_from("AbÄßǰΐ1²Ⅷ½बाব্র가"),
        ),
        max_size=32,
    ).map("".join)
)  # fmt: skip
@example("a-\N{COMBINING DIAERESIS}")
@example("\N{GREEK SMALL LETTER ALPHA}\N{COMBINING GREEK YPOGEGRAMMENI}")
@example("ᾳ\N{COMBINING ACUTE ACCENT}")
@example("ᾳ-\N{COMBINING ACUTE ACCENT}")
@example("´" * 30)
def test_any_text_is_read_to_the_letter_and_canonicalising_twice_changes_nothing(text: str) -> None:
    plate = canonical_or_none(text)
    assert plate == by_the_letter(text)
    if plate is not None:
        assert canonical_plate(plate) == plate
        assert canonical_plate(f" {plate[:1]}-{plate[1:]} ") == canonical_plate(f"{plate[:1]}{plate[1:]}")


LETTERS = st.characters(categories=["L", "Nd"], exclude_characters="\N{LATIN CAPITAL LETTER SHARP S}")


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(["", *SEPARATORS]), LETTERS), min_size=1, max_size=12))
def test_a_plate_is_the_same_in_either_case_in_each_form_of_unicode_and_with_anything_between(
    parts: list[tuple[str, str]],
) -> None:
    # The capital sharp S is apart: its lower case is ß, whose upper case is SS.
    plate = canonical_or_none("".join(letter for _, letter in parts))
    spelled = "".join(map("".join, parts))
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        for case in (str.upper, str.lower, str):
            assert canonical_or_none(unicodedata.normalize(form, case(spelled))) == plate


@settings(deadline=None)
@given(st.text(st.one_of(st.sampled_from(MARKS), st.sampled_from("AÄ각ᄀ´-")), min_size=90, max_size=300))
@example("각" * 24 + "\N{COMBINING DIAERESIS}" * 73)
@example("\N{GREEK SMALL LETTER ALPHA}\N{COMBINING COMMA ABOVE}\N{COMBINING ACUTE ACCENT}" * 24)
def test_the_early_ways_out_for_long_text_refuse_nothing_that_is_a_plate(text: str) -> None:
    assert canonical_or_none(text) == by_the_letter(text)


def test_no_letter_or_mark_stands_for_more_than_four_and_none_for_nothing() -> None:
    # What the early ways out rely on: neither composing nor upper-casing makes fewer than a quarter of what was there.
    known = set(NO_LETTERS)
    for number in EVERY_CODE_POINT:
        character = chr(number)
        parts = unicodedata.normalize("NFD", character)
        assert len(parts) <= 4
        assert len(unicodedata.normalize("NFD", character.upper())) >= len(parts)
        assert character in known or not known.issuperset(unicodedata.normalize("NFKC", character))


def test_a_body_full_of_what_takes_long_to_sort_costs_no_time() -> None:
    # Sorting marks into canonical order takes Python half a second and more, for every such body. An accent that stands
    # alone is a symbol, and a mark once it is brought to NFKC.
    for text in (
        "A" + "\u0300\u0316" * 10_000,
        "A" + "\u0300" * 10_000 + "\u0316" * 10_000,
        "A" + "\u00b4\u00b8" * 16_000,
        "\ufdfa" * 21_000,
        "\u337f" * 21_000,
    ):
        started = time.process_time()
        with pytest.raises(ValueError, match="wanted 1 to 24 letters and digits, got '"):
            canonical_plate(text)
        assert time.process_time() - started < 0.3
