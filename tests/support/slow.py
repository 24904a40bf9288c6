"""Clients that take their time: many connections that say a byte now and then, or nothing."""

from __future__ import annotations

import contextlib
import itertools
import resource
import socket
import threading
import time
from types import TracebackType
from typing import Self


class SlowClients:
    """Connections that each send something, and then a byte at every pause, for as long as they are let.

    Args:
        port: On 127.0.0.1.
        count: How many.
        first: What each sends at once.
        drip: What each then sends byte by byte, over and over; nothing by default.
        pause: Seconds between two bytes.
        reads: Whether they look at what they are answered.
    """

    def __init__(
        self, port: int, count: int, first: bytes = b"", drip: bytes = b"", pause: float = 0.1, *, reads: bool = True
    ) -> None:
        self.answers: dict[socket.socket, bytes] = {}
        self.ended: dict[socket.socket, float] = {}
        self._drip, self._pause, self._reads = drip, pause, reads
        self._over = threading.Event()
        self.began = time.monotonic()
        for _ in range(count):
            each = socket.create_connection(("127.0.0.1", port), timeout=30)
            self.answers[each] = b""
            with contextlib.suppress(OSError):  # a refused one is told at once
                each.sendall(first)
            each.setblocking(False)
        self._thread = threading.Thread(target=self._go_on, name="slow clients")
        self._thread.start()

    @property
    def open(self) -> int:
        """How many have not been closed by the server."""
        return len(self.answers) - len(self.ended)

    @property
    def longest(self) -> float:
        """After how many seconds the last one was closed."""
        return max(self.ended.values()) - self.began

    def _go_on(self) -> None:
        for place in itertools.count():
            if self._over.wait(self._pause):
                return
            byte = self._drip[place % len(self._drip) :][:1] if self._drip else b""
            for each in [one for one in self.answers if one not in self.ended]:
                if not self._is_open(each, byte):
                    self.ended[each] = time.monotonic()

    def _is_open(self, each: socket.socket, byte: bytes) -> bool:
        try:
            if byte:
                with contextlib.suppress(BlockingIOError):
                    each.send(byte)
            if self._reads:
                answer = each.recv(65536)
                self.answers[each] += answer
                return bool(answer)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Hang up."""
        self._over.set()
        self._thread.join()
        for each in self.answers:
            each.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def raise_file_limit(wanted: int = 4096) -> None:
    """Let this process have so many connections, if the system lets it.

    Args:
        wanted: How many files.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
