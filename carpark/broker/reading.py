"""What a body on a queue means: an event in a Dramatiq message, a bare event, a message of our own, or none of these.

The queue alone decides what a message is: on those of the events nothing is trusted, whatever its headers say. What
cannot be read becomes a `RejectedMessage`, which travels through the worker like any other and ends in the queue's
``.XQ`` with its reason.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from dramatiq.common import q_name
from dramatiq.message import Message

from carpark.domain.events import Event, StaySummary, kind_of, load_json
from carpark.domain.routing import DELIVER, WORK, event_of
from carpark.errors import InvalidBody, MessageError

ENVELOPE = {"queue_name", "actor_name", "args", "kwargs", "options", "message_id", "message_timestamp"}
"""The keys that make an object a Dramatiq message."""

_LIGHT = 1024
"""The longest body, in bytes, whose further fields are kept as they were read: a consumer holds many events."""

_MAX_ID = 200  # room for a sink's name beside a stay's id
_MAX_MILLIS = 253_402_300_800_000  # the year 10000


Kind = TypeVar("Kind", bound=Message[None])


@dataclass(frozen=True)
class EventMessage(Message[None]):
    """A message whose one argument is an event; on the wire its ``kwargs`` are the event.

    An actor could not take the event's fields as keyword arguments: one may be called ``self``.
    """

    sent_at: float | None = field(default=None, compare=False)

    @property
    def event(self) -> Event:
        event: Event = self.args[0]
        return event

    def __str__(self) -> str:
        return f"{self.actor_name}({self.event.id!a}, {self.event.vehicle_plate!a})"


@dataclass(frozen=True)
class RejectedMessage(Message[None]):
    """What is not a message of its queue."""

    error: str = ""

    def __str__(self) -> str:
        return f"{self.actor_name}(rejected: {self.error})"


@dataclass(frozen=True)
class Marker:
    """Tells, when it is reached in a queue of entries, that all before it are done: exits wait for that."""

    id: str


class MarkerMessage(Message[None]):
    """A message whose one argument is a marker."""


MARKER = "carpark-marker"
"""The AMQP type, or here the header, of a marker; its body is the id."""


def read_marker(queue_name: str, body: bytes) -> Message[None]:
    id_ = body[:_MAX_ID].decode("ascii", "replace")
    return _message(MarkerMessage, queue_name, (Marker(id_),))


def read_body(queue_name: str, body: bytes) -> Message[None]:
    """Read a body for its queue."""
    try:
        if _actor_of(queue_name) == DELIVER:
            return _read_work(queue_name, load_json(body))
        message = _read_event(queue_name, load_json(body))
        if len(body) > _LIGHT:
            message.event.lighten(lambda: _event_in(load_json(body)))
        return message
    except MessageError as error:
        return replace(_message(RejectedMessage, queue_name, ()), error=" ".join(str(error).split()))


@functools.cache
def _actor_of(queue_name: str) -> str:
    queue: str = q_name(queue_name)
    return DELIVER if queue == WORK else queue


def _message(kind: type[Kind], queue_name: str, args: tuple[Any, ...], *rest: Any) -> Kind:
    return kind(queue_name, _actor_of(queue_name), args, {}, {}, *rest)


def _read_event(queue_name: str, fields: Any) -> EventMessage:
    event_type = event_of(_actor_of(queue_name))
    if not isinstance(fields, dict):
        raise InvalidBody(f"the body is {kind_of(fields)}; wanted an object")
    event = _event_in(fields)
    if event is fields:
        return _message(EventMessage, queue_name, (event_type.parse(event),))
    if fields["actor_name"] != event_type.queue:
        raise InvalidBody(f"actor_name: wanted {event_type.queue!r} on this queue")
    message_id, timestamp = _checked_envelope(fields)
    if not isinstance(event, dict):
        raise InvalidBody(f"kwargs: is {kind_of(event)}; wanted the event, an object")
    return _message(EventMessage, queue_name, (event_type.parse(event),), message_id, timestamp, timestamp / 1000)


def _event_in(fields: dict[str, Any]) -> Any:
    return fields["kwargs"] if fields.keys() >= ENVELOPE else fields


def _read_work(queue_name: str, fields: Any) -> Message[None]:
    if not isinstance(fields, dict) or not fields.keys() >= ENVELOPE or fields["actor_name"] != DELIVER:
        raise InvalidBody(f"wanted a Dramatiq message to {DELIVER} on this queue")
    envelope, kwargs = _checked_envelope(fields), fields["kwargs"]
    if not isinstance(kwargs, dict) or kwargs.keys() != {"sink", "summary"} or not isinstance(kwargs["sink"], str):
        raise InvalidBody(f"kwargs: are not those of {DELIVER}: sink and summary")
    return _message(Message, queue_name, (kwargs["sink"], StaySummary.parse(kwargs["summary"])), *envelope)


def _checked_envelope(fields: dict[str, Any]) -> tuple[str, int]:
    message_id, timestamp = fields["message_id"], fields["message_timestamp"]
    if not isinstance(message_id, str) or not 1 <= len(message_id) <= _MAX_ID or not message_id.isprintable():
        raise InvalidBody(f"message_id: wanted 1 to {_MAX_ID} printable characters")
    if type(timestamp) is not int or not 0 <= timestamp < _MAX_MILLIS:
        raise InvalidBody("message_timestamp: wanted milliseconds since 1970, a whole number")
    return message_id, timestamp
