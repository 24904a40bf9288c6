"""Both places where records can be kept, for tests that must come to the same in each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from carpark.records import Records, connect, forget_memory

STORES = ["memory", pytest.param("redis", marks=pytest.mark.servers)]
"""Parameters of a fixture that yields from `open_store`."""


def open_store(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    """Open the store that the fixture's parameter names, empty.

    Args:
        request: Of a fixture with `STORES` as its parameters.

    Yields:
        A client of it.
    """
    url = "memory://records" if request.param == "memory" else request.getfixturevalue("redis_url")
    client = connect(url)
    yield client
    client.close()
    forget_memory(url)


def undelivered(client: redis.Redis) -> int:
    """Count what is in the outboxes.

    Args:
        client: A client of the records' database.

    Returns:
        How many summaries a sink has not taken, once for each such sink.
    """
    return Records(client, 1, ()).undelivered()
