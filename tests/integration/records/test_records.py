"""One contract, two implementations: what is promised is tried on each, case by case."""

from __future__ import annotations

import pytest

from tests.support.conformance.forget import ForgetConformance
from tests.support.conformance.join import JoinConformance
from tests.support.conformance.outbox import GateConformance, OutboxConformance
from tests.support.stores import MemoryStore, RedisStore, Store


class RecordsConformance(JoinConformance, OutboxConformance, GateConformance, ForgetConformance):
    """All that the contract promises of `store`."""


class TestMemory(RecordsConformance):
    @pytest.fixture
    def store(self, memory_store: MemoryStore) -> Store:
        return memory_store


@pytest.mark.servers
class TestRedis(RecordsConformance):
    @pytest.fixture
    def store(self, redis_store: RedisStore) -> Store:
        return redis_store
