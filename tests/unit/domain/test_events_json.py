"""Bodies: up to 64 KiB of UTF-8 JSON, no NaN, no Infinity, the last of duplicate keys."""

from __future__ import annotations

import codecs
import json
import sys
import time
from typing import Any

import pytest
from dramatiq.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from carpark.domain import events
from carpark.domain.events import MAX_BODY_BYTES, MAX_NESTING, VehicleEntered, VehicleExited, _depth, load_json
from carpark.errors import InvalidBody, InvalidEvent
from generators.wire import message_body


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": 1}', {"a": 1}),
        (b'\r\n\t {"a": 1} \n', {"a": 1}),
        (b'{"a": 1, "b": 2, "a": 3}', {"a": 3, "b": 2}),
        ('{"a": "Ä🚗"}'.encode(), {"a": "Ä🚗"}),
        (rb'{"a": "\u00c4\ud83d\ude97\u0000"}', {"a": "Ä🚗\0"}),
        (b"null", None),
        (b'"text"', "text"),
        (b"[1e3, -0.5, 12345678901234567890]", [1000.0, -0.5, 12345678901234567890]),
        (b"9" * 4300, int("9" * 4300)),
    ],
)
def test_json_is_read(body: bytes, value: object) -> None:
    assert load_json(body) == value


def test_the_last_of_duplicate_keys_counts_in_an_event() -> None:
    fields = b'"id": "1", "vehicle_plate": "A", "entry_date_time": "2026-11-23T18:00:00Z"'
    event = VehicleEntered.parse(load_json(b'{"id": 7, "vehicle_plate": "!", %s, "id": "2"}' % fields))
    assert (event.id, event.vehicle_plate) == ("2", "A")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "the body is empty; wanted JSON"),
        (b" ", "the body is not JSON: Expecting value: line 1 column 2 (char 1)"),
        (b"\0", "the body is not JSON: Expecting value: line 1 column 1 (char 0)"),
        (
            b"{'a': 1}",
            "the body is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        ),
        (b'{"a": 1} {"a": 2}', "the body is not JSON: Extra data: line 1 column 10 (char 9)"),
        (b'{"a": "\n"}', "the body is not JSON: Invalid control character at: line 1 column 8 (char 7)"),
        (b'{"a": NaN}', "the body is not JSON: NaN is not a JSON number"),
        (b"[Infinity]", "the body is not JSON: Infinity is not a JSON number"),
        (b"-Infinity", "the body is not JSON: -Infinity is not a JSON number"),
        (b"nan", "the body is not JSON: Expecting value: line 1 column 1 (char 0)"),
        (codecs.BOM_UTF8 + b"{}", "the body starts with a byte order mark; wanted UTF-8 without one"),
        ('{"a": 1}'.encode("utf-16"), "the body is not UTF-8 (byte 0)"),
        (
            '{"a": 1}'.encode("utf-16-le"),
            "the body is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        ),
        ('{"a": "Ä"}'.encode("latin-1"), "the body is not UTF-8 (byte 7)"),
        (b'{"a": "\xed\xa0\x80"}', "the body is not UTF-8 (byte 7)"),
        (b'{"a": "\xc0\x80"}', "the body is not UTF-8 (byte 7)"),
        (b"9" * 4301, "the body has a whole number of more than 4300 digits"),
        (b'{"a": [-%s]}' % (b"9" * 60_000), "the body has a whole number of more than 4300 digits"),
    ],
)
def test_what_is_not_json_is_refused_in_plain_words(body: bytes, reason: str) -> None:
    with pytest.raises(InvalidBody) as caught:
        load_json(body)
    assert str(caught.value) == reason


def test_a_body_may_have_64_kib_and_not_a_byte_more() -> None:
    body = b'"' + b"x" * (MAX_BODY_BYTES - 2) + b'"'
    assert len(body) == 65_536
    assert load_json(body) == "x" * 65_534
    with pytest.raises(InvalidBody, match=r"^the body has 65537 bytes; wanted at most 65536$"):
        load_json(body + b" ")
    assert load_json(body + b" ", max_bytes=65_537) == "x" * 65_534


def test_bytes_are_counted_not_characters() -> None:
    body = '"{}"'.format("Ä" * 32_767).encode()
    assert load_json(body) == "Ä" * 32_767
    with pytest.raises(InvalidBody, match=r"^the body has 65538 bytes"):
        load_json('"{}"'.format("Ä" * 32_768).encode())


def nested(depth: int, opening: str = "[", closing: str = "]", core: str = "") -> bytes:
    return (opening * depth + core + closing * depth).encode()


@pytest.mark.parametrize(("opening", "closing", "core"), [("[", "]", ""), ('{"a":', "}", "1"), ('[{"a":', "}]", "[]")])
def test_nesting_has_a_limit_that_does_not_depend_on_who_calls(opening: str, closing: str, core: str) -> None:
    levels = opening.count("[") + opening.count("{")
    most = (MAX_NESTING - core.count("[")) // levels
    value = load_json(nested(most, opening, closing, core))
    assert json.loads(json.dumps(value)) == value
    for depth in (most + 1, most + 2, 900, 5_000):
        with pytest.raises(InvalidBody, match=r"^the body is nested more than 256 levels deep$"):
            load_json(nested(depth, opening, closing, core))


