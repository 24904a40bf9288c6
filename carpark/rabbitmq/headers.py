"""AMQP headers that pika cannot read. Anyone may send them, and one such message must not stop its queue."""

from __future__ import annotations

import struct
from typing import Any

import pika.data

NOTE = "x-carpark-headers"
"""The header that says why others are missing."""

_LONG, _LONGEST = 1024, 16 * 1024

_decode_table = pika.data.decode_table


class LongTable(dict[Any, Any]):
    """Headers of more than `_LONG` bytes: as Python's values they may take twenty times as many."""

    encoded: bytes = b""


class PackedTable:
    """Headers as they came, in the room that they had on the wire: a dead letter of a later time has them all."""

    def __init__(self, encoded: bytes) -> None:
        self._encoded = encoded if len(encoded) <= _LONGEST else b""

    def unpacked(self) -> dict[Any, Any]:
        """Decode them."""
        if not self._encoded:
            return {NOTE: f"dropped: more than {_LONGEST // 1024} KiB"}
        return dict(_decode_table(self._encoded, 0)[0])


def survive_odd_headers() -> None:
    """Make pika read past a table of headers that it has no Python value for, such as a time after the year 9999.

    It would take the error for a broken connection, and RabbitMQ would deliver the same message again on the next one,
    without end. For the whole process; a second call changes nothing.
    """
    pika.data.decode_table = _read_or_skip


def _read_or_skip(encoded: bytes, offset: int) -> tuple[dict[Any, Any], int]:
    (length,) = struct.unpack_from(">I", encoded, offset)
    try:
        table, end = _decode_table(encoded, offset)
    except Exception:  # of datetime, int, struct, or of a nesting that is too deep for Python
        return {NOTE: "dropped: cannot be read"}, offset + 4 + length
    if length > _LONG:
        table = LongTable(table)
        table.encoded = encoded[offset:end]
    return table, end
