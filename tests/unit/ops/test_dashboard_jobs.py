"""How a message is read for people: whatever it is, it can be shown, and its id is the same each time."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carpark.errors import InvalidBody
from carpark.ops.dashboard.base import matches, page_of
from carpark.ops.dashboard.jobs import CUT, SHOWN, Job, check_mended, read_job
from tests.support.garbage import GARBAGE, ODD, bare, dramatiq_body

DEAD = {"x-carpark-error": "id: is missing", "x-carpark-dead-at": "2026-11-23T18:00:00.000001Z"}


def job(body: bytes, headers: dict[str, Any] | None = None, queue: str = "vehicle_entry.XQ", **properties: Any) -> Job:
    return read_job(queue, body, len(body), headers or {}, properties)


@pytest.mark.parametrize("name", [*GARBAGE, *ODD])
def test_any_body_can_be_shown(name: str) -> None:
    body = {**GARBAGE, **ODD}[name]
    for seen in (job(body, DEAD), job(body[:CUT], DEAD)):
        everything = [seen.summary, seen.text, seen.shown, str(seen.arguments), json.dumps(seen.to_dict(whole=True))]
        "".join(everything).encode()
        assert len(seen.summary) <= 160
        assert len(seen.shown) <= SHOWN


@given(st.binary(max_size=200), st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.binary()))
def test_no_bytes_and_no_headers_make_it_fail(body: bytes, headers: dict[str, Any]) -> None:
    seen = job(body, headers)
    json.dumps(seen.to_dict(whole=True))
    "".join((seen.summary, seen.shown, seen.error, str(seen.others))).encode()


def test_a_dramatiq_message_says_actor_arguments_and_times() -> None:
    seen = job(dramatiq_body(), DEAD)
    assert seen.actor_name == "vehicle_entry"
    assert seen.summary == 'id="g", vehicle_plate="G1", entry_date_time="2026-11-23T18:00:00Z"'
    assert seen.timestamp == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert seen.error == "id: is missing"
    assert seen.dead_at == datetime(2026, 11, 23, 18, 0, 0, 1, tzinfo=UTC)


def test_a_bare_event_is_shown_under_its_queue() -> None:
    seen = job(bare(), timestamp=1_700_000_000)
    assert (seen.actor_name, seen.own_id) == ("vehicle_entry", "g")
    assert seen.timestamp == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


def test_what_rabbitmq_itself_gave_up_says_so() -> None:
    died = {"x-death": [{"reason": "expired", "queue": "vehicle_entry", "time": datetime(2026, 1, 1, tzinfo=UTC)}]}
    assert job(b"", died).error == "RabbitMQ: expired in vehicle_entry"
    assert job(b"", died).dead_at == datetime(2026, 1, 1, tzinfo=UTC)


def test_the_id_is_made_of_what_a_look_and_a_reading_both_see() -> None:
    body = b"x" * (CUT + 100)
    looked_at = read_job("vehicle_entry.XQ", body[:CUT], len(body), DEAD, {"message_id": "m"})
    assert job(body, {**DEAD, "n": 1}, message_id="m", app_id="a").message_id == looked_at.message_id
    others = [
        job(body + b"x", DEAD, message_id="m"),
        job(b"y" + body[1:], DEAD, message_id="m"),
        job(body, {**DEAD, "x-carpark-dead-at": "2026-11-23T18:00:00.000002Z"}, message_id="m"),
        job(body, {**DEAD, "x-carpark-error": "another"}, message_id="m"),
        job(body, DEAD, message_id="n"),
        job(body, DEAD, queue="vehicle_exit.XQ", message_id="m"),
    ]
    assert len({looked_at.message_id, *(each.message_id for each in others)}) == 7


def test_a_reason_of_several_lines_is_one_line() -> None:
    assert (
        job(b"", {"x-carpark-error": "odd\nffff  vehicle_exit.XQ\t\x1b[31m"}).error
        == r"odd ffff vehicle_exit.XQ \x1b[31m"
    )


def test_the_actor_of_a_long_message_is_found_in_its_beginning() -> None:
    body = dramatiq_body(actor_name="deliver_summaries", kwargs={"sink": "x" * CUT})
    assert read_job("carpark_work.XQ", body[:CUT], len(body), {}, {}).actor_name == "deliver_summaries"


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59-23:00", "now", 7, None])
def test_a_time_of_death_that_cannot_be_is_none(time: object) -> None:
    assert job(b"{}", {**DEAD, "x-carpark-dead-at": time}).dead_at is None


def test_a_text_finds_messages_by_reason_actor_and_body() -> None:
    seen = job(bare(note="Grüße"), DEAD)
    for text in ("", "IS MISSING", "vehicle_entry", "g1", "grüße"):
        assert matches(text)(seen), text
    assert not matches("nothing of this")(seen)


@pytest.mark.parametrize("spelling", ["b-ab 123", "BAB123", "B·AB/123", "\uff22\uff21\uff22\u200f123"])
def test_a_plate_in_any_spelling_finds_the_messages_of_its_vehicle(spelling: str) -> None:
    summary = {"sink": "webhook", "summary": {"vehicle_plate": "BAB123"}}
    for body in (bare(vehicle_plate="b ab-123"), dramatiq_body(actor_name="deliver_summaries", kwargs=summary)):
        assert matches(spelling)(job(body, DEAD))
    for body in (bare(vehicle_plate="B-AB 12"), bare(vehicle_plate=7), bare(vehicle_plate="\n"), b"no JSON"):
        assert not matches(spelling)(job(body, DEAD))


def test_only_what_will_be_processed_counts_as_mended() -> None:
    check_mended(job(b"", DEAD), bare())
    with pytest.raises(InvalidBody, match="vehicle_plate: is missing"):
        check_mended(job(b"", DEAD), bare(vehicle_plate=None))


@pytest.mark.parametrize(
    ("ready", "cursor", "page"),
    [
        (0, 0, (0, 0, None)),
        (0, 50, (0, 0, None)),
        (120, 0, (0, 50, 50)),
        (120, 100, (100, 120, None)),
        (120, 10**6, (119, 120, None)),
        (5000, 950, (950, 1000, None)),
        (5000, 1000, (999, 1000, None)),
    ],
)
def test_pages_end_at_the_thousandth_message(ready: int, cursor: int, page: tuple[int, int, int | None]) -> None:
    assert page_of(ready, cursor) == page
