"""What a body means on its queue."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from dramatiq.message import Message
from hypothesis import given
from hypothesis import strategies as st

from carpark.broker.reading import EventMessage, RejectedMessage, read_body
from carpark.domain.events import StaySummary, VehicleEntered, VehicleExited
from carpark.domain.routing import DELIVER, WORK
from carpark.testing import make_summary
from tests.support.garbage import EVENT, GARBAGE, ODD, bare, dramatiq_body


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_rejected_with_one_line(name: str) -> None:
    message = read_body("vehicle_entry", GARBAGE[name])
    assert isinstance(message, RejectedMessage)
    assert message.error
    assert "\n" not in message.error
    assert message.actor_name == "vehicle_entry", "only the names of actors may become labels of metrics"


@pytest.mark.parametrize("name", ODD)
def test_what_only_looks_wrong_is_an_entry(name: str) -> None:
    message = read_body("vehicle_entry", ODD[name])
    assert isinstance(message, EventMessage)
    assert message.event.id.startswith("odd-")
    assert message.options == {}


def test_the_queue_decides_what_a_message_is() -> None:
    fields = {"id": "1", "vehicle_plate": "A", "entry_date_time": "2026-11-23T18:00:00Z"}
    fields["exit_date_time"] = "2026-11-23T19:00:00Z"
    body = json.dumps(fields).encode()
    on_entry, on_exit = read_body("vehicle_entry", body), read_body("vehicle_exit", body)
    assert isinstance(on_entry, EventMessage)
    assert isinstance(on_exit, EventMessage)
    assert isinstance(on_entry.event, VehicleEntered)
    assert isinstance(on_exit.event, VehicleExited)


def test_a_bare_event_has_no_time_of_sending() -> None:
    message = read_body("vehicle_entry", bare())
    assert isinstance(message, EventMessage)
    assert message.sent_at is None


def test_a_dramatiq_message_says_when_it_was_sent_and_who_it_is() -> None:
    message = read_body("vehicle_entry", dramatiq_body())
    assert isinstance(message, EventMessage)
    assert message.sent_at == 1_700_000_000
    assert message.message_id == "b26ed2b5-5f0b-4c7f-9a3e-3a1a0f9f1d11"


SUMMARY = make_summary("x-1", "B123").to_dict()


def _work(**changes: Any) -> bytes:
    fields = {"actor_name": DELIVER, "kwargs": {"sink": "http-csv", "summary": SUMMARY}, **changes}
    return dramatiq_body(**fields)


def test_a_summary_that_was_given_up_is_read_on_its_own_queue_alone() -> None:
    message = read_body(WORK, _work(message_id="http-csv/" + 128 * "x"))
    assert (message.actor_name, message.args) == (DELIVER, ("http-csv", StaySummary.parse(SUMMARY)))
    for queue in ("vehicle_entry", "vehicle_exit", "vehicle_exit.DQ"):
        assert isinstance(read_body(queue, _work()), RejectedMessage)
    assert isinstance(read_body(WORK, dramatiq_body()), RejectedMessage)
    assert isinstance(read_body(WORK, bare()), RejectedMessage)


@pytest.mark.parametrize(
    "kwargs",
    [
        None,
        [],
        {},
        {"sink": "http-csv"},
        {"sink": 1, "summary": SUMMARY},
        {"sink": "http-csv", "summary": SUMMARY, "self": 1},
        {"sink": "http-csv", "summary": {**SUMMARY, "duration": "long"}},
        {"sink": "http-csv", "summary": []},
        {"sink": "http-csv", "keys": [], "summaries": []},
    ],
)
def test_what_is_no_summary_is_rejected_there(kwargs: object) -> None:
    assert isinstance(read_body(WORK, _work(kwargs=kwargs)), RejectedMessage)


@pytest.mark.parametrize(
    "options",
    [None, [], {"eta": float("inf")}, {"eta": 253_370_764_800_000}, {"max_retries": "x", "on_failure": "nobody"}],
)
@pytest.mark.parametrize("queue", ["vehicle_entry", "vehicle_entry.DQ"])
def test_options_of_a_message_are_never_heeded(queue: str, options: object) -> None:
    message = read_body(queue, dramatiq_body(options=options).replace(b"Infinity", b"1e999"))
    assert isinstance(message, EventMessage)
    assert message.options == {}


@given(st.binary(max_size=200), st.sampled_from(["vehicle_entry", "vehicle_exit", "vehicle_exit.DQ", WORK]))
def test_any_bytes_are_read_as_something(body: bytes, queue: str) -> None:
    assert isinstance(read_body(queue, body), Message)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.slow
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(json.loads(dramatiq_body()), JSON)))
def test_any_dramatiq_shape_is_read_as_something(changes: dict[str, Any]) -> None:
    message = read_body("vehicle_entry", dramatiq_body(**changes))
    assert message.actor_name == "vehicle_entry"
    assert isinstance(message, RejectedMessage) or message.args[0].id == EVENT["id"] or "kwargs" in changes


FURTHER = {"zone": {"b": [1, 2.5, None, "\u00e4"]}, "big": 10**400, "kwargs": [], "id_": 1}


@pytest.mark.parametrize("make", [bare, lambda **fields: dramatiq_body(kwargs={**EVENT, **fields})])
@pytest.mark.parametrize("note", ["", "x" * 2_000])
def test_further_fields_are_the_same_whether_they_are_kept_or_read_again(make: Callable[..., bytes], note: str) -> None:
    message = read_body("vehicle_entry", make(**FURTHER, note=note))
    assert isinstance(message, EventMessage)
    wanted = VehicleEntered.parse({**EVENT, **FURTHER, "note": note})
    assert message.event.to_json() == wanted.to_json()
    assert message.event.to_dict() == wanted.to_dict()
    assert repr(message.event) == repr(wanted)
    assert str(message) == "vehicle_entry('g', 'G1')"


@pytest.mark.parametrize("piece", ["[]", "{}", '{"":{}}', "1e9", '"\U0001f697x"'])
def test_an_event_in_hand_takes_little_more_memory_than_its_body(piece: str) -> None:
    start = bare(note=0)[:-2]
    count = (65_000 - len(start)) // (len(piece.encode()) + 1)
    body = start + f"[{','.join([piece] * count)}]}}".encode()
    assert 60_000 < len(body) < 65_536
    read_body("vehicle_entry", body)
    tracemalloc.start()
    try:
        message = read_body("vehicle_entry", body)
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(message, EventMessage)
    assert kept < 30_000
    assert most < 10_000_000
