"""The records under test: in this process and on a real Redis, with a clock that the test sets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from carpark.records import Records
from tests.support.stores import STORES, open_store

RETENTION = 100.0
SINKS = ("http-csv", "sqlite")


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1_764_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=STORES)
def client(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    yield from open_store(request)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def records(client: redis.Redis, clock: Clock) -> Records:
    return Records(client, RETENTION, SINKS, clock)
