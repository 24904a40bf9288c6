"""What the backend does while the records are away, and with what comes back on its own queue."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from dramatiq.errors import Retry

from carpark.backend.processing import Backend
from carpark.broker import StubBroker
from carpark.broker.dispatch import MustWait
from carpark.broker.reading import Marker
from carpark.domain.events import Event
from carpark.domain.routing import event_queues
from carpark.errors import RecordsUnavailable
from carpark.plugins import Plugins
from carpark.records import Batch, Recorded, Settlement
from carpark.settings import Settings
from tests.support.helpers import eventually
from tests.support.stays import entered, exited


@pytest.fixture
def backend(make_settings: Callable[..., Settings]) -> Iterator[Backend]:
    backend = Backend(make_settings(redis_url=f"memory://{uuid.uuid4()}"), Plugins(()))
    yield backend
    backend.close()


def test_records_that_are_away_are_waited_for_in_place_without_end(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, away = backend.records.record_entries, [True] * 30
    pauses: list[float] = []

    def record_later(events: Sequence[Event], partition: int) -> list[Recorded]:
        if away:
            away.pop()
            raise RecordsUnavailable("away")
        return record(events, partition)

    def wait(pause: float) -> bool:
        pauses.append(pause)
        return False

    monkeypatch.setattr(backend.records, "record_entries", record_later)
    monkeypatch.setattr(backend._stopping, "wait", wait)
    backend.process(entered("1", "A"))
    assert len(pauses) == 30
    assert sum(pauses) > 25
    assert backend.records.counts()["entry/recorded"] == 1


def test_exits_of_a_partition_wait_for_a_marker_in_its_own_queue_of_entries(
    make_settings: Callable[..., Settings],
) -> None:
    backend = Backend(make_settings(redis_url=f"memory://{uuid.uuid4()}", partitions=3), Plugins(()))
    assert isinstance(backend.broker, StubBroker)
    for partition in (2, 1):
        with pytest.raises(MustWait):
            backend.actors[f"vehicle_exit.{partition}"](exited(f"x{partition}", "A"))
    assert [len(backend.broker.messages(queue)) for queue in event_queues(3)] == [0, 1, 1, 0, 0, 0]
    marker = Marker(backend.broker.messages("vehicle_entry.2")[0].body.decode())
    for queue in ("vehicle_entry", "vehicle_entry.1"):
        backend.actors[queue](marker)
        with pytest.raises(MustWait):
            backend.actors["vehicle_exit.2"](exited("x2", "A"))
    backend.actors["vehicle_entry.2"](marker)
    backend.actors["vehicle_exit.2"](exited("x2", "A"))
    backend.close()


def test_at_a_stop_an_event_whose_records_are_away_is_left_in_its_queue(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()

    def away(*_: Any, **__: Any) -> list[Recorded]:
        asked.set()
        raise RecordsUnavailable("away")

    monkeypatch.setattr(backend.records, "record_exits", away)
    raised: list[BaseException] = []

    def process() -> None:
        try:
            backend.process(exited("1", "A"))
        except Retry as error:
            raised.append(error)

    thread = threading.Thread(target=process)
    thread.start()
    assert asked.wait(10)
    backend.stop()
    thread.join(10)
    assert len(raised) == 1


def test_only_a_summary_that_is_held_as_given_up_is_taken_back(backend: Backend) -> None:
    backend.process(entered("1", "A"))
    backend.process(exited("2", "A"))
    outbox = backend.records.outbox("http-csv")
    batch = eventually(lambda: outbox.take(0))
    assert isinstance(batch, Batch)
    [summary] = batch.summaries
    backend.take_back("http-csv", summary)
    assert outbox.backlog().waiting == 1, "it waits already: no second one"
    outbox.settle(batch, Settlement(dead=[summary.id]))
    backend.take_back("other", summary)
    assert (outbox.backlog().waiting, outbox.backlog().dead) == (0, 1)
    backend.take_back("http-csv", summary)
    backend.take_back("http-csv", summary)
    assert (outbox.backlog().waiting, outbox.backlog().dead) == (1, 0)
