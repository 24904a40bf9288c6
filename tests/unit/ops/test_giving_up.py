"""Giving up what waits for a sink that no worker has, through records in this process: kills, leases, workers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from dramatiq.message import Message

from carpark.ops.dashboard.giving_up import BATCH, LEASE, give_up
from carpark.records import Batch, Outbox, Settlement, forget_memory, open_records
from tests.support.audited import stay

URL = "memory://giving-up"
COUNT = 2 * BATCH + 50


class Killed(BaseException):
    """Stands for a SIGKILL: nothing behind it is done."""


class Post:
    """Keeps dead letters, and is killed after some."""

    def __init__(self, most: int = 10**9) -> None:
        self.ids: list[str] = []
        self.most = most

    def __call__(self, message: Message[Any], why: str) -> None:
        if len(self.ids) == self.most:
            raise Killed
        assert "no worker has it" in why
        self.ids.append(message.message_id)


class Clock:
    """The records' clock."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()

    def sleep(seconds: float) -> None:
        clock.now += seconds

    monkeypatch.setattr("carpark.ops.dashboard.giving_up.time.sleep", sleep)
    return clock


@pytest.fixture
def outbox(clock: Clock) -> Iterator[Outbox]:
    records = open_records(URL, 3600, ["webhook"], clock)
    records.record([event for number in range(COUNT) for event in stay(number)])
    yield records.outbox("webhook")
    records.close()
    forget_memory(URL)


def ids_of(numbers: range) -> list[str]:
    return [f"webhook/x{number}" for number in numbers]


def test_each_summary_has_one_dead_letter_and_is_marked_after_it(outbox: Outbox) -> None:
    post, marked = Post(), []
    for count in give_up(outbox, "webhook", post):
        backlog = outbox.backlog()
        assert backlog.dead == len(post.ids)
        assert backlog.waiting + backlog.dead == COUNT
        marked.append(count)
    assert marked == [BATCH, BATCH, COUNT - 2 * BATCH]
    assert post.ids == ids_of(range(COUNT))
    assert outbox.backlog().asked is None, "who gives up is no worker"


@pytest.mark.parametrize("most", [0, 1, BATCH - 1, BATCH, BATCH + 1, COUNT - 1])
def test_killed_at_any_letter_it_goes_on_and_none_is_without_one(outbox: Outbox, clock: Clock, most: int) -> None:
    first, second = Post(most), Post()
    with pytest.raises(Killed):
        list(give_up(outbox, "webhook", first))
    assert outbox.backlog().dead <= most, "none is marked before its dead letter is there"
    started = clock.now
    list(give_up(outbox, "webhook", second))
    assert clock.now - started <= LEASE + 1
    assert sorted({*first.ids, *second.ids}) == sorted(ids_of(range(COUNT)))
    assert len(first.ids) + len(second.ids) - COUNT < BATCH
    assert (outbox.backlog().waiting, outbox.backlog().dead) == (0, COUNT)


def test_what_a_worker_left_in_a_batch_or_to_wait_alone_is_given_up_too(outbox: Outbox, clock: Clock) -> None:
    batch = outbox.take(5)
    assert isinstance(batch, Batch)
    alone = {summary.id: 300.0 for summary in batch.summaries[:3]}
    outbox.settle(batch, Settlement(alone=alone, error="no", delay=60))
    outbox.take(5)
    assert outbox.backlog().has_worker
    assert list(give_up(outbox, "webhook", Post(0))) == []
    clock.now += 60
    assert isinstance(outbox.take(5), Batch)
    clock.now += 40
    assert outbox.backlog().is_stranded
    post = Post()
    assert sum(give_up(outbox, "webhook", post)) == COUNT
    assert sorted(post.ids) == sorted(ids_of(range(COUNT)))


def test_a_worker_that_comes_with_the_sink_ends_it(outbox: Outbox, clock: Clock) -> None:
    post = Post()
    going = give_up(outbox, "webhook", post)
    assert next(going) == BATCH
    outbox.take(5)
    assert list(going) == []
    assert (outbox.backlog().waiting, outbox.backlog().dead) == (COUNT - BATCH, BATCH)


def test_a_sink_has_a_worker_as_long_as_it_has_its_summaries_in_hand(outbox: Outbox, clock: Clock) -> None:
    assert not outbox.backlog().has_worker
    assert isinstance(outbox.take(120), Batch)
    clock.now += 140
    assert outbox.backlog().has_worker, "a call that takes long"
    clock.now += 11
    assert outbox.backlog().is_stranded
