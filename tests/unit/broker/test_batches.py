"""Batches: who joins, who leaves, and what becomes of one that fails."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import dramatiq
import pytest
from dramatiq.errors import ConnectionClosed, Retry

from carpark.backend.processing import Backend
from carpark.broker import StubBroker, stub
from carpark.broker.batches import EventBatch
from carpark.broker.dispatch import Dispatcher
from carpark.broker.reading import read_body
from carpark.broker.stub import ReceivedMessage, StoredMessage
from carpark.domain.events import Event
from carpark.errors import RecordsUnavailable
from carpark.plugins import Plugins
from carpark.records import Recorded
from carpark.settings import Settings
from tests.support.garbage import bare
from tests.support.helpers import eventually


def entry(number: int) -> ReceivedMessage:
    body = bare(id=str(number))
    return ReceivedMessage(read_body("vehicle_entry", body), StoredMessage(body))


def test_a_batch_of_one_looks_like_its_event_and_a_larger_one_says_how_many() -> None:
    batch = EventBatch(entry(7), 10)
    assert str(batch) == str(entry(7))
    batch.join(entry(8))
    assert str(batch) == "vehicle_entry(2 events)"


def test_a_batch_has_no_more_than_half_a_mebibyte_and_one_event() -> None:
    dispatcher = Dispatcher(100)
    for number in range(40):
        body = bare(id=str(number), note="x" * 64_000)
        dispatcher.add(ReceivedMessage(read_body("vehicle_entry", body), StoredMessage(body)))
    sizes = []
    while (batch := dispatcher.take()) is not None:
        assert isinstance(batch, EventBatch)
        sizes.append(len(batch.parts))
        assert sum(len(part.body) for part in batch.parts) <= 512 * 1024 + 65_536
        dispatcher.done(batch)
    assert sizes == [9, 9, 9, 9, 4]


def test_every_event_joins_exactly_one_batch_while_a_worker_closes_them() -> None:
    dispatcher, done = Dispatcher(10), threading.Event()
    taken: list[str] = []

    def work() -> None:
        is_last = False
        while not is_last:
            is_last = done.is_set()
            while (batch := dispatcher.take()) is not None:
                taken.extend(event.id for event in batch.args)
                dispatcher.done(batch)

    worker = threading.Thread(target=work)
    worker.start()
    for number in range(2_000):
        dispatcher.add(entry(number))
    done.set()
    worker.join()
    assert taken == [str(number) for number in range(2_000)]


class Running:
    """A backend on the in-process broker, its one thread held up by the first event until all others have arrived."""

    def __init__(self, settings: Settings, bodies: list[bytes]) -> None:
        self.batch = settings.batch
        self.effects: list[Recorded] = []
        self.calls: list[list[str]] = []
        self.problem: Callable[[Event], None] = lambda event: None
        self.backend = Backend(settings, Plugins(()), self.effects.append)
        assert isinstance(self.backend.broker, StubBroker)
        self.broker = self.backend.broker
        self._record = self.backend.records.record_entries
        self.backend.records.record_entries = self._held  # type: ignore[method-assign]
        for body in bodies:
            self.broker.publish("vehicle_entry", body)
        self._worker = dramatiq.Worker(self.broker, worker_timeout=50, worker_threads=1)

    def _held(self, events: Sequence[Event], partition: int) -> list[Recorded]:
        if self.batch > 1:
            eventually(lambda: self.broker.queues["vehicle_entry"].qsize() == 0)
        self.calls.append([event.id for event in events])
        for event in events:
            self.problem(event)
        return self._record(events, partition)

    def finish(self, effects: int) -> dict[str, int]:
        self._worker.start()
        eventually(lambda: len(self.effects) == effects)
        eventually(lambda: not self.broker.counts("vehicle_entry")["unacked"])
        self._worker.stop()
        return self.broker.counts("vehicle_entry")

    @property
    def order(self) -> list[str]:
        """The events in the order in which they were first tried."""
        return list(dict.fromkeys(id_ for call in self.calls for id_ in call))

    @property
    def sizes(self) -> list[int]:
        return [len(call) for call in self.calls]


@pytest.fixture
def run(
    make_settings: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Running]:
    monkeypatch.setenv("CARPARK_SINK_JSONL", str(tmp_path / "stays.jsonl"))

    def make(bodies: list[bytes], **settings: object) -> Running:
        store = f"memory://{uuid.uuid4()}"
        return Running(make_settings(**{"sinks": "jsonl", "redis_url": store, **settings}), bodies)

    return make


def entries(count: int) -> list[bytes]:
    return [bare(id=str(number), vehicle_plate=f"P{number}") for number in range(count)]


def test_what_arrived_while_the_workers_were_busy_is_worked_on_together(run: Callable[..., Running]) -> None:
    running = run(entries(120), batch=50)
    assert running.finish(120)["dead"] == 0
    assert sum(running.sizes) == 120
    assert max(running.sizes) == 50
    assert [effect.outcome for effect in running.effects] == ["recorded"] * 120


def test_with_a_batch_of_1_each_event_is_worked_on_alone(run: Callable[..., Running]) -> None:
    running = run(entries(20), batch=1)
    running.finish(20)
    assert running.sizes == [1] * 20


def test_garbage_among_a_batch_is_dead_lettered_alone(run: Callable[..., Running]) -> None:
    running = run([*entries(10), b"garbage", *entries(20)[10:]])
    assert running.finish(20)["dead"] == 1
    assert [letter.body for letter in running.broker.dead["vehicle_entry"]] == [b"garbage"]
    assert len(running.effects) == 20
    assert running.backend.records.counts()["entry/rejected"] == 1


def test_an_event_that_the_records_refuse_leaves_the_batch(run: Callable[..., Running]) -> None:
    bodies = entries(20)
    running = run(bodies)
    record = running._record

    def refuse(entries: Sequence[Event], partition: int) -> list[Recorded]:
        there = iter(record([entry for entry in entries if entry.id != "7"], partition))
        return [Recorded("entry/7", None, error="WRONGTYPE") if each.id == "7" else next(there) for each in entries]

    running._record = refuse
    assert running.finish(19)["dead"] == 1
    [letter] = running.broker.dead["vehicle_entry"]
    assert letter.body == bodies[7]
    assert "WRONGTYPE" in letter.headers["x-carpark-error"]
    assert len(running.effects) == 19, "the others are done, once"
    assert running.order == [*map(str, range(20))], "it was tried alone before any that came behind its batch"
    assert ["7"] in running.calls
    assert running.backend.records.counts()["entry/recorded"] == 19


def test_after_an_error_nobody_expected_each_event_is_worked_on_alone_and_in_its_place(
    run: Callable[..., Running],
) -> None:
    def explode(event: Event) -> None:
        if event.id == "7":
            raise ZeroDivisionError("this one")

    running = run(entries(40), batch=15)
    running.problem = explode
    assert running.finish(39)["dead"] == 1
    [letter] = running.broker.dead["vehicle_entry"]
    assert letter.headers["x-carpark-error"] == "ZeroDivisionError: this one"
    assert [effect.key for effect in running.effects] == [f"entry/{n}" for n in range(40) if n != 7]
    assert sorted(running.sizes)[-1] > 1, "there was a batch"


@pytest.mark.parametrize("error", [Retry("stop"), RecordsUnavailable("away"), ConnectionClosed("gone")])
def test_events_that_are_not_at_fault_stay_in_their_queue_and_are_delivered_again_in_their_order(
    run: Callable[..., Running], error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stub, "RESTARTED_AFTER", 0.1)
    away = [True]

    def refuse(event: Event) -> None:
        if event.id == "17" and away:
            away.clear()
            raise error

    running = run([*entries(30), b"garbage", *entries(40)[30:]], batch=10)
    running.problem = refuse
    assert running.finish(40)["dead"] == 1
    assert [effect.key for effect in running.effects] == [f"entry/{n}" for n in range(40)], "each once, in order"
    failed = next(call for call in running.calls if "17" in call)
    behind = running.calls[running.calls.index(failed) + 1]
    assert behind[0] == failed[0], "nothing behind it was handed out"
    assert running.broker.counts("vehicle_entry") == {"ready": 0, "unacked": 0, "delayed": 0, "dead": 1}
