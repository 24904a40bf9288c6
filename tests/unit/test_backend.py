"""What the backend does while a server is away."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from carpark.backend import Backend
from carpark.broker import StubBroker
from carpark.errors import RecordsUnavailable
from carpark.plugins import Plugins
from carpark.settings import Settings
from tests.stays import entered, exited


@pytest.mark.parametrize(("retries", "queued", "dead"), [(20, 1, 0), (0, 0, 1)])
def test_while_the_records_are_away_nothing_is_queued_or_given_up_twice(
    make_settings: Callable[..., Settings], free_port: int, retries: int, queued: int, dead: int
) -> None:
    nobody = {"writer_url": f"http://127.0.0.1:{free_port}", "sink_retries": retries}
    backend = Backend(make_settings(redis_url=f"memory://{uuid.uuid4()}", **nobody), Plugins(()))
    settle, away = backend.records.settle, [True, True, True]

    def settle_later(*arguments: Any) -> int:
        if away:
            away.pop()
            raise RecordsUnavailable("away")
        return settle(*arguments)

    backend.records.settle = settle_later  # type: ignore[method-assign]
    backend.process(entered("1", "A"))
    backend.process(exited("2", "A"))
    assert isinstance(backend.broker, StubBroker)
    counts = backend.broker.counts("vehicle_exit")
    assert (away, counts["delayed"], counts["dead"]) == ([], queued, dead)
    assert backend.records.counts()[f"summaries/http-csv/{'failed' if dead else 'retried'}"] == 1
    backend.close()
