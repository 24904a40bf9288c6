"""A worker process that keeps the page of metrics shown, and the moment at which all of Dramatiq ends."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from carpark.backend import prometheus
from carpark.telemetry import folder

MASTER = 7


@pytest.fixture
def keep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[float], int]]:
    """Have a keeper look at a time, in seconds; give how many pages it has started by then."""
    locks: dict[Path, tuple[int, bool]] = {}
    monkeypatch.setattr(folder, "_held", locks)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    now, started = [0.0], list[Any]()
    monkeypatch.setattr(prometheus, "time", SimpleNamespace(monotonic=lambda: now[0]))
    process = SimpleNamespace(poll=lambda: 0)
    pretend = SimpleNamespace(PIPE=None, Popen=lambda command, **_: started.append(command) or process)
    monkeypatch.setattr(prometheus, "subprocess", pretend)
    keeper = prometheus._Keeper()

    def look(at: float) -> int:
        now[0] = at
        keeper._keep_page(MASTER)
        return len(started)

    yield look
    if keeper._page:
        keeper._page.close()
    for lock, _ in locks.values():
        os.close(lock)


def test_a_page_that_ended_a_moment_ago_is_not_started_again_because_all_may_end(keep: Callable[[float], int]) -> None:
    held = folder.hold_page(folder.enter(MASTER)[0])
    assert held
    assert keep(1.0) == 0
    held.close()
    assert [keep(at) for at in (1.0, 2.0, 3.9)] == [0, 0, 0]
    assert keep(4.0) == 1
