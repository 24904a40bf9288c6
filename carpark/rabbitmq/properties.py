"""AMQP properties of a dead letter, and of the message that it becomes again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pika

from carpark.rabbitmq.headers import NOTE

ERROR_HEADER = "x-carpark-error"
DEAD_AT_HEADER = "x-carpark-dead-at"
TRACEBACK_HEADER = "x-carpark-traceback"

MAX_HEADER_BYTES = 100_000
"""The most that a message's properties may take: they must fit into one AMQP frame of 128 KiB, with room."""

_KEPT = (
    *("content_type", "content_encoding", "delivery_mode", "priority", "correlation_id", "reply_to"),
    *("message_id", "timestamp", "type", "app_id", "cluster_id"),
)


def dead_properties(came: pika.BasicProperties, reasons: Mapping[str, Any]) -> pika.BasicProperties:
    """Make the properties of a dead letter."""
    return _sendable(_harmless(came, {**without_reason(came.headers), **reasons}), reasons)


def requeued_properties(came: pika.BasicProperties) -> pika.BasicProperties:
    """Make the properties of a dead letter that goes back to its queue."""
    return moved_properties(came, without_reason(came.headers))


def moved_properties(came: pika.BasicProperties, headers: Mapping[str, Any] | None = None) -> pika.BasicProperties:
    """Make the properties of a message that goes to another queue, a dead letter with its reason."""
    kept = dict((came.headers if headers is None else headers) or {})
    kept.pop("x-delivery-count", None)  # a quorum queue adds it
    return _sendable(_harmless(came, kept), {})


def without_reason(headers: Mapping[str, Any] | None) -> dict[str, Any]:
    """Take the reason off a dead letter's headers."""
    reasons = (ERROR_HEADER, DEAD_AT_HEADER, TRACEBACK_HEADER)
    return {name: value for name, value in (headers or {}).items() if name not in reasons}


def _harmless(came: pika.BasicProperties, headers: dict[str, Any]) -> pika.BasicProperties:
    """Copy properties for a message that is published again.

    Four that would do harm are kept as headers instead: an expiration would make the copy vanish, RabbitMQ refuses
    another user's id, and CC and BCC would send the copy elsewhere as well.
    """
    for name in ("CC", "BCC"):
        if name in headers:
            headers[f"x-carpark-{name.lower()}"] = headers.pop(name)
    for name in ("expiration", "user_id"):
        if getattr(came, name) is not None:
            headers[f"x-carpark-{name.replace('_', '-')}"] = getattr(came, name)
    copy = pika.BasicProperties(**{name: getattr(came, name) for name in _KEPT})
    copy.headers = headers
    return copy


def _sendable(copy: pika.BasicProperties, needed: Mapping[str, Any]) -> pika.BasicProperties:
    try:
        problem = "too long to keep" if sum(len(part) for part in copy.encode()) > MAX_HEADER_BYTES else ""
    except Exception:  # pika reads numbers that it cannot write, and what is nested deeply
        problem = "cannot be written"
    if problem:
        copy.headers = {**needed, NOTE: f"dropped: {problem}"}
    return copy
