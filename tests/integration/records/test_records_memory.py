"""The store in this process: one for all threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import fakeredis
import pytest

from carpark.records import connect, forget_memory

URL = "memory://threads"


def test_threads_that_come_first_at_once_share_one_database(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    both = threading.Barrier(2)

    class Server(fakeredis.FakeServer):
        """Makes databases so slowly that two threads can be at it."""

        def __init__(self) -> None:
            super().__init__()
            make: Callable[[], Any] = self.dbs.default_factory  # type: ignore[attr-defined]

            def slow() -> Any:
                database = make()
                made.append(database)
                if threading.current_thread() is not threading.main_thread():
                    both.wait(10)
                return database

            self.dbs.default_factory = slow  # type: ignore[attr-defined]

    monkeypatch.setattr(fakeredis, "FakeServer", Server)
    client = connect(URL)
    threads = [threading.Thread(target=client.incr, args=("n",)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.get("n") == "2"
    assert len(made) == 1
    client.close()
    forget_memory(URL)
