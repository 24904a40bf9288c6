"""Time, passed in: the machine's, or one that a test moves by hand."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

from carpark.domain.events import format_time

_TICK = timedelta(microseconds=1)
_END = datetime.max.replace(tzinfo=UTC)


class Clock:
    """The machine's time. Subclass it to play a day in a second."""

    def now(self) -> datetime:
        """Tell the time of day."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Tell a time that never jumps."""
        return time.monotonic()

    def wait(self, seconds: float, stop: threading.Event) -> None:
        """Let time pass."""
        stop.wait(seconds)


class Stamps:
    """The times that events carry: from the clock, but each later than the one before, even if the clock is set back.

    Cameras that share a lot in one process share their stamps too: a vehicle then leaves strictly after it entered and
    enters again strictly after it left.
    """

    def __init__(self, clock: Clock, after: str | None = None) -> None:
        self._clock = clock
        self._last = datetime.fromisoformat(after) if after else None

    def stamp(self) -> str:
        """Take the next time."""
        now = self._clock.now()
        if self._last is not None and now <= self._last:
            now = self._last + _TICK if self._last < _END else _END
        self._last = now
        return format_time(now)
