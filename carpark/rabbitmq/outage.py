"""What is said while RabbitMQ cannot be used, and how long to pause between two attempts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain, repeat

BACKOFF_SECONDS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Pauses while RabbitMQ cannot be used; the last one repeats."""

RABBITMQ = "RabbitMQ"


def backoff(*pauses: float) -> Iterator[float]:
    """Give the pauses between attempts, without end."""
    pauses = pauses or BACKOFF_SECONDS
    yield from chain(pauses, repeat(pauses[-1]))


class Outage:
    """Says in a line that RabbitMQ cannot be used, and in another that it can again, whichever threads notice it."""

    def __init__(self, say: Callable[[str], None], *, was_there: bool = False) -> None:
        self._say, self._lock = say, threading.Lock()
        self._waiting: set[str] = set()
        self._said: set[str] = set()
        self._since, self._what, self._was_there = 0.0, RABBITMQ, was_there

    def begin(self, line: str, news: str = "", what: str = RABBITMQ, who: str = "") -> None:
        """Hear that something cannot be done for now."""
        with self._lock:
            if not self._waiting:
                self._since, self._said = time.monotonic(), set()
            if not self._waiting or what == RABBITMQ:
                self._what = what
            self._waiting.add(who)
            if news not in self._said:
                self._said.add(news)
                self._say(line)

    def end(self, who: str = "") -> None:
        """Hear that it can be done."""
        with self._lock:
            if self._waiting == {who}:
                now = "back" if self._was_there and self._what == RABBITMQ else "there"
                self._say(f"{self._what} is {now} after {time.monotonic() - self._since:.1f} s")
            self._waiting.discard(who)
            self._was_there = self._was_there or not self._waiting
