"""A message of a queue as people see it: whatever its body and its headers are, it can be shown."""

from __future__ import annotations

import base64
import codecs
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from dramatiq.common import q_name

from carpark.broker.reading import ENVELOPE, RejectedMessage, read_body
from carpark.domain.events import MAX_BODY_BYTES, format_time, load_json
from carpark.errors import InvalidBody, MessageError
from carpark.rabbitmq.connection import MAX_MESSAGE_BYTES
from carpark.rabbitmq.moving import Taken
from carpark.rabbitmq.properties import DEAD_AT_HEADER, ERROR_HEADER, TRACEBACK_HEADER, without_reason

CUT = 4096
"""How many bytes of a body are looked at in a list; a message's id is made of them."""

SHOWN = 64 * 1024
"""How many characters of a body a page shows."""

_LINE = 160
_VALUE = 40
_LONG = 2000
_ROWS = 50


@dataclass(frozen=True)
class Job:
    """A message, as far as it can be understood. Times are UTC."""

    message_id: str
    queue_name: str
    body: bytes
    size: int
    headers: Mapping[str, Any] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)
    actor_name: str = ""
    kwargs: Mapping[str, Any] | None = None
    own_id: str = ""
    timestamp: datetime | None = None

    @property
    def error(self) -> str:
        """Why it is dead, in one line; empty when nobody said."""
        said = self.headers.get(ERROR_HEADER)
        if said:
            return printable(" ".join(str(said).split()))
        death = _death(self.headers)
        return printable(f"RabbitMQ: {death.get('reason', '?')} in {death.get('queue', '?')}") if death else ""

    @property
    def dead_at(self) -> datetime | None:
        """When it died."""
        try:
            return datetime.fromisoformat(str(self.headers.get(DEAD_AT_HEADER))).astimezone(UTC)
        except (ValueError, OverflowError):
            return _time(_death(self.headers).get("time"))

    @property
    def traceback(self) -> str:
        """The traceback of our own code's failure, or nothing."""
        return printable(str(self.headers.get(TRACEBACK_HEADER) or ""))

    @property
    def is_cut(self) -> bool:
        """Whether `body` is only the beginning."""
        return len(self.body) < self.size

    @property
    def can_be_sent(self) -> bool:
        """Whether it may go to its queue again as it is."""
        return self.size <= MAX_MESSAGE_BYTES

    @property
    def is_text(self) -> bool:
        """Whether it is short enough, and text, so that it can be mended by hand."""
        return not self.is_cut and self.size <= MAX_BODY_BYTES and self._decoded is not None

    @property
    def _decoded(self) -> str | None:
        try:
            return self.body.decode()
        except UnicodeDecodeError:
            return None

    @property
    def text(self) -> str:
        """The body as it is, as text; bytes that are none are escaped."""
        return printable(self.body[:SHOWN].decode("utf-8", "backslashreplace"))

    @property
    def shown(self) -> str:
        """The body as a page shows it: laid out when it is JSON, or the beginning of a longer one as it is."""
        return self.text if self.is_shortened else self._laid_out[:SHOWN]

    @property
    def shown_whole(self) -> Iterator[str]:
        """The body, laid out when it is JSON; a longer one than a page shows as it is, piece by piece."""
        if len(self.body) <= SHOWN:
            yield self._laid_out
            return
        pieces = (self.body[start : start + SHOWN] for start in range(0, len(self.body), SHOWN))
        yield from map(printable, codecs.iterdecode(pieces, "utf-8", "backslashreplace"))

    @property
    def _laid_out(self) -> str:
        try:
            return printable(json.dumps(load_json(self.body), indent=2, ensure_ascii=False))
        except (MessageError, ValueError):
            return printable(self.body.decode("utf-8", "backslashreplace"))

    @property
    def is_shortened(self) -> bool:
        """Whether `shown` leaves something out."""
        return self.is_cut or len(self.body) > SHOWN

    @property
    def summary(self) -> str:
        """The arguments, or the beginning of the body, in one line."""
        if self.kwargs is None:
            return _short(" ".join(self.text[: 4 * _LINE].split()), _LINE) or "(empty)"
        if not self.kwargs:
            return "(no arguments)"
        first = list(self.kwargs.items())[:_ROWS]
        return _short(printable(", ".join(f"{_short(name, _VALUE)}={_value(value)}" for name, value in first)), _LINE)

    @property
    def plate(self) -> str:
        """The plate of its event or summary, as it came; empty when there is none."""
        fields = self.kwargs or {}
        inner = fields.get("summary")
        found = (inner if isinstance(inner, dict) else fields).get("vehicle_plate")
        return found if isinstance(found, str) else ""

    @property
    def arguments(self) -> list[tuple[str, str]]:
        """Names and values of the arguments as text, as far as a page shows them."""
        return _rows(self.kwargs or {})

    @property
    def others(self) -> list[tuple[str, str]]:
        """Names and values of headers and properties as text, the reason left out: a page shows that apart."""
        return _rows({**without_reason(self.headers), **self.properties})

    def to_dict(self, *, whole: bool = False) -> dict[str, Any]:
        """Give it as JSON has it."""
        fields: dict[str, Any] = {
            "id": self.message_id,
            "queue": self.queue_name,
            "actor": self.actor_name or None,
            "message_id": self.own_id or None,
            "error": self.error or None,
            "dead_at": self.dead_at and format_time(self.dead_at),
            "enqueued_at": self.timestamp and format_time(self.timestamp),
            "size": self.size,
            "arguments": _plain(self.kwargs),
        }
        if not whole:
            return fields
        text = self._decoded
        body = {"body": text, "body_base64": base64.b64encode(self.body).decode() if text is None else None}
        plain = {"headers": _plain(self.headers), "properties": _plain(self.properties)}
        return {**fields, "traceback": self.traceback or None, **body, **plain}