def test_brackets_in_text_and_side_by_side_are_not_nesting() -> None:
    assert load_json(b'"' + b"[{" * 1000 + b'"') == "[{" * 1000
    assert load_json(b"[" + b"[],{}," * 1000 + b"[]]") == [[], {}] * 1000 + [[]]


@pytest.mark.parametrize("body", [b"[" * 65_536, b'{"a":' * 13_000, b'["\\\\",' * 8_000, b'["\\"","]",' * 5_000])
def test_what_is_too_deep_is_not_given_to_the_decoder(monkeypatch: pytest.MonkeyPatch, body: bytes) -> None:
    monkeypatch.setattr(events, "_DECODER", None)
    with pytest.raises(InvalidBody, match="nested more than 256 levels deep"):
        load_json(body)


def measured(value: Any) -> int:
    """Measure a value's depth in the plainest way."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(measured, inner), default=0)


@given(
    st.recursive(
        st.none() | st.integers() | st.text('[]{}"\\\n,: a') | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('[]{}"\\a'), inner, max_size=4),
        max_leaves=30,
    ),
    st.booleans(),
)
def test_the_depth_is_known_before_decoding(value: Any, is_ascii: bool) -> None:
    assert _depth(json.dumps(value, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")) == measured(value)


@pytest.mark.parametrize("depth", [0, 500])
def test_a_body_of_brackets_alone_is_refused_at_any_depth_of_the_stack(depth: int) -> None:
    if depth:
        return test_a_body_of_brackets_alone_is_refused_at_any_depth_of_the_stack(depth - 1)
    for body in (b"[" * 65_536, nested(32_768), b'{"a":' * 13_000):
        with pytest.raises(InvalidBody, match="nested more than 256 levels deep"):
            load_json(body)
    return None


def test_the_deepest_body_that_is_read_can_be_written_again() -> None:
    fields = '{"id": "1", "vehicle_plate": "A", "entry_date_time": "2026-11-23T18:00:00Z", "x": '
    body = fields.encode() + nested(MAX_NESTING - 1) + b"}"
    event = VehicleEntered.parse(load_json(body))
    assert VehicleEntered.parse(load_json(event.to_json().encode())) == event
    with pytest.raises(InvalidBody, match="nested more than 256"):
        load_json(fields.encode() + nested(MAX_NESTING) + b"}")


def test_no_body_takes_long() -> None:
    most = MAX_BODY_BYTES - 2
    bodies = [
        b"[" + b"9" * most + b"]",
        b"[" + b"0," * (most // 2 - 1) + b"0]",
        b"[" * (most // 2) + b"]" * (most // 2),
        b"[" + b"[]," * (most // 3 - 1) + b"[]]",
        b"[1e" + b"9" * (most - 3) + b"]",
        b'"' + b"\\u0041" * (most // 6) + b'"',
    ]
    started = time.process_time()
    for body in bodies:
        assert len(body) <= MAX_BODY_BYTES
        try:
            load_json(body)
        except InvalidBody as error:
            assert len(str(error)) < 200  # noqa: PT017
    assert time.process_time() - started < 1


def test_the_limit_of_digits_is_pythons_own() -> None:
    assert sys.get_int_max_str_digits() == 4300


@settings(deadline=None, max_examples=300)
@given(
    st.binary(max_size=200)
    | st.text(max_size=80).map(str.encode)
    | st.text('[]{}:,"0e-\\u ntf\n', max_size=60).map(str.encode)
)
def test_any_bytes_are_read_as_python_reads_json_or_refused_in_one_line(body: bytes) -> None:
    try:
        value = load_json(body)
    except InvalidBody as error:
        assert str(error).isprintable()  # noqa: PT017
        assert len(str(error)) < 200  # noqa: PT017
        return
    assert value == json.loads(body)


@given(st.text(min_size=1, max_size=128).filter(lambda text: text.isprintable() or '"' in text), st.booleans())
def test_an_event_is_written_as_json_writes_it(id_: str, more: bool) -> None:
    fields = {"id": id_, "vehicle_plate": "ÄB 1", "exit_date_time": "2026-11-23T18:00:00Z"} | ({"x": 1} if more else {})
    try:
        event = VehicleExited.parse(fields)
    except InvalidEvent:
        return
    assert event.to_json() == json.dumps(event.to_dict(), ensure_ascii=False, separators=(",", ":"))


def test_what_a_generator_sends_is_dramatiqs_message() -> None:
    event = VehicleExited.parse({"id": 'a "b"\\ü', "vehicle_plate": "ÄB 1", "exit_date_time": "2026-11-23T18:00:00Z"})
    body = message_body(event)
    sent = Message.decode(body)
    assert sent == Message(
        queue_name="vehicle_exit",
        actor_name="vehicle_exit",
        args=[],
        kwargs=event.to_dict(),
        options={},
        message_id=sent.message_id,
        message_timestamp=sent.message_timestamp,
    )
    assert abs(sent.message_timestamp - time.time() * 1000) < 60_000
    assert message_body(event) != body, "each has an id of its own"
