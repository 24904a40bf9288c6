"""The records under test: in this process and on a real Redis, with a clock that the test sets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from carpark.records import Records
from tests.support.stores import Clock, MemoryStore, RedisStore, Store


@pytest.fixture
def redis_store(redis_url: str) -> Iterator[RedisStore]:
    store = RedisStore(redis_url)
    yield store
    store.close()


@pytest.fixture
def memory_store() -> Iterator[MemoryStore]:
    store = MemoryStore()
    yield store
    store.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def records(store: Store, clock: Clock) -> Records:
    return store.open(clock=clock)