def read_job(
    queue_name: str, body: bytes, size: int, headers: Mapping[str, Any] | None, properties: Mapping[str, Any]
) -> Job:
    """Understand a message as far as that goes."""
    headers = headers or {}
    said = (headers.get(ERROR_HEADER), headers.get(DEAD_AT_HEADER), properties.get("message_id"))
    # All of these, else one id may mean two, to be mended apart.
    parts = [queue_name.encode(), body[:CUT], str(size).encode()]
    parts += [str(value or "").encode("utf-8", "replace") for value in said]
    digest = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:16]
    understood = _understand(queue_name, body) or _guess(body)
    understood.setdefault("timestamp", _time(properties.get("timestamp")))
    return Job(digest, queue_name, body, size, headers, properties, **understood)


def job_of(taken: Taken, cut: int | None = CUT) -> Job:
    """Understand a message that was taken out of its queue."""
    others = {name: value for name, value in vars(taken.properties).items() if name != "headers" and value is not None}
    return read_job(taken.queue_name, taken.body[:cut], len(taken.body), taken.properties.headers, others)


def of_job(wanted: Callable[[Job], bool]) -> Callable[[Taken], bool]:
    """Make of a question about messages as people see them one about those that are taken out of a queue."""
    return lambda taken: wanted(job_of(taken))


def check_mended(job: Job, body: bytes) -> None:
    """See to it that a mended body will be processed."""
    read = read_body(q_name(job.queue_name), body)
    if isinstance(read, RejectedMessage):
        raise InvalidBody(read.error)


def printable(text: str) -> str:
    """Make text harmless to look at."""
    if text.isprintable():
        return text
    text = text.replace("\r\n", "\n")
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def _understand(queue_name: str, body: bytes) -> dict[str, Any]:
    try:
        fields = load_json(body)
    except MessageError:
        return {}
    if not isinstance(fields, dict):
        return {}
    if not fields.keys() >= ENVELOPE:
        return {"kwargs": fields, "actor_name": q_name(queue_name), "own_id": _text(fields.get("id"))}
    kwargs = fields["kwargs"]
    return {
        "actor_name": _text(fields["actor_name"]),
        "kwargs": kwargs if isinstance(kwargs, dict) else {"kwargs": kwargs},
        "own_id": _text(fields["message_id"]),
        "timestamp": _time(fields["message_timestamp"], 1000),
    }


def _guess(body: bytes) -> dict[str, Any]:
    """Find the actor in the beginning of a long body."""
    found = re.search(rb'"actor_name": ?"(\w{1,100})"', body[:CUT])
    return {"actor_name": found[1].decode("ascii", "replace")} if found else {}


def _death(headers: Mapping[str, Any]) -> Mapping[str, Any]:
    deaths = headers.get("x-death")
    first = deaths[0] if isinstance(deaths, list) and deaths else None
    return first if isinstance(first, dict) else {}


def _time(value: object, unit: int = 1) -> datetime | None:
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return datetime.fromtimestamp(value / unit, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _text(value: object) -> str:
    return _short(printable(value), _LINE) if isinstance(value, str) else ""


def _value(value: object) -> str:
    if isinstance(value, list) and len(value) > 1:
        return f"[{len(value)} items]"
    return _short(printable(json.dumps(value, ensure_ascii=False)), _VALUE)


def _rows(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (_short(printable(str(name)), _VALUE), _short(printable(_laid_out(value)), _LONG))
        for name, value in list(values.items())[:_ROWS]
    ]


def _laid_out(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(_plain(value), indent=2, ensure_ascii=False)


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _plain(value: object) -> Any:
    """Make what AMQP can carry into what JSON can."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, datetime):
        return format_time(value.astimezone(UTC))
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
