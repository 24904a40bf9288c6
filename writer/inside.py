"""How many vehicles are inside, asked of Redis without ever making the page wait for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from carpark.records import Records, open_records

FRESH = 3.0
"""Seconds that an answer, or the lack of one, is good for."""

PATIENCE = 0.25
"""Seconds that a caller waits at most."""


class InsideCount:
    """Counts the set of plates that are inside."""

    def __init__(self, ask: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._ask, self._clock = ask, clock
        self._lock = threading.Lock()
        self._answer: int | None = None
        self._until = float("-inf")
        self._asking: threading.Event | None = None

    def __call__(self) -> int | None:
        """Say how many vehicles are inside."""
        with self._lock:
            if self._clock() < self._until:
                return self._answer
            if self._asking is None:
                self._asking = threading.Event()
                threading.Thread(target=self._renew, args=(self._asking,), name="inside", daemon=True).start()
            asking = self._asking
        asking.wait(PATIENCE)
        with self._lock:
            return self._answer if self._clock() < self._until else None

    def _renew(self, asking: threading.Event) -> None:
        try:
            answer = self._ask()
        except Exception:  # whatever is wrong with Redis, the page shows a dash
            answer = None
        with self._lock:
            self._answer, self._until, self._asking = answer, self._clock() + FRESH, None
        asking.set()


def inside_of_redis(url: str) -> InsideCount | None:
    """Make a count of the records in Redis."""
    if url.startswith("memory:"):
        return None

    return InsideCount(_Asker(url))


class _Asker:
    def __init__(self, url: str) -> None:
        self._url = url
        self._records: Records | None = None

    def __call__(self) -> int:
        # Loaded by the first page that is looked at: redis is a good part of the writer's memory and of its start.
        if self._records is None:
            self._records = open_records(self._url, 1, attempts=0, timeout=1.0)
        return self._records.inside()
