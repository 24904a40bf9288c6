"""The JSON Schemas of the docs take what the code takes and sends."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carpark.domain.events import EVENT_OF_QUEUE, StaySummary, VehicleEntered, VehicleExited, format_time
from carpark.domain.schemas import MODELS, schema_of
from carpark.errors import MessageError
from tests.support.processes import ROOT

PARSED_BY: dict[str, Any] = {
    "vehicle_entry": VehicleEntered,
    "vehicle_exit": VehicleExited,
    "stay_summary": StaySummary,
}
EXAMPLES: dict[str, dict[str, Any]] = {
    "vehicle_entry": {"id": "e1", "vehicle_plate": "ab 1", "entry_date_time": "2026-11-23t18:00:00+01:00"},
    "vehicle_exit": {
        "id": "x1",
        "vehicle_plate": "Ä-1",
        "exit_date_time": "2026-11-23T18:00:00.123456789Z",
        "zone": [1],
    },
    "stay_summary": {
        "id": "x1",
        "vehicle_plate": "AB1",
        "entry_date_time": "2026-11-23T18:00:00.000000Z",
        "exit_date_time": "2026-11-23T19:30:00.000000Z",
        "duration": 5400,
    },
}


def validator_of(name: str) -> Any:
    schema = json.loads((ROOT / f"docs/reference/schemas/{name}.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())


def takes(name: str, value: object) -> bool:
    try:
        PARSED_BY[name].parse(value)
    except MessageError:
        return False
    return True


def test_there_is_a_schema_of_each_event_and_of_the_summary() -> None:
    assert list(MODELS) == [*EVENT_OF_QUEUE, "stay_summary"]
    assert {path.stem for path in (ROOT / "docs/reference/schemas").iterdir()} == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_a_schema_says_what_it_is_and_names_no_host(name: str) -> None:
    schema = schema_of(name)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:carpark:{name}"
    assert schema["required"] == list(schema["properties"]) == list(MODELS[name].model_fields)
    assert all(each["description"] for each in schema["properties"].values())


@pytest.mark.parametrize("name", MODELS)
def test_a_right_object_satisfies_its_schema(name: str) -> None:
    validator_of(name).validate(EXAMPLES[name])
    assert takes(name, EXAMPLES[name])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", ""), ("id", "x" * 129), ("id", 1), ("id", None), ("id", "a\nb"), ("id", "\x85"),
        ("id", "=1"), ("id", "="), ("id", "@SUM(1)"), ("id", "+1 2"), ("id", "-1(2)"), ("id", "-2+3"), ("id", "+a:b"),
        ("vehicle_plate", ""), ("vehicle_plate", 1), ("vehicle_plate", "A\t1"),
        ("vehicle_plate", "- _"), ("vehicle_plate", "<>"), ("vehicle_plate", "A\x7f1"), ("vehicle_plate", "\x9bA"),
        ("time", 1700000000), ("time", "1700000000"), ("time", "2026-11-23 18:00:00Z"), ("time", "2026-11-23T18:00:00"),
        ("time", "2026-11-23T18:00:60Z"), ("time", "2026-11-23T18:00:00+24:00"), ("time", "2026-13-23T18:00:00Z"),
        ("time", "2026-11-23T18:00:00.0123456789Z"),
        ("duration", -1), ("duration", "1"), ("duration", None), ("duration", True),
    ],
)  # fmt: skip
def test_a_wrong_object_does_not(name: str, field: str, value: object) -> None:
    fields = [each for each in MODELS[name].model_fields if each == field or each.endswith(f"_{field}")]
    if field == "duration" and name != "stay_summary":
        assert not fields
        return
    assert fields
    for each in fields:
        wrong = {**EXAMPLES[name], each: value}
        assert not validator_of(name).is_valid(wrong)
        assert not takes(name, wrong)


@pytest.mark.parametrize("name", MODELS)
def test_what_lacks_a_field_or_is_no_object_does_not_satisfy_it(name: str) -> None:
    validator = validator_of(name)
    for field in MODELS[name].model_fields:
        assert not validator.is_valid({key: value for key, value in EXAMPLES[name].items() if key != field})
    assert not any(validator.is_valid(value) for value in (None, [], 1, "x", [EXAMPLES[name]]))


def test_a_pattern_is_one_of_any_language() -> None:
    # Neither \p{...} nor look-around nor \u: what JavaScript, Go, Python and PCRE read in the same way.
    for name in MODELS:
        for field in schema_of(name)["properties"].values():
            pattern = field.get("pattern", "^$")
            re.compile(pattern)
            assert pattern.startswith("^")
            assert pattern.endswith("$")
            assert not re.search(r"\\[puPwdsb]|\(\?[^:]|[*+?]\+|\\Z", pattern)


PLATES = st.text(st.sampled_from("abzABZ019 -._:<\N{EM DASH}ÄäÉß粤बा१\u200f"), min_size=1, max_size=8)
TIMES = st.datetimes(timezones=st.just(UTC)).map(format_time)
CHARACTERS = st.characters(exclude_categories=["Cc", "Cs"])
IDS = st.text(CHARACTERS, min_size=1, max_size=128).filter(lambda text: text[0] not in "=@+-") | st.builds(
    "{}{}".format, st.sampled_from("+-"), st.text(st.characters(categories=["L", "Nd"], include_characters="._-/"))
).filter(lambda text: len(text) <= 128)
VALUES = st.one_of(
    IDS, PLATES, TIMES, st.text(), st.integers(), st.floats(allow_nan=False), st.none(), st.booleans(), st.lists(IDS)
)


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from([*MODELS]),
    st.fixed_dictionaries(
        {"id": IDS | st.builds("{}{}".format, st.sampled_from("=@+-"), IDS) | VALUES, "vehicle_plate": PLATES | VALUES},
        optional={
            "entry_date_time": TIMES | VALUES,
            "exit_date_time": TIMES | VALUES,
            "duration": st.integers(0, 10**9) | VALUES,
            "zone": VALUES,
        },
    ),
)
def test_whatever_the_code_takes_satisfies_the_schema(name: str, value: dict[str, Any]) -> None:
    if takes(name, value):
        validator_of(name).validate(value)


@settings(deadline=None)
@given(IDS, PLATES.map("A{}".format), TIMES, TIMES)
def test_whatever_the_code_sends_satisfies_the_schema(id_: str, plate: str, one: str, other: str) -> None:
    entry, exit_ = sorted((one, other))
    entered = VehicleEntered.parse({"id": id_, "vehicle_plate": plate, "entry_date_time": entry})
    exited = VehicleExited.parse({"id": id_, "vehicle_plate": plate, "exit_date_time": exit_})
    summary = StaySummary.of_stay(id_, entered.vehicle_plate, entry, exit_)
    for name, sent in (("vehicle_entry", entered), ("vehicle_exit", exited), ("stay_summary", summary)):
        validator_of(name).validate(json.loads(json.dumps(sent.to_dict())))


def test_the_time_of_now_as_our_generators_write_it_satisfies_the_schema() -> None:
    now = format_time(datetime.now(UTC))
    validator_of("vehicle_entry").validate({**EXAMPLES["vehicle_entry"], "entry_date_time": now})
    assert math.isfinite(StaySummary.of_stay("x", "A", now, now).duration)
