"""Batches: who joins, who goes alone, who leaves."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import dramatiq
import pytest

from carpark.backend import Backend
from carpark.broker import StubBroker
from carpark.broker.batches import Batch, Folder, Turns, parts_of
from carpark.broker.reading import read_body
from carpark.broker.stub import Delivery, Letter
from carpark.events import Event
from carpark.plugins import Plugins
from carpark.records import Recorded
from carpark.settings import Settings
from tests.garbage import bare
from tests.helpers import eventually


def delivery(body: bytes) -> Delivery:
    return Delivery(read_body("vehicle_entry", body), Letter(body))


def entry(number: int) -> Delivery:
    return delivery(bare(id=str(number)))


def test_the_first_event_goes_at_once_and_those_behind_it_join() -> None:
    folder = Folder(3)
    first = folder.fold(entry(0))
    assert isinstance(first, Batch)
    assert [folder.fold(entry(number)) for number in (1, 2)] == [None, None]
    full = folder.fold(entry(3))
    assert isinstance(full, Batch), "the first one is full"
    assert [event.id for event in first.args] == ["0", "1", "2"]
    assert len(parts_of(full)) == 1


def test_batches_take_turns_and_one_that_waits_grows_and_what_is_no_batch_waits_for_none() -> None:
    broker = StubBroker([turns := Turns()])
    worker = dramatiq.Worker(broker, worker_threads=2)
    turns.before_worker_boot(broker, worker)
    folder = Folder(100)
    first, second = folder.fold(entry(0)), delivery(b"no batch")
    assert first is not None
    turns.before_process_message(broker, first)
    assert len(first.args) == 1
    turns.before_process_message(broker, second)
    turns.after_process_message(broker, second)
    waiting = folder.fold(entry(1))
    assert isinstance(waiting, Batch)
    thread = threading.Thread(target=turns.before_process_message, args=(broker, waiting), daemon=True)
    thread.start()
    assert folder.fold(entry(2)) is None, "it joins the one that waits"
    thread.join(0.05)
    assert thread.is_alive(), "it is the other one's turn"
    turns.after_process_message(broker, first, exception=RuntimeError())
    thread.join(10)
    assert not thread.is_alive()
    assert [event.id for event in waiting.args] == ["1", "2"]
    turns.after_skip_message(broker, waiting)
    turns.before_process_message(broker, first)


def test_nobody_joins_a_batch_that_is_worked_on() -> None:
    folder = Folder(100)
    first = folder.fold(entry(0))
    assert first is not None
    assert [event.id for event in first.args] == ["0"]
    assert isinstance(folder.fold(entry(1)), Batch)
    assert len(parts_of(first)) == 1


def test_garbage_goes_alone_and_open_batches_stay_open() -> None:
    folder = Folder(100)
    folder.fold(entry(0))
    garbage = delivery(b"?")
    assert folder.fold(garbage) is garbage
    assert folder.fold(entry(1)) is None


def test_with_batches_of_one_every_message_is_itself() -> None:
    single = entry(0)
    assert Folder(1).fold(single) is single
    assert parts_of(single) == [single]


def test_a_batch_of_one_looks_like_its_event_and_a_larger_one_says_how_many() -> None:
    batch = Batch(entry(7), 10)
    assert str(batch) == str(entry(7))
    batch.join(entry(8))
    assert str(batch) == "vehicle_entry(2 events)"


def test_every_event_joins_exactly_one_batch_while_workers_close_them() -> None:
    folder, batches, done = Folder(10), [], threading.Event()
    taken: list[str] = []

    def work() -> None:
        place = 0
        while not done.is_set() or place < len(batches):
            if place < len(batches):
                taken.extend(event.id for event in batches[place].args)
                place += 1

    worker = threading.Thread(target=work)
    worker.start()
    for number in range(2_000):
        if (opened := folder.fold(entry(number))) is not None:
            batches.append(opened)
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
        self._record = self.backend.records.record
        self.backend.records.record = self._held  # type: ignore[method-assign]
        for body in bodies:
            self.broker.publish("vehicle_entry", body)
        self._worker = dramatiq.Worker(self.broker, worker_timeout=50, worker_threads=1)

    def _held(self, events: Sequence[Event]) -> list[Recorded]:
        if self.batch > 1:
            eventually(lambda: self.broker.queues["vehicle_entry"].qsize() == 0)
        self.calls.append([event.id for event in events])
        for event in events:
            self.problem(event)
        return self._record(events)

    def finish(self, effects: int) -> dict[str, int]:
        self._worker.start()
        eventually(lambda: len(self.effects) == effects)
        eventually(lambda: not self.broker.counts("vehicle_entry")["unacked"])
        self._worker.stop()
        return self.broker.counts("vehicle_entry")

    @property
    def sizes(self) -> list[int]:
        return [len(call) for call in self.calls]


@pytest.fixture
def run(make_settings: Callable[..., Settings], tmp_path: Path) -> Callable[..., Running]:
    def make(bodies: list[bytes], **settings: object) -> Running:
        store = f"memory://{uuid.uuid4()}"
        more = {"sinks": "jsonl", "sink_jsonl": tmp_path / "stays.jsonl", "redis_url": store, **settings}
        return Running(make_settings(**more), bodies)

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
    running.backend.records._client.set("P7", "not a hash")
    assert running.finish(19)["dead"] == 1
    [letter] = running.broker.dead["vehicle_entry"]
    assert letter.body == bodies[7]
    assert "WRONGTYPE" in letter.headers["x-carpark-error"]
    assert len(running.effects) == 19, "the others are done, once"
    assert ["7"] in running.calls
    assert running.backend.records.counts()["entry/recorded"] == 19


def test_after_an_error_nobody_expected_each_event_is_worked_on_alone(run: Callable[..., Running]) -> None:
    def explode(event: Event) -> None:
        if event.id == "7":
            raise ZeroDivisionError("this one")

    running = run(entries(20))
    running.problem = explode
    assert running.finish(19)["dead"] == 1
    [letter] = running.broker.dead["vehicle_entry"]
    assert letter.headers["x-carpark-error"] == "ZeroDivisionError: this one"
    assert len(running.effects) == 19
    assert sorted(running.sizes)[-1] > 1, "there was a batch"
