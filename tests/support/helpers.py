"""Small things that many tests need."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Linux gives connections their own ends above these: one of them could take a port before the server that it is for.
# Each of pytest-xdist's processes, gw0, gw1, has others: two could find the same port before one of them uses it.
_PORTS = range(10_000, 32_768)[int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 8 :: 8]
_CHANCE = random.SystemRandom()
_given: set[int] = set()


def eventually(predicate: Callable[[], T], timeout: float = 10.0, what: str = "", interval: float = 0.05) -> T:
    """Ask again and again until the answer is true.

    An AssertionError of the predicate counts as "not yet", so it may assert; the last one is shown at the deadline.

    Args:
        predicate: The question.
        timeout: Seconds until it has to be true.
        what: What is waited for, for the failure's text.
        interval: Seconds between two questions.

    Returns:
        The first true answer.

    Raises:
        AssertionError: It has not become true in time.
    """
    deadline = time.monotonic() + timeout
    while True:
        reason: BaseException | None = None
        answer = None
        try:
            answer = predicate()
            if answer:
                return answer
        except AssertionError as error:
            reason = error
        if time.monotonic() >= deadline:
            asked = what or getattr(predicate, "__qualname__", "the predicate")
            raise AssertionError(f"not within {timeout:g} s: {asked}; last answer: {answer!r}") from reason
        time.sleep(interval)


def find_free_port() -> int:
    """Find a TCP port that nothing listens on.

    Returns:
        The port, free on 127.0.0.1 a moment ago, and given to nobody else in this process.

    Raises:
        AssertionError: There is none.
    """
    for port in _CHANCE.sample(_PORTS, 1000):
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port
    raise AssertionError(f"no free port among 1,000 of {_PORTS}")


def is_listening(port: int, host: str = "127.0.0.1") -> bool:
    """Try to connect.

    Args:
        port: The TCP port.
        host: The host's name or address.

    Returns:
        Whether something took the connection.
    """
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True
