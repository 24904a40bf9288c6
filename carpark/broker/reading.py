"""What a body on a queue means: an event in a Dramatiq message, a bare event, a retry of our own, or none of these.

The queue decides what a message is, so a body is read for its queue. What cannot be read becomes a `RejectedMessage`,
which travels through the worker like any other and ends in the queue's ``.XQ`` with its reason.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dramatiq.common import q_name
from dramatiq.message import Message, get_encoder

from carpark.errors import InvalidBody, MessageError
from carpark.events import EVENT_OF_QUEUE, MAX_NESTING, Event, VehicleExited, kind_of, load_json

OWN_HEADER = "x-carpark-own"
"""The header by which the backend knows its own retries; nobody else sets it."""

DELIVER = "deliver_summaries"
"""The actor that delivers summaries again; its messages travel on the exit queue."""

MAX_OWN_BYTES = 16 * 1024 * 1024
"""The longest body of a retry of our own: it carries a list of summaries, or an event with a traceback."""

ENVELOPE = {"queue_name", "actor_name", "args", "kwargs", "options", "message_id", "message_timestamp"}
"""The keys that make an object a Dramatiq message."""

_OWN_OPTIONS = {"eta": (int, float), "retries": (int,), "traceback": (str,), "requeue_timestamp": (int,)}
_MAX_MILLIS = 253_402_300_800_000  # the year 10000


@dataclass(frozen=True)
class EventMessage(Message[None]):
    """A message whose one argument is an event; on the wire its ``kwargs`` are the event.

    An actor could not take the event's fields as keyword arguments: one may be called ``self``.
    """

    sent_at: float | None = field(default=None, compare=False)

    @property
    def event(self) -> Event:
        """The event."""
        event: Event = self.args[0]
        return event

    def encode(self) -> bytes:
        """Write the message as a generator would.

        Returns:
            The body.
        """
        fields = {name: getattr(self, name) for name in ENVELOPE}
        options = self.options if self.sent_at is not None else {**self.options, "bare": True}
        encoded: bytes = get_encoder().encode(
            {**fields, "args": [], "kwargs": self.event.to_dict(), "options": options}
        )
        return encoded

    def __str__(self) -> str:
        return f"{self.actor_name}({self.event.id!a}, {self.event.vehicle_plate!a})"


@dataclass(frozen=True)
class RejectedMessage(Message[None]):
    """What is not a message of its queue."""

    error: str = ""

    def __str__(self) -> str:
        return f"{self.actor_name}(rejected: {self.error})"


def read_body(queue_name: str, body: bytes, headers: Mapping[str, Any] | None = None) -> Message[None]:
    """Read a body for its queue.

    Args:
        queue_name: The queue that it came on, or that queue's delay queue.
        body: The bytes as they came.
        headers: The AMQP headers that came with it.

    Returns:
        An `EventMessage`, a message to `DELIVER`, or a `RejectedMessage` that says why it is none of these.
    """
    try:
        if headers and OWN_HEADER in headers:
            return _read_own(queue_name, load_own(body))
        return _read_event(queue_name, load_json(body))
    except MessageError as error:
        return RejectedMessage(
            queue_name=queue_name,
            actor_name=q_name(queue_name),
            args=(),
            kwargs={},
            options={},
            error=" ".join(str(error).split()),
        )


def load_own(body: bytes) -> Any:
    """Decode the body of a retry of our own.

    Args:
        body: The bytes as they came.

    Returns:
        The decoded value.

    Raises:
        InvalidBody: It is too long, not UTF-8, not JSON, or nested too deeply.
    """
    return load_json(body, MAX_OWN_BYTES, MAX_NESTING + 1)  # a bare event lies one level deeper in its retry


def _read_event(queue_name: str, fields: Any) -> EventMessage:
    actor_name = q_name(queue_name)
    if not isinstance(fields, dict):
        raise InvalidBody(f"the body is {kind_of(fields)}; wanted an object")
    if not fields.keys() >= ENVELOPE:
        return _event_message(queue_name, str(uuid.uuid4()), int(time.time() * 1000), fields, {}, None)
    if fields["actor_name"] != actor_name:
        raise InvalidBody(f"actor_name: wanted {actor_name!r} on this queue")
    message_id, timestamp = _checked_envelope(fields)
    return _event_message(queue_name, message_id, timestamp, fields["kwargs"], {}, timestamp / 1000)


def _event_message(
    queue_name: str, message_id: str, timestamp: int, event: Any, options: dict[str, Any], sent_at: float | None
) -> EventMessage:
    if not isinstance(event, dict):
        raise InvalidBody(f"kwargs: is {kind_of(event)}; wanted the event, an object")
    return EventMessage(
        queue_name=queue_name,
        actor_name=q_name(queue_name),
        args=(EVENT_OF_QUEUE[q_name(queue_name)].parse(event),),
        kwargs={},
        options=options,
        message_id=message_id,
        message_timestamp=timestamp,
        sent_at=sent_at,
    )


def _read_own(queue_name: str, fields: Any) -> Message[None]:
    if not isinstance(fields, dict) or not fields.keys() >= ENVELOPE:
        raise InvalidBody(f"the header {OWN_HEADER} is set, but the body is not a Dramatiq message")
    message_id, timestamp = _checked_envelope(fields)
    options = _checked_options(fields["options"])
    actor_name, kwargs = fields["actor_name"], fields["kwargs"]
    if actor_name == q_name(queue_name):
        bare = bool(fields["options"].get("bare"))
        return _event_message(queue_name, message_id, timestamp, kwargs, options, None if bare else timestamp / 1000)
    if actor_name != DELIVER or q_name(queue_name) != VehicleExited.queue:
        raise InvalidBody("actor_name: is not an actor of this queue")
    if not isinstance(kwargs, dict) or kwargs.keys() != {"sink", "keys", "summaries"}:
        raise InvalidBody(f"kwargs: are not those of {DELIVER}")
    return Message(
        queue_name=queue_name,
        actor_name=DELIVER,
        args=(),
        kwargs=kwargs,
        options=options,
        message_id=message_id,
        message_timestamp=timestamp,
    )


def _checked_envelope(fields: dict[str, Any]) -> tuple[str, int]:
    message_id, timestamp = fields["message_id"], fields["message_timestamp"]
    if not isinstance(message_id, str) or not 1 <= len(message_id) <= 128 or not message_id.isprintable():
        raise InvalidBody("message_id: wanted 1 to 128 printable characters")
    if type(timestamp) is not int or not 0 <= timestamp < _MAX_MILLIS:
        raise InvalidBody("message_timestamp: wanted milliseconds since 1970, a whole number")
    return message_id, timestamp


def _checked_options(options: Any) -> dict[str, Any]:
    if not isinstance(options, dict):
        raise InvalidBody(f"options: is {kind_of(options)}; wanted an object")
    kept = {name: options[name] for name in _OWN_OPTIONS if name in options}
    for name, value in kept.items():
        beyond = isinstance(value, int | float) and not 0 <= value < _MAX_MILLIS
        if not isinstance(value, _OWN_OPTIONS[name]) or isinstance(value, bool) or beyond:
            raise InvalidBody(f"options.{name}: is not one that this backend writes")
    return kept
