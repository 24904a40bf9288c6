"""What a body means on its queue."""

from __future__ import annotations

import json
from typing import Any

import pytest
from dramatiq.message import Message
from hypothesis import given
from hypothesis import strategies as st

from carpark.broker.reading import DELIVER, OWN_HEADER, EventMessage, RejectedMessage, read_body
from carpark.events import MAX_NESTING, VehicleEntered, VehicleExited
from tests.garbage import EVENT, GARBAGE, ODD, bare, dramatiq_body

OWN = {OWN_HEADER: 1}


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


@pytest.mark.parametrize("body", [bare(further=1), dramatiq_body()], ids=["bare", "dramatiq"])
def test_a_retry_is_read_as_what_it_was(body: bytes) -> None:
    first = read_body("vehicle_entry", body)
    assert isinstance(first, EventMessage)
    retry = first.copy(options={"retries": 2, "traceback": "T", "requeue_timestamp": 5, "eta": 7})
    again = read_body("vehicle_entry.DQ", retry.encode(), OWN)
    assert isinstance(again, EventMessage)
    assert again.event == first.event
    assert again.sent_at == first.sent_at
    assert again.message_id == first.message_id
    assert again.options == {"retries": 2, "traceback": "T", "requeue_timestamp": 5, "eta": 7}
    assert again.queue_name == "vehicle_entry.DQ"


def test_a_retry_may_be_longer_than_an_event() -> None:
    first = read_body("vehicle_entry", bare(note="x" * 65_000))
    assert isinstance(first, EventMessage)
    retry = first.copy(options={"retries": 1, "traceback": "x" * 30_000})
    assert isinstance(read_body("vehicle_entry", retry.encode(), OWN), EventMessage)


def test_a_bare_event_that_is_nested_as_deep_as_it_may_be_can_be_retried() -> None:
    inner = MAX_NESTING - 1  # the event is an object itself
    first = read_body("vehicle_entry", bare(note="@").replace(b'"@"', b"[" * inner + b"]" * inner))
    assert isinstance(first, EventMessage)
    assert isinstance(read_body("vehicle_entry.DQ", first.encode(), OWN), EventMessage)
    deeper = first.encode().replace(b"[[", b"[[[[").replace(b"]]", b"]]]]")
    assert isinstance(read_body("vehicle_entry.DQ", deeper, OWN), RejectedMessage)


def _delivery(**changes: Any) -> bytes:
    fields = {"actor_name": DELIVER, "kwargs": {"sink": "http-csv", "keys": [], "summaries": []}, **changes}
    return dramatiq_body(**fields)


def test_a_retry_of_summaries_is_read_on_the_exit_queue_alone() -> None:
    assert read_body("vehicle_exit", _delivery(), OWN).actor_name == DELIVER
    assert isinstance(read_body("vehicle_entry", _delivery(), OWN), RejectedMessage)
    assert isinstance(read_body("vehicle_exit", _delivery()), RejectedMessage), "without our header"


@pytest.mark.parametrize(
    "options",
    [
        None,
        [],
        {"eta": float("inf")},
        {"eta": "soon"},
        {"eta": -1},
        {"eta": True},
        {"eta": 10**400},
        {"eta": 1e300},
        {"retries": "x"},
        {"retries": 1.5},
        {"retries": 10**400},
        {"traceback": 1},
    ],
)
def test_our_header_does_not_open_the_door_to_options_that_kill_a_worker(options: object) -> None:
    body = dramatiq_body(options=options)
    assert isinstance(read_body("vehicle_entry", body, OWN), RejectedMessage)


def test_options_that_this_backend_never_writes_are_dropped() -> None:
    message = read_body("vehicle_entry", dramatiq_body(options={"max_retries": "x", "on_failure": "nobody"}), OWN)
    assert isinstance(message, EventMessage)
    assert message.options == {}


@given(st.binary(max_size=200), st.sampled_from(["vehicle_entry", "vehicle_exit", "vehicle_exit.DQ"]), st.booleans())
def test_any_bytes_are_read_as_something(body: bytes, queue: str, own: bool) -> None:
    assert isinstance(read_body(queue, body, OWN if own else None), Message)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(json.loads(dramatiq_body()), JSON)), st.booleans())
def test_any_dramatiq_shape_is_read_as_something(changes: dict[str, Any], own: bool) -> None:
    message = read_body("vehicle_entry", dramatiq_body(**changes), OWN if own else None)
    assert message.actor_name == "vehicle_entry"
    assert isinstance(message, RejectedMessage) or message.args[0].id == EVENT["id"] or "kwargs" in changes
