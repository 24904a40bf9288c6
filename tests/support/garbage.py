"""Bodies that are not what a queue takes, and a few odd ones that are."""

from __future__ import annotations

import json
from typing import Any

EVENT = {"id": "g", "vehicle_plate": "G1", "entry_date_time": "2026-11-23T18:00:00Z"}


def dramatiq_body(**changes: Any) -> bytes:
    """Write a Dramatiq message to the actor ``vehicle_entry``.

    Args:
        changes: Keys that are otherwise than usual.

    Returns:
        The body.
    """
    message: dict[str, Any] = {
        "queue_name": "vehicle_entry",
        "actor_name": "vehicle_entry",
        "args": [],
        "kwargs": EVENT,
        "options": {},
        "message_id": "b26ed2b5-5f0b-4c7f-9a3e-3a1a0f9f1d11",
        "message_timestamp": 1_700_000_000_000,
    }
    return json.dumps({**message, **changes}).encode()


def bare(**changes: Any) -> bytes:
    """Write a bare entry.

    Args:
        changes: Fields that are otherwise than usual; None takes one out.

    Returns:
        The body.
    """
    return json.dumps({name: value for name, value in {**EVENT, **changes}.items() if value is not None}).encode()


GARBAGE: dict[str, bytes] = {
    "nothing": b"",
    "text": b"nope",
    "list": b"[]",
    "null": b"null",
    "number": b"42",
    "empty object": b"{}",
    "nested": b"[" * 60_000,
    "nested in a field": b'{"id":"a","vehicle_plate":"A","entry_date_time":"2026-11-23T18:00:00Z","x":' + b"[" * 60_000,
    "a megabyte": b"[" * 1_000_000,
    "too long": bare(note="x" * 65_536),
    "NaN": b'{"id":NaN}',
    "infinity by exponent": bare(note="@").replace(b'"@"', b"1e999"),
    "not UTF-8": b"\xff\xfe{}",
    "UTF-16": json.dumps(EVENT).encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + bare(),
    "lone surrogate": bare(note="@").replace(b"@", b"\\ud800"),
    "lone surrogate in a key": bare(note="@").replace(b"note", b"\\udfff"),
    "no id": bare(id=None),
    "number as id": bare(id=7),
    "control character in the id": bare(id="a\nb"),
    "long id": bare(id="x" * 129),
    "no plate": bare(vehicle_plate=None),
    "plate of dashes": bare(vehicle_plate=" - - "),
    "plate of symbols": bare(vehicle_plate="<!>"),
    "plate of marks": bare(vehicle_plate="\u0301"),
    "plate with a line break": bare(vehicle_plate="A\n1"),
    "id that is a formula": bare(id="=1+1"),
    "no time": bare(entry_date_time=None),
    "time without offset": bare(entry_date_time="2026-11-23T18:00:00"),
    "time in words": bare(entry_date_time="now"),
    "leap second": bare(entry_date_time="2016-12-31T23:59:60Z"),
    "an exit's field": bare(entry_date_time=None, exit_date_time="2026-11-23T18:00:00"),
    "unknown actor": dramatiq_body(actor_name="other"),
    "actor of another queue": dramatiq_body(actor_name="deliver_summaries", kwargs={"sink": "http-csv"}),
    "actor that is a list": dramatiq_body(actor_name=[1]),
    "kwargs that are a list": dramatiq_body(kwargs=[]),
    "kwargs that are null": dramatiq_body(kwargs=None),
    "kwargs that are no event": dramatiq_body(kwargs={"self": 1}),
    "message id that is null": dramatiq_body(message_id=None),
    "timestamp that is text": dramatiq_body(message_timestamp="now"),
    "timestamp that is true": dramatiq_body(message_timestamp=True),
    "timestamp below zero": dramatiq_body(message_timestamp=-1),
}
"""A name for each body that the queue ``vehicle_entry`` rejects."""

ODD: dict[str, bytes] = {
    "foreign queue name": dramatiq_body(queue_name="other", kwargs={**EVENT, "id": "odd-1", "vehicle_plate": "O1"}),
    "options that are null": dramatiq_body(options=None, kwargs={**EVENT, "id": "odd-2", "vehicle_plate": "O2"}),
    "options that would hold it for ever": dramatiq_body(
        options={"eta": 1e300, "max_retries": "x", "on_failure": "nobody"},
        kwargs={**EVENT, "id": "odd-3", "vehicle_plate": "O3"},
    ),
    "arguments": dramatiq_body(args=[1, 2], kwargs={**EVENT, "id": "odd-4", "vehicle_plate": "O4"}),
    "a field called self": dramatiq_body(kwargs={**EVENT, "id": "odd-5", "vehicle_plate": "O5", "self": 1}),
    "fields named as our own": bare(id="odd-6", vehicle_plate="O6", kind=1, queue=2, time=3, model_config=4, args=5),
    "some of Dramatiq's keys": bare(id="odd-7", vehicle_plate="O7", actor_name=[1], kwargs=None, options=3),
    "the last of duplicate keys": bare(id="odd-8", vehicle_plate="O8").replace(b"{", b'{"id":7,', 1),
}
"""A name for each body that looks wrong and is an entry all the same."""
