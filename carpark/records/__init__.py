"""Where stays are kept and joined: one contract, in this process and in Redis. Read `carpark.records.memory` first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from carpark.records.base import (
    Backlog,
    Batch,
    ExitsHeld,
    Forgotten,
    ForgottenPlates,
    Outbox,
    Outcome,
    Recorded,
    Records,
    Settled,
    Settlement,
    Snapshot,
)
from carpark.records.connection import TIMEOUT, connect
from carpark.records.memory import MemoryRecords, Store

__all__ = [
    "Backlog",
    "Batch",
    "ExitsHeld",
    "Forgotten",
    "ForgottenPlates",
    "Outbox",
    "Outcome",
    "Recorded",
    "Records",
    "Settled",
    "Settlement",
    "Snapshot",
    "forget_memory",
    "open_records",
]

_memory: dict[str, Store] = {}


def open_records(
    url: str,
    retention: float,
    sinks: Sequence[str] = (),
    clock: Callable[[], float] | None = None,
    *,
    attempts: int = 3,
    timeout: float = TIMEOUT,
) -> Records:
    """Open the records that a URL names; they connect when they are first used, and serve any number of threads.

    ``memory://`` and ``memory://name`` are those of this process, the same ones for the same name. A given clock is the
    records' own. The other arguments are those of `carpark.records.connection.connect`, of the events' memory in
    seconds, and the names of the sinks that every summary goes to.
    """
    if urlsplit(url).scheme == "memory":
        return MemoryRecords(_memory.setdefault(url, Store(clock)), retention, sinks)
    from carpark.records.redis import RedisRecords  # which reads its Lua

    return RedisRecords(connect(url, attempts=attempts, timeout=timeout), retention, sinks, clock)


def forget_memory(url: str) -> None:
    """Let go of records in this process."""
    _memory.pop(url, None)
