"""Times: RFC 3339 to the letter, stored as UTC with six digits; and durations."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carpark.domain.events import (
    TIME_LENGTH,
    canonical_time,
    duration_between,
    format_duration,
    format_time,
    parse_time,
)


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("2026-11-23T18:00:00Z", "2026-11-23T18:00:00.000000Z"),
        ("2026-11-23t18:00:00z", "2026-11-23T18:00:00.000000Z"),
        ("2026-11-23T18:00:00.1z", "2026-11-23T18:00:00.100000Z"),
        ("2026-11-23T18:00:00.123456Z", "2026-11-23T18:00:00.123456Z"),
        ("2026-11-23T18:00:00.123456999Z", "2026-11-23T18:00:00.123456Z"),
        ("2026-11-23T18:00:00.999999999Z", "2026-11-23T18:00:00.999999Z"),
        ("2026-11-23T18:00:00.000000001Z", "2026-11-23T18:00:00.000000Z"),
        ("2026-11-23T18:00:00+05:30", "2026-11-23T12:30:00.000000Z"),
        ("2026-11-23T18:00:00-05:30", "2026-11-23T23:30:00.000000Z"),
        ("2026-11-23T18:00:00+00:00", "2026-11-23T18:00:00.000000Z"),
        ("2026-11-23T18:00:00-00:00", "2026-11-23T18:00:00.000000Z"),
        ("2026-12-31T23:59:59.5-23:59", "2027-01-01T23:58:59.500000Z"),
        ("2026-01-01T00:00:00+23:59", "2025-12-31T00:01:00.000000Z"),
        ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00.000000Z"),
        ("2000-02-29T00:00:00Z", "2000-02-29T00:00:00.000000Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z"),
        ("9999-12-31T23:59:59.999999999Z", "9999-12-31T23:59:59.999999Z"),
        ("0000-12-31T23:59:59-00:01", "0001-01-01T00:00:59.000000Z"),
        ("0000-12-31T00:01:00-23:59", "0001-01-01T00:00:00.000000Z"),
        ("9999-12-31T23:59:59+00:01", "9999-12-31T23:58:59.000000Z"),
    ],
)
def test_a_date_time_is_brought_to_utc_with_six_digits(written: str, canonical: str) -> None:
    assert canonical_time(written) == canonical
    assert canonical_time(canonical) == canonical


@pytest.mark.parametrize(
    "written",
    [
        "", "now", "1700000000", "1700000000.5",
        "2026-11-23", "2026-11-23T18:00Z", "2026-11-23T18Z", "20261123T180000Z", "2026-W48-1T18:00:00Z",
        "2026-11-23 18:00:00Z", "2026-11-23_18:00:00Z", "2026-11-23T18:00:00", "2026-11-23T18:00:00 Z",
        "2026-11-23T18:00:00+0530", "2026-11-23T18:00:00+05", "2026-11-23T18:00:00+5:30",
        "2026-11-23T18:00:00+05:30:00", "2026-11-23T18:00:00.5+0530",
        "2026-11-23T18:00:00+24:00", "2026-11-23T18:00:00+05:60", "2026-11-23T18:00:00\N{MINUS SIGN}05:30",
        "2026-11-23T18:00:00ZZ", "2026-11-23T18:00:00Z+00:00", "2026-11-23T18:00:00 UTC", "2026-11-23T18:00:00[UTC]",
        "2026-11-23T18:00:60Z", "2016-12-31T23:59:60Z", "2026-11-23T18:60:00Z", "2026-11-23T24:00:00Z",
        "2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z", "2026-01-00T00:00:00Z", "2026-01-32T00:00:00Z",
        "2026-11-23T18:00:00.Z", "2026-11-23T18:00:00,5Z", "2026-11-23T18:00:00.1234567890Z",
        "2026-11-23T18:00:00Z\n", "\n2026-11-23T18:00:00Z", " 2026-11-23T18:00:00Z", "2026-11-23T18:00:00Z ",
        "2026-11-23T18:00:00Z\0", "2026-11-23T18:00:0\N{ARABIC-INDIC DIGIT THREE}Z",
        "\N{FULLWIDTH DIGIT TWO}026-11-23T18:00:00Z", "2026-11-23T18:00:00.\N{SUPERSCRIPT TWO}Z",
        "12026-11-23T18:00:00Z", "+2026-11-23T18:00:00Z", "-2026-11-23T18:00:00Z", "26-11-23T18:00:00Z",
        "2026-1-23T18:00:00Z", "2026-11-23T8:00:00Z", "2026-11-23T18:00:00\ud800",
    ],
)  # fmt: skip
def test_what_is_not_rfc_3339_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r"^wanted an RFC 3339 date-time such as 2026-11-23T18:00:00\.123456Z, got '"):
        canonical_time(written)


@pytest.mark.parametrize(
    "written",
    ["2026-02-29T00:00:00Z", "1900-02-29T00:00:00Z", "2026-04-31T00:00:00Z", "0000-02-30T00:00:00Z"],
)
def test_a_day_that_the_calendar_does_not_have_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=f"^{written[:10]} is not a day of the calendar$"):
        canonical_time(written)


@pytest.mark.parametrize(
    "written",
    [
        "0000-12-31T23:59:59Z", "0000-12-31T23:59:59.999999999+00:00", "0000-12-31T00:00:00-23:59",
        "0000-02-29T12:00:00Z", "0001-01-01T00:00:00+00:01", "0001-01-01T23:58:59+23:59",
        "9999-12-31T23:59:59-01:00", "9999-12-31T23:59:59-00:01", "9999-12-31T00:01:00-23:59",
    ],
)  # fmt: skip
def test_a_utc_year_outside_0001_to_9999_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r"^wanted a UTC year from 0001 to 9999$"):
        canonical_time(written)


WRITTEN = st.builds(
    "{:04}-{:02}-{:02}{}{:02}:{:02}:{:02}{}{}".format,
    st.integers(0, 9999),
    st.integers(1, 12),
    st.integers(1, 31),
    st.sampled_from("Tt"),
    st.integers(0, 23),
    st.integers(0, 59),
    st.integers(0, 59),
    st.one_of(st.just(""), st.text("0123456789", min_size=1, max_size=9).map(".{}".format)),
    st.one_of(
        st.sampled_from("Zz"),
        st.builds("{}{:02}:{:02}".format, st.sampled_from("+-"), st.integers(0, 23), st.integers(0, 59)),
    ),
)


@settings(deadline=None, max_examples=500)
@given(WRITTEN)
def test_whatever_has_the_form_is_read_as_datetime_reads_it_or_refused_for_its_day_or_year(written: str) -> None:
    try:
        canonical = canonical_time(written)
    except ValueError as error:
        assert "not a day of the calendar" in str(error) or "UTC year" in str(error)  # noqa: PT017
        with pytest.raises((ValueError, OverflowError)):
            datetime.fromisoformat(written.upper()).astimezone(UTC)
        return
    assert len(canonical) == TIME_LENGTH
    assert canonical_time(canonical) == canonical
    if not written.startswith("0000"):  # which datetime does not know
        assert parse_time(canonical) == datetime.fromisoformat(written.upper())


MOMENTS = st.datetimes(timezones=st.just(UTC))


@settings(deadline=None)
@given(MOMENTS, MOMENTS)
def test_the_order_of_text_is_the_order_of_time(one: datetime, other: datetime) -> None:
    assert (format_time(one) < format_time(other)) == (one < other)
    assert (format_time(one) == format_time(other)) == (one == other)


@settings(deadline=None)
@given(
    st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31)),
    st.integers(-23 * 60 - 59, 23 * 60 + 59),
)
def test_a_moment_is_written_in_canonical_form_whatever_its_zone(local: datetime, minutes: int) -> None:
    moment = local.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    text = format_time(moment)
    assert canonical_time(text) == text == canonical_time(moment.isoformat())
    assert parse_time(text) == moment
    assert parse_time(text).tzinfo is not None


@settings(deadline=None)
@given(MOMENTS, MOMENTS)
def test_a_duration_has_at_most_six_decimals_and_no_exponent(one: datetime, other: datetime) -> None:
    entry, exit_ = sorted((one, other))
    seconds = duration_between(format_time(entry), format_time(exit_))
    exact = Fraction((exit_ - entry) // timedelta(microseconds=1), 1_000_000)
    assert seconds == float(exact)
    text = format_duration(seconds)
    assert float(text) == seconds
    whole, _, decimals = text.partition(".")
    assert whole.isdecimal()
    assert not decimals or (len(decimals) <= 6 and not decimals.endswith("0"))
    assert len(json.dumps(seconds).partition("e")[0].partition(".")[2]) <= 6


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0"),
        (5400, "5400"),
        (5400.0, "5400"),
        (0.25, "0.25"),
        (1e-6, "0.000001"),
        (100, "100"),
        (1e16, "1" + 16 * "0"),
    ],
)
def test_a_duration_is_written_as_people_write_it(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
