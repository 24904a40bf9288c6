"""Dispatchers: one message at a time, in the queue's order, whatever joins, fails, is left, or begins anew."""

from __future__ import annotations

import threading
from typing import Any

import dramatiq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carpark.broker import StubBroker, dispatch
from carpark.broker.batches import EventBatch, parts_of
from carpark.broker.dispatch import Dispatcher, Dispatchers
from carpark.broker.reading import read_body
from carpark.broker.stub import ReceivedMessage, StoredMessage
from carpark.domain.routing import event_queues
from tests.support.garbage import bare


def delivery(body: bytes) -> ReceivedMessage:
    return ReceivedMessage(read_body("vehicle_entry", body), StoredMessage(body))


def entry(number: int) -> ReceivedMessage:
    return delivery(bare(id=str(number)))


def ids(message: Any) -> list[int]:
    return [int(event.id) for event in message.args]


def filled(most: int, count: int, first: int = 0) -> Dispatcher:
    dispatcher = Dispatcher(most)
    for number in range(first, first + count):
        dispatcher.add(entry(number))
    return dispatcher


def test_the_next_batch_is_taken_when_the_one_before_it_is_done() -> None:
    dispatcher = filled(3, 1)
    first = dispatcher.take()
    assert isinstance(first, EventBatch)
    assert dispatcher.take() is None
    dispatcher.add(entry(1))
    assert ids(first) == [0, 1], "while no worker has begun, it grows"
    for number in range(2, 6):
        dispatcher.add(entry(number))
    assert dispatcher.take() is None
    dispatcher.done(first)
    second = dispatcher.take()
    assert ids(second) == [2, 3, 4]
    dispatcher.done(first)
    assert dispatcher.take() is None, "only what is in hand can be done"
    assert second is not None
    dispatcher.done(second)
    assert ids(dispatcher.take()) == [5]


def test_garbage_goes_alone_and_what_comes_behind_it_may_still_join() -> None:
    dispatcher = filled(10, 1)
    dispatcher.add(garbage := delivery(b"?"))
    dispatcher.add(entry(1))
    batch = dispatcher.take()
    assert batch is not None
    assert ids(batch) == [0, 1]
    dispatcher.done(batch)
    assert dispatcher.take() is garbage


def test_with_batches_of_one_every_message_is_itself() -> None:
    dispatcher = Dispatcher(1)
    dispatcher.add(single := entry(0))
    dispatcher.add(entry(1))
    assert dispatcher.take() is single
    assert parts_of(single) == [single]


def test_what_is_worked_on_again_comes_before_all_others() -> None:
    dispatcher = filled(3, 6)
    batch = dispatcher.take()
    assert isinstance(batch, EventBatch)
    assert ids(batch) == [0, 1, 2]
    dispatcher.add_first(batch.leave([0, 2]))
    dispatcher.done(batch)
    order = []
    while (message := dispatcher.take()) is not None:
        order.append(ids(message))
        dispatcher.done(message)
    assert order == [[0], [2], [3, 4, 5]]


def test_a_halted_lane_hands_out_nothing_before_it_begins_anew() -> None:
    dispatcher = filled(2, 4)
    left = dispatcher.take()
    assert left is not None
    dispatcher.halt()
    dispatcher.done(left)
    dispatcher.add(entry(4))
    assert dispatcher.take() is None
    dispatcher.restart()
    assert dispatcher.take() is None
    dispatcher.add(entry(0))
    assert ids(dispatcher.take()) == [0]


def test_what_was_left_halts_no_lane_that_began_anew_meanwhile() -> None:
    dispatcher = filled(2, 4)
    left: Any = dispatcher.take()
    dispatcher.restart()
    dispatcher.halt(left.parts[0].number)
    dispatcher.done(left)
    dispatcher.add(entry(0))
    assert ids(dispatcher.take()) == [0], "it was delivered again"
    dispatcher.halt(dispatcher.count)
    assert dispatcher.is_halted


def test_a_halted_lane_lets_nothing_be_worked_on_again_nor_a_batch_be_held() -> None:
    both = Dispatchers(3)
    both.before_worker_boot(None, Handed())  # type: ignore[arg-type]
    dispatcher = both.of("vehicle_entry")
    for number in range(3):
        dispatcher.add(entry(number))
    batch: Any = dispatcher.take()
    assert batch is not None
    batch.is_held = True
    both.after_ack(None, batch)
    assert not dispatcher.is_idle, "it is held, and will be tried again"
    dispatcher.halt()
    assert not dispatcher.is_idle
    dispatcher.add_first(batch.leave([1]))
    both.after_ack(None, batch)
    assert dispatcher.is_idle
    assert dispatcher.take() is None


def test_what_was_in_hand_before_it_began_anew_is_finished_first_and_nothing_joins_it() -> None:
    dispatcher = filled(10, 1)
    before = dispatcher.take()
    assert before is not None
    dispatcher.restart()
    dispatcher.add(entry(0))
    assert dispatcher.take() is None
    assert ids(before) == [0]
    dispatcher.done(before)
    assert ids(dispatcher.take()) == [0]


class Handed:
    """Stands for a worker: remembers what its consumer threads were handed."""

    def __init__(self) -> None:
        self.consumers = {"vehicle_entry": self}
        self.handed: list[Any] = []

    def handle_message(self, message: Any) -> None:
        self.handed.append(message)


