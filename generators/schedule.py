"""When events are due: a steady rate that does not drift, whatever happens in between."""

from __future__ import annotations

import math

_MICRO = 1_000_000


class Schedule:
    """Due times of events number 0, 1, 2 …: each is ``start + number / rate``, never "the last one plus a pause".

    A generator that falls behind publishes late until it has caught up. Time spent waiting at the barrier, or for
    somebody to be inside, moves all later due times instead: nothing was due while nothing could happen.

    Due times are whole microseconds after the start, so that two cameras that started together agree on what is
    earlier, whatever the machine's clock showed then.
    """

    def __init__(self, rate: float, start: float) -> None:
        if not rate > 0:
            raise ValueError(f"a rate is greater than 0, not {rate}")
        self.rate = rate
        self._start = start
        self._shift = 0
        self._number = 0

    def __repr__(self) -> str:
        return f"Schedule({self.rate:g}/s)"

    @property
    def due(self) -> float:
        """When the next event is due, on the monotonic clock, in seconds."""
        return self._start + (self._shift + round(self._number * _MICRO / self.rate)) / _MICRO

    def advance(self) -> None:
        """Go on to the event after this one."""
        self._number += 1

    def shift(self, seconds: float) -> None:
        """Move this and all later events, because they could not happen yet."""
        self._shift += max(0, round(seconds * _MICRO))

    def overdue(self, now: float) -> int:
        """Count the events that should have happened and have not."""
        micros = round((now - self._start) * _MICRO) - self._shift
        return max(0, math.ceil(round(micros * self.rate / _MICRO, 6)) - self._number)
