"""Summaries on their way to sinks that take them, refuse them, fail, or never answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from dramatiq.errors import Retry
from dramatiq.message import Message

from carpark.delivery import Delivery
from carpark.errors import SinkUnavailable, SummaryRefused
from carpark.events import StaySummary
from carpark.metrics import Meter
from carpark.outlet import Parcel
from carpark.plugins import Sink
from carpark.records import Records, connect, forget_memory
from carpark.settings import Settings
from tests.helpers import eventually
from tests.stays import entered, exited

RECORDS = "memory://delivery"


class Shelf(Sink):
    """Takes summaries, unless the test says otherwise."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.error: Exception | None = None
        self.open = threading.Event()
        self.open.set()
        self.calls = 0

    def deliver(self, summaries: Sequence[StaySummary]) -> None:
        self.calls += 1
        assert self.open.wait(30)
        if self.error is not None:
            raise self.error
        self.ids += [summary.id for summary in summaries]


class Lists:
    """The queue of retries and the dead letters, as lists."""

    def __init__(self) -> None:
        self.queued: list[tuple[Message[Any], int]] = []
        self.dead: list[tuple[Message[Any], str]] = []

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        assert delay is not None
        self.queued.append((message, delay))
        return message

    def dead_letter(self, message: Message[Any], why: str) -> None:
        self.dead.append((message, why))


class Desk:
    """A delivery to the sinks ``bad``, which comes first, and ``good``."""

    def __init__(self, settings: Settings) -> None:
        self.bad, self.good, self.queue = Shelf(), Shelf(), Lists()
        sinks = {"bad": self.bad, "good": self.good}
        self.records = Records(connect(RECORDS), 100, tuple(sinks))
        self.delivery = Delivery(settings, sinks, self.queue, Meter(tuple(sinks)))

    def send(self, *ids: str) -> None:
        """Record stays and send their summaries to both."""
        effects = self.records.record([event for id_ in ids for event in (entered(id_, id_), exited(id_, id_))])
        parcels = [Parcel(effect.key, effect.summary) for effect in effects if effect.summary]
        self.delivery.send(self.records, {"bad": parcels, "good": parcels})

    def retry(self, retries: int = 0) -> None:
        """Work on the oldest retry, as one that had so many before."""
        message, _ = self.queue.queued.pop(0)
        self.delivery.send_again(self.records, message.copy(options={"retries": retries}))


@pytest.fixture
def make_desk(make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Desk]]:
    # A busy machine may take longer than usual to hand a list from one thread to another.
    monkeypatch.setattr("carpark.outlet.PATIENCE", 2.0)
    monkeypatch.setattr("carpark.outlet.LITTLE_PATIENCE", 0.5)
    made: list[Desk] = []

    def make(**settings: object) -> Desk:
        made.append(Desk(make_settings(**settings)))
        return made[-1]

    yield make
    for desk in made:
        desk.bad.open.set()
        desk.delivery.close()
    forget_memory(RECORDS)


def _ids(message: Message[Any]) -> list[str]:
    return [summary["id"] for summary in message.kwargs["summaries"]]


