"""Dead letters: the copy of a message that goes to ``.XQ``, its dead letter queue, and why."""

from __future__ import annotations

import traceback
from datetime import UTC, datetime
from typing import Any

from dramatiq.broker import MessageProxy

from carpark.broker.reading import RejectedMessage
from carpark.domain.events import format_time
from carpark.errors import CarparkError
from carpark.rabbitmq.properties import DEAD_AT_HEADER, ERROR_HEADER, TRACEBACK_HEADER

MAX_ERROR = 500
"""The longest reason, in characters."""

MAX_TRACEBACK = 4096
"""The longest traceback, in bytes; what is cut off is its beginning."""

MAX_LOGGED = 200
"""How many bytes of a body the log shows at most."""


def headers_for(why: str) -> dict[str, Any]:
    """Make the headers that every dead letter has."""
    return {DEAD_AT_HEADER: format_time(datetime.now(UTC)), ERROR_HEADER: _one_line(why)}


def reason_headers(message: MessageProxy) -> dict[str, Any]:
    """Say why a message is dead."""
    error = message._exception
    headers = headers_for(reason(message))
    if error is not None and not isinstance(error, CarparkError):
        text = "".join(traceback.format_exception(error))
        headers[TRACEBACK_HEADER] = text.encode("utf-8", "replace")[-MAX_TRACEBACK:].decode("utf-8", "ignore")
    return headers


def reason(message: MessageProxy) -> str:
    """Say in one line why a message is dead."""
    error = message._exception
    if isinstance(message._message, RejectedMessage):
        text = message._message.error
    elif error is None:
        text = "given up"
    elif isinstance(error, CarparkError):
        text = str(error)
    else:
        text = f"{type(error).__name__}: {error}"
    return _one_line(text)


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else "?" for c in line)[:MAX_ERROR]


def shortened(body: bytes) -> str:
    """Show the beginning of a body in a log line."""
    more = f"... ({len(body)} bytes)" if len(body) > MAX_LOGGED else ""
    return repr(body[:MAX_LOGGED])[1:] + more