def test_the_worker_is_handed_the_next_as_soon_as_one_is_done_and_nothing_of_other_queues() -> None:
    both, worker = Dispatchers(1), Handed()
    both.before_worker_boot(None, worker)  # type: ignore[arg-type]
    dispatcher = both.of("vehicle_entry")
    assert both.of("vehicle_entry") is dispatcher
    messages = [entry(number) for number in range(3)]
    for message in messages:
        dispatcher.add(message)
    assert dispatcher.take() is messages[0]
    both.after_ack(None, messages[0])
    both.after_nack(None, messages[1])
    both.after_ack(None, messages[2])
    assert worker.handed == messages[1:]
    both.after_ack(None, ReceivedMessage(read_body("vehicle_exit", b""), StoredMessage(b"")))


STEPS = ["add", "garbage", "take", "done", "apart", "left", "given back"]


@given(st.integers(1, 5), st.lists(st.sampled_from(STEPS), max_size=60))
def test_every_run_of_a_queue_is_in_order_and_no_first_effect_ever_out_of_it(most: int, steps: list[str]) -> None:
    """A queue that forgets what is done, as RabbitMQ does, and a worker that has one message at a time."""
    dispatcher = Dispatcher(most)
    queue: list[ReceivedMessage] = []
    sent = 0
    hand: Any = None
    effects: list[ReceivedMessage] = []

    def finish(step: str) -> None:
        nonlocal hand
        if step in ("left", "given back"):
            dispatcher.halt()
            done = parts_of(hand) if step == "given back" else []
            effects.extend(part for part in done if part not in effects)
            dispatcher.done(hand)
            dispatcher.restart()
            for each in queue[:sent]:
                dispatcher.add(each)
        elif step == "apart" and isinstance(hand, EventBatch) and len(hand.args) > 1:
            dispatcher.add_first(hand.leave(range(len(hand.parts))))
            dispatcher.done(hand)
        else:
            _ = hand.args
            effects.extend(part for part in parts_of(hand) if part not in effects)
            dispatcher.done(hand)
        hand = None

    for step in steps:
        if step in ("add", "garbage"):
            queue.append(entry(len(queue)) if step == "add" else delivery(b"?"))
            sent = len(queue)
            dispatcher.add(queue[-1])
        elif step == "take":
            hand = hand or dispatcher.take()
        elif hand is not None:
            finish(step)
    while (hand := hand or dispatcher.take()) is not None:
        finish("done")
    events = [each for each in queue if not each.failed]
    assert [each for each in effects if not each.failed] == events
    assert len(effects) == len(queue)


def test_a_process_gives_one_queue_back_when_it_has_more_than_its_share_and_no_second_one_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both = Dispatchers()
    entries, exits = both.of("vehicle_entry"), both.of("vehicle_exit")
    entries.add(entry(0))
    assert not both.is_one_too_many(2), "it works on one of two"
    exits.add(entry(0))
    assert not both.is_one_too_many(1), "nobody else is there"
    assert both.is_one_too_many(2)
    assert not both.is_one_too_many(2), "not again at once"
    monkeypatch.setattr(dispatch, "GIVEN_BACK_EVERY", 0)
    assert both.is_one_too_many(3)
    exits.restart()
    assert not both.is_one_too_many(3)


def test_a_process_may_look_at_its_share_while_it_still_begins_to_consume_others() -> None:
    every = Dispatchers()

    class Slow(Dispatcher):
        @property
        def is_halted(self) -> bool:
            every.of("vehicle_exit")  # as the thread of another consumer does
            return super().is_halted

    every._dispatchers["vehicle_entry"] = Slow(1)
    every.of("vehicle_entry").add(entry(0))
    assert not every.is_one_too_many(2)


def test_the_surplus_is_given_back_in_half_a_minute_however_many_queues_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(dispatch.time, "monotonic", lambda: now[0])
    for partitions in (1, 4, 64):
        every = Dispatchers()
        active = [every.of(queue) for queue in event_queues(partitions)]
        for dispatcher in active:
            dispatcher.add(entry(0))
        started = now[0]
        while any(dispatcher.is_active for dispatcher in active[partitions:]):
            if every.is_one_too_many(2):
                next(dispatcher for dispatcher in reversed(active) if dispatcher.is_active).restart()
            else:
                now[0] += 0.01
            assert now[0] - started < 31
        assert sum(dispatcher.is_active for dispatcher in active) == partitions
        now[0] += 100


def test_no_queue_ever_has_two_threads_of_the_worker() -> None:
    """Four threads, two queues, the actor holds on: at no time are two of its calls for one queue."""
    broker = StubBroker([], batch=5)
    running: dict[str, int] = {"vehicle_entry": 0, "vehicle_exit": 0}
    order: dict[str, list[str]] = {"vehicle_entry": [], "vehicle_exit": []}
    twice: list[str] = []
    lock = threading.Lock()

    def declare(queue: str) -> None:
        def work(*events: Any) -> None:
            with lock:
                running[queue] += 1
                if running[queue] > 1:
                    twice.append(queue)
            order[queue] += [event.id for event in events]
            with lock:
                running[queue] -= 1

        dramatiq.actor(broker=broker, actor_name=queue, queue_name=queue)(work)

    for queue in running:
        declare(queue)
        for number in range(500):
            time = {"exit_date_time": "2026-11-23T18:00:00Z"} if queue == "vehicle_exit" else {}
            broker.publish(queue, bare(id=str(number), **time))
    worker = dramatiq.Worker(broker, worker_timeout=50, worker_threads=4)
    worker.start()
    for queue in running:
        broker.join(queue, timeout=30_000)
    worker.stop()
    assert twice == []
    for queue in running:
        assert order[queue] == [str(number) for number in range(500)]