def test_every_sink_gets_the_list(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk()
    desk.send("1", "2")
    assert desk.bad.ids == desk.good.ids == ["1", "2"]
    assert desk.bad.calls == 1
    assert desk.records.undelivered() == 0


def test_what_a_sink_does_not_take_waits_for_it_alone(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk()
    desk.bad.error = OSError("no space left")
    desk.send("1", "2")
    assert desk.good.ids == ["1", "2"]
    [(message, delay)] = desk.queue.queued
    assert message.kwargs["sink"] == "bad"
    assert _ids(message) == ["1", "2"]
    assert 1000 <= delay <= 2000
    desk.bad.error = None
    desk.retry()
    assert desk.bad.ids == ["1", "2"]
    assert desk.good.calls == 1
    assert desk.records.undelivered() == 0


def test_while_a_sink_does_not_answer_the_other_is_served(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk()
    desk.bad.open.clear()
    desk.send("1")
    desk.send("2")
    desk.send("3")
    assert desk.good.ids == ["1", "2", "3"]
    assert [_ids(message) for message, _ in desk.queue.queued] == [["1"], ["2"], ["3"]]
    assert desk.bad.ids == []


def test_a_sink_that_answers_late_is_well_again(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk()
    desk.bad.open.clear()
    desk.send("1")
    desk.bad.open.set()
    eventually(lambda: desk.bad.ids == ["1"])

    def goes_straight() -> bool:
        queued = len(desk.queue.queued)
        desk.send(f"again {desk.good.calls}")
        return len(desk.queue.queued) == queued

    eventually(goes_straight)


def test_a_sink_that_fails_is_tried_by_one_at_a_time(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk()
    desk.bad.error = OSError("away")
    desk.send("1")
    desk.bad.open.clear()

    def fail_again() -> None:
        with pytest.raises(Retry):
            desk.retry()

    trying = threading.Thread(target=fail_again)
    trying.start()
    eventually(lambda: desk.bad.calls == 2)
    desk.send("2")
    desk.retry(retries=7)
    assert desk.bad.calls == 2, "nothing was tried beside the attempt that is under way"
    [(message, _)] = desk.queue.queued
    assert message.options["retries"] == 7, "what was not tried is no retry"
    desk.bad.open.set()
    trying.join()


def test_the_longer_a_sink_has_failed_the_later_new_summaries_are_offered(
    make_desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, now = make_desk(sink_retry_max=60), [1000.0]
    monkeypatch.setattr("carpark.outlet.time.monotonic", lambda: now[0])
    desk.bad.error = OSError("away")
    delays = []
    for number, seconds in enumerate((0, 40, 3600)):
        now[0] = 1000.0 + seconds
        for each in range(20):
            desk.send(f"{number} {each}")
        delays.append([delay for _, delay in desk.queue.queued])
        desk.queue.queued.clear()
    assert all(1000 <= delay <= 2000 for delay in delays[0])
    assert all(20_000 <= delay <= 40_000 for delay in delays[1])
    assert all(30_000 <= delay <= 60_000 for delay in delays[2])


def test_each_retry_waits_twice_as_long(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(sink_retry_max=10, sink_retries=1_000_000)
    desk.bad.error = OSError("away")
    for retries, least, most in ((0, 2, 4), (1, 4, 8), (10, 5, 10), (100_000, 5, 10)):
        desk.send(f"{retries}")
        with pytest.raises(Retry) as raised:
            desk.retry(retries)
        assert raised.value.delay is not None
        assert least * 1000 <= raised.value.delay <= most * 1000


@pytest.mark.parametrize(("limit", "said"), [(1, "1 retry"), (3, "3 retries")])
def test_after_the_last_retry_it_is_given_up_and_says_why(
    make_desk: Callable[..., Desk], limit: int, said: str
) -> None:
    desk = make_desk(sink_retries=limit)
    desk.bad.error = OSError("no space left")
    desk.send("1")
    [(message, _)] = desk.queue.queued
    for retries in range(limit - 1):
        with pytest.raises(Retry):
            desk.retry(retries)
        desk.queue.queued.append((message, 0))
    with pytest.raises(SinkUnavailable) as raised:
        desk.retry(limit - 1)
    assert str(raised.value) == f"sink 'bad': OSError: no space left; given up after {said}"
    assert desk.records.counts()["summaries/bad/failed"] == 1
    assert desk.records.undelivered() == 1


def test_a_list_that_fails_is_parted_so_that_the_others_are_delivered(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk()
    desk.bad.error = OSError("2 is too long")
    desk.send("1", "2")
    for retries in range(2):
        message, _ = desk.queue.queued[0]
        with pytest.raises(Retry):
            desk.retry(retries)
        desk.queue.queued.append((message, 0))
    desk.retry(2)
    assert [_ids(message) for message, _ in desk.queue.queued] == [["1"], ["2"]]


def test_a_list_that_came_while_its_sink_failed_stays_one_until_that_was_well_or_the_last_retry(
    make_desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, later = make_desk(sink_retries=9), [0.0]
    monkeypatch.setattr("carpark.outlet.time.monotonic", lambda: 1000.0 + later[0])
    desk.bad.error = OSError("away")
    desk.send("0")
    desk.queue.queued.clear()
    later[0] = 60.0
    desk.send("1", "2")
    [first] = desk.queue.queued
    for retries in (2, 7):
        with pytest.raises(Retry):
            desk.retry(retries)
        desk.queue.queued.append(first)
    desk.retry(8)
    assert [_ids(message) for message, _ in desk.queue.queued] == [["1"], ["2"]], "only what was alone is given up"
    desk.bad.error = None
    desk.send("3")
    desk.bad.error = OSError("2 is too long")
    desk.queue.queued = [first]
    desk.retry(2)
    assert [_ids(message) for message, _ in desk.queue.queued] == [["1"], ["2"]]


def test_without_retries_it_is_given_up_at_once(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(sink_retries=0)
    desk.bad.error = OSError("no space left")
    desk.send("1")
    assert desk.queue.queued == []
    [(message, why)] = desk.queue.dead
    assert _ids(message) == ["1"]
    assert why == "sink 'bad': OSError: no space left; no retry is wanted"


def test_of_a_list_only_the_refused_ones_are_given_up(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk()
    desk.bad.error = SummaryRefused("no such tenant", ("2",))
    desk.send("1", "2", "3")
    [(message, why)] = desk.queue.dead
    assert _ids(message) == ["2"]
    assert why == "sink 'bad' refused: no such tenant"
    assert desk.queue.queued == []
    counts = desk.records.counts()
    assert (counts["summaries/bad/failed"], counts["summaries/bad/delivered"]) == (1, 2)


@pytest.mark.parametrize(
    "error",
    [
        SummaryRefused("closed for good"),
        SummaryRefused("closed for good", ("a plate", "1")),
        SummaryRefused("closed for good", "12"),
        SummaryRefused("closed for good", (id_ for id_ in ("3",))),
    ],
    ids=["no ids", "an id of nobody here", "no list", "a generator"],
)
def test_a_refusal_that_names_nobody_refuses_all(make_desk: Callable[..., Desk], error: SummaryRefused) -> None:
    desk = make_desk()
    desk.bad.error = error
    desk.send("1", "2")
    assert [_ids(message) for message, _ in desk.queue.dead] == [["1"], ["2"]], "each alone, as if it had come alone"
    assert "summaries/bad/delivered" not in desk.records.counts()


def test_closing_does_not_wait_for_a_sink_that_does_not_answer(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk()
    desk.bad.open.clear()
    desk.send("1")
    desk.delivery.close()
    assert desk.bad.ids == []
