"""The lease of a batch that the relay took in the step that settled the one before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from carpark.errors import SummaryRefused
from carpark.records import forget_memory
from carpark.settings import Settings
from tests.unit.backend.test_relay import RECORDS, Desk


def test_it_counts_from_when_it_was_asked_for(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(make_settings())
    seconds = [0.0]
    monkeypatch.setattr("carpark.backend.relay.time.monotonic", lambda: seconds[0])
    settle_and_take = desk.outbox.settle_and_take

    def slowly(*arguments: Any) -> Any:
        answer = settle_and_take(*arguments)
        seconds[0] += 60  # the process was frozen before it read the answer
        return answer

    monkeypatch.setattr(desk.outbox, "settle_and_take", slowly)
    desk.sink.batch = 10
    desk.sink.error, desk.sink.poison = SummaryRefused("one of these"), {"17"}
    desk.record(*(f"{number}" for number in range(20)))
    desk.turns(2, every=0)
    forget_memory(RECORDS)
    assert desk.sink.calls[1] == [f"{number}" for number in range(10, 20)]
    assert desk.sink.calls[2:] == [["10"]], "no further one is begun, the lease is over"
