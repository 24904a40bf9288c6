"""The event objects and the summary: what is taken, what is kept, what is refused and how."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carpark.domain.events import (
    EVENT_OF_QUEUE,
    StaySummary,
    VehicleEntered,
    VehicleExited,
    kind_of,
    load_json,
)
from carpark.errors import InvalidEvent, InvalidSummary, MessageError

ENTRY = {"id": "e1", "vehicle_plate": "AB 1", "entry_date_time": "2026-11-23T18:00:00Z"}
EXIT = {"id": "x1", "vehicle_plate": "AB 1", "exit_date_time": "2026-11-23T19:30:00Z"}
SUMMARY = {**EXIT, "entry_date_time": ENTRY["entry_date_time"], "duration": 5400}

FIELDS_OF_CLASSES = sorted(
    {"self", "model_config", "time", "kind", "queue", "time_field", "cls", "fields", "_x", "", "__class__", "__dict__"}
    | set(dir(VehicleEntered))
    | set(dir(VehicleEntered.parse(ENTRY))) - VehicleEntered.model_fields.keys()
)


@pytest.mark.parametrize(("model", "fields"), [(VehicleEntered, ENTRY), (VehicleExited, EXIT)])
def test_an_event_is_its_fields_in_canonical_form(model: type[VehicleEntered], fields: dict[str, str]) -> None:
    event = model.parse(fields)
    canonical = fields[model.time_field].replace("Z", ".000000Z")
    assert event.to_dict() == {"id": fields["id"], "vehicle_plate": "AB1", model.time_field: canonical}
    assert event.time == canonical
    assert json.loads(event.to_json()) == event.to_dict()
    assert model.parse(event.to_dict()) == event


def test_the_queue_decides_what_a_message_is() -> None:
    assert {"vehicle_entry": VehicleEntered, "vehicle_exit": VehicleExited} == EVENT_OF_QUEUE
    both = {**ENTRY, **EXIT}
    assert EVENT_OF_QUEUE["vehicle_entry"].parse(both).time == "2026-11-23T18:00:00.000000Z"
    assert EVENT_OF_QUEUE["vehicle_exit"].parse(both).time == "2026-11-23T19:30:00.000000Z"
    with pytest.raises(InvalidEvent, match=r"^exit_date_time: is missing$"):
        EVENT_OF_QUEUE["vehicle_exit"].parse(ENTRY)


def test_further_fields_are_kept_as_they_came_after_the_events_own() -> None:
    further = {"zone": {"b": [1, 2.5, None, True, "ä\u2028\0"], "a": {}}, "exit_date_time": "not read", "big": 10**400}
    event = VehicleEntered.parse({**further, **ENTRY})
    assert list(event.to_dict()) == ["id", "vehicle_plate", "entry_date_time", *further]
    assert json.loads(event.to_json()) == {**event.to_dict(), **further}
    assert len(event.to_json().splitlines()) == 2  # of the line separator in the text; JSON has it unescaped
    assert "\n" not in event.to_json()


@pytest.mark.parametrize("name", FIELDS_OF_CLASSES)
def test_a_further_field_of_any_name_is_kept_and_changes_nothing(name: str) -> None:
    for value in ("x", {"id": "another"}, None):
        event = VehicleEntered.parse({**ENTRY, name: value})
        assert event.to_dict() == {**VehicleEntered.parse(ENTRY).to_dict(), name: value}
        assert (event.kind, event.queue, event.id, event.vehicle_plate) == ("entry", "vehicle_entry", "e1", "AB1")
        assert event.time == "2026-11-23T18:00:00.000000Z"
        assert VehicleEntered.parse(json.loads(event.to_json())) == event
        assert type(event) is VehicleEntered
        assert "VehicleEntered(id='e1'" in repr(event)


def test_an_event_cannot_be_changed() -> None:
    event = VehicleEntered.parse(ENTRY)
    with pytest.raises(ValueError, match="frozen"):
        event.id = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    "id_",
    [
        "x",
        " ",
        "x" * 128,
        "🚗" * 128,
        "\u2028",
        "a:b/c%\"'<>",
        "\N{NO-BREAK SPACE}",
        "+1",
        "-",
        "-a/B_1.é-९",
        "1+1",
        "a=1",
        "a@b",
    ],
)
def test_an_id_is_any_text_of_1_to_128_characters(id_: str) -> None:
    event = VehicleEntered.parse({**ENTRY, "id": id_})
    assert event.id == id_
    assert json.loads(event.to_json())["id"] == id_


CONTROLS = [chr(number) for number in (*range(0x20), *range(0x7F, 0xA0))]


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("id", "", "wanted 1 to 128 characters, got 0"),
        ("id", "x" * 129, "wanted 1 to 128 characters, got 129"),
        ("id", "🚗" * 129, "wanted 1 to 128 characters, got 129"),
        *(("id", f"a{control}b", "wanted no control characters") for control in CONTROLS),
        ("id", "\ud800", "has a lone surrogate, which is not text"),
        ("id", 1, "wanted text, got a number"),
        ("id", 1.5, "wanted text, got a number"),
        ("id", True, "wanted text, got a truth value"),
        ("id", None, "wanted text, got null"),
        ("id", ["e1"], "wanted text, got a list"),
        ("id", {"id": "e1"}, "wanted text, got an object"),
        ("vehicle_plate", 1234, "wanted text, got a number"),
        ("vehicle_plate", None, "wanted text, got null"),
        *(
            ("id", text, f"wanted nothing that a spreadsheet would run, got {text!r}")
            for text in ("=1", "=", "@", "@x", "+1+1", "-1 2", "+(1)", "-cmd|' /C calc'!A0", "+é\u0301", "-²", "-a:b")
        ),
        ("vehicle_plate", "", "wanted 1 to 24 letters and digits, got ''"),
        ("vehicle_plate", "A\nB", "wanted letters and digits, got '\\n' (Unicode category Cc)"),
        ("vehicle_plate", "AB\u2180", "wanted letters and digits, got '\\u2180' (Unicode category Nl)"),
        ("vehicle_plate", "\u0301", "wanted letters and digits, got marks alone: '\\u0301'"),
        ("vehicle_plate", "A\ud800", "wanted letters and digits, got '\\ud800' (Unicode category Cs)"),
        ("entry_date_time", 1700000000, "wanted text, got a number"),
        ("entry_date_time", 1.5, "wanted text, got a number"),
        ("entry_date_time", ["2026-11-23T18:00:00Z"], "wanted text, got a list"),
        (
            "entry_date_time",
            "2026-11-23T18:00:00Z\n",
            "wanted an RFC 3339 date-time such as 2026-11-23T18:00:00.123456Z, got '2026-11-23T18:00:00Z\\n'",
        ),
        ("entry_date_time", "2026-02-30T18:00:00Z", "2026-02-30 is not a day of the calendar"),
        ("entry_date_time", "9999-12-31T23:59:59-01:00", "wanted a UTC year from 0001 to 9999"),
        ("zone", math.nan, "has a number that is too large, or is none"),
        ("zone", [{"deep": -math.inf}], "has a number that is too large, or is none"),
        ("zone", "\udfff", "has a lone surrogate, which is not text"),
        ("zone", {"\ud800": 1}, "has a lone surrogate, which is not text"),
    ],
)
def test_a_wrong_field_is_named_with_what_was_wanted(field: str, value: Any, reason: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        VehicleEntered.parse({"first": 1, **ENTRY, field: value, "last": 2})
    assert (caught.value.field, caught.value.reason) == (field, reason)
    assert str(caught.value) == f"{field}: {reason}"


@pytest.mark.parametrize("field", ENTRY)
def test_a_missing_field_is_named(field: str) -> None:
    with pytest.raises(InvalidEvent, match=f"^{field}: is missing$"):
        VehicleEntered.parse({name: value for name, value in ENTRY.items() if name != field})


@pytest.mark.parametrize(
    ("value", "kind"),
    [(None, "null"), ([], "a list"), (["id"], "a list"), ("id", "text"), (7, "a number"), (False, "a truth value")],
)
def test_what_is_not_an_object_is_no_event(value: object, kind: str) -> None:
    assert kind_of(value) == kind
    with pytest.raises(InvalidEvent, match=f"^body: wanted an object, got {kind}$"):
        VehicleEntered.parse(value)
    with pytest.raises(InvalidSummary, match=f"^body: wanted an object, got {kind}$"):
        StaySummary.parse(value)


def test_a_field_name_that_is_not_text_is_refused() -> None:
    with pytest.raises(InvalidEvent, match=r"^body: has a lone surrogate, which is not text$"):
        VehicleEntered.parse({**ENTRY, "\ud800": 1})


def test_a_number_that_overflows_is_refused_and_its_field_named() -> None:
    body = json.dumps(ENTRY)[:-1] + ', "speed": [1e999]}'
    with pytest.raises(InvalidEvent, match=r"^speed: has a number that is too large, or is none$"):
        VehicleEntered.parse(load_json(body.encode()))


@pytest.mark.parametrize("name", ["\n", "a b", "x" * 5000, "\u202e", "ä", "\x1b[31m", "🚗" * 5000])
def test_an_odd_name_of_a_wrong_field_is_quoted_and_shortened(name: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        VehicleEntered.parse({**ENTRY, name: math.inf})
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters()), inner, max_size=4),
    max_leaves=12,
)
ODD = st.sampled_from(
    ["\ud800", "\0\r\n", "x" * 70_000, 10**4000, -(10**400), math.inf, "\u0301" * 70_000, "A\u2028B", "\x1b]0;"]
)


@pytest.mark.slow
@settings(deadline=None, max_examples=400)
@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys((*SUMMARY, "zone", "self"), JSON | ODD | st.sampled_from([*SUMMARY.values()])),
    )
    | JSON
)
def test_an_error_is_one_short_printable_line_that_names_a_field(value: Any) -> None:
    for model in (VehicleEntered, VehicleExited, StaySummary):
        try:
            model.parse(value)
        except MessageError as error:
            line = str(error)
            assert line.isprintable()
            assert len(line) < 200
            line.encode()
            field = line.partition(": ")[0]
            assert field in ("body", "self", "zone", *SUMMARY)


ALNUM = "ABCXYZ0123789"
EVENTS = st.fixed_dictionaries(
    {
        "id": st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=127).map("x{}".format),
        "vehicle_plate": st.text(ALNUM + ALNUM.lower() + " -ÄßÉ", min_size=1, max_size=8).filter(str.strip),
        "entry_date_time": st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
    }
)
FINITE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(EVENTS, st.dictionaries(st.text(), FINITE, max_size=4))
def test_parsing_what_was_written_gives_the_same_event(fields: dict[str, str], further: dict[str, Any]) -> None:
    try:
        event = VehicleEntered.parse({**further, **fields})
    except InvalidEvent as error:
        assert (error.field, fields["vehicle_plate"].strip(" -")) == ("vehicle_plate", "")  # noqa: PT017
        return
    assert VehicleEntered.parse(event.to_dict()) == event
    again = VehicleEntered.parse(load_json(event.to_json().encode()))
    assert again == event
    assert again.to_json() == event.to_json()


def test_a_summary_is_five_fields_and_nothing_else() -> None:
    summary = StaySummary.parse({**SUMMARY, "zone": "\ud800"})
    assert summary.to_dict() == {
        "id": "x1",
        "vehicle_plate": "AB1",
        "entry_date_time": "2026-11-23T18:00:00.000000Z",
        "exit_date_time": "2026-11-23T19:30:00.000000Z",
        "duration": 5400.0,
    }
    assert StaySummary.parse(summary.to_dict()) == summary
    made = StaySummary.of_stay("x1", "AB1", summary.entry_date_time, summary.exit_date_time)
    assert made == summary
    assert made.to_dict() == summary.to_dict()


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("id", "\ud800", "has a lone surrogate, which is not text"),
        ("vehicle_plate", "\ud800", "wanted letters and digits, got '\\ud800' (Unicode category Cs)"),
        ("duration", "5400", "wanted a number, got text"),
        ("duration", True, "wanted a number, got a truth value"),
        ("duration", None, "wanted a number, got null"),
        ("duration", math.nan, "wanted a number, got one that is too large"),
        ("duration", math.inf, "wanted a number, got one that is too large"),
        ("duration", 10**400, "wanted a number, got one that is too large"),
        ("duration", -1, "wanted a number from 0, got -1"),
        ("duration", -1e-9, "wanted a number from 0, got -1e-09"),
        ("duration", -(10**300), "wanted a number from 0, got -1e+300"),
        ("duration", 0.1234567, "wanted at most 6 decimals, got 0.1234567"),
        ("exit_date_time", "2026-11-23T17:59:59Z", "is before entry_date_time"),
    ],
)
def test_a_wrong_summary_is_refused_and_the_field_named(field: str, value: Any, reason: str) -> None:
    with pytest.raises(InvalidSummary) as caught:
        StaySummary.parse({**SUMMARY, field: value})
    assert (caught.value.field, caught.value.reason) == (field, reason)


def test_a_stay_of_no_time_has_a_duration_without_a_sign() -> None:
    summary = StaySummary.parse({**SUMMARY, "exit_date_time": SUMMARY["entry_date_time"], "duration": -0.0})
    assert math.copysign(1, summary.duration) == 1


@settings(deadline=None)
@given(st.datetimes(), st.datetimes(), st.text("AB1", min_size=1, max_size=16))
def test_every_summary_of_ours_is_one_that_we_take(one: Any, other: Any, plate: str) -> None:
    entry, exit_ = (f"{moment.isoformat(timespec='microseconds')}Z" for moment in sorted((one, other)))
    summary = StaySummary.of_stay("x", plate, entry, exit_)
    assert StaySummary.parse(json.loads(json.dumps(summary.to_dict()))) == summary
