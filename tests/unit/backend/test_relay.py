"""The relay: what becomes of summaries whose sink takes them, fails, hangs or refuses; by hand, in virtual time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from dramatiq.errors import BrokerConnectionError
from dramatiq.message import Message

from carpark.backend.meter import Meter
from carpark.backend.relay import Relay, SinkRelay
from carpark.domain.events import StaySummary
from carpark.errors import SummaryRefused
from carpark.plugins import Sink
from carpark.records import Backlog, Batch, Outbox, forget_memory, open_records
from carpark.settings import Settings
from tests.support.helpers import eventually
from tests.support.stays import entered, exited

RECORDS = "memory://relay"


class Shelf(Sink):
    """A sink that notes its calls; an error is raised for each call, or for those with the ids that it is for."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.ids: list[str] = []
        self.error: BaseException | None = None
        self.poison: set[str] = set()
        self.open = threading.Event()
        self.open.set()

    def deliver(self, summaries: Sequence[StaySummary]) -> None:
        ids = [summary.id for summary in summaries]
        self.calls.append(ids)
        assert self.open.wait(60)
        if self.error is not None and (not self.poison or self.poison & set(ids)):
            raise self.error
        self.ids += ids


class Desk:
    """A relay to a sink, and what it leads from and to."""

    def __init__(self, settings: Settings) -> None:
        self.now = 1_764_000_000.0
        self.sink, self.dead = Shelf(), list[tuple[Message[Any], str]]()
        self.stopping = threading.Event()
        self.records = open_records(RECORDS, 100, ("shelf",), lambda: self.now)
        self.outbox: Outbox = self.records.outbox("shelf")
        self.relay = SinkRelay(
            "shelf", self.sink, settings, self.bury, Meter(["shelf"]), lambda name: None, self.stopping
        )
        self.relay._outbox = self.outbox
        self.broker_is_away = 0
        self.following: Batch | float = 0.0

    def bury(self, message: Message[Any], why: str) -> None:
        if self.broker_is_away:
            self.broker_is_away -= 1
            raise BrokerConnectionError("away")
        self.dead.append((message, why))

    def record(self, *ids: str) -> None:
        """Record finished stays."""
        self.records.record([event for id_ in ids for event in (entered(id_, id_), exited(id_, id_))])

    def turn(self, later: float = 0.0) -> float:
        """Let time pass, then let the relay do one thing; 0 if it has the next batch already."""
        self.now += later
        self.following = self.relay.turn(self.following if isinstance(self.following, Batch) else None)
        return 0.0 if isinstance(self.following, Batch) else self.following

    def turns(self, count: int, every: float = 1000.0) -> None:
        """Let the relay do so many things, one each so many seconds."""
        for _ in range(count):
            self.turn(every)

    @property
    def backlog(self) -> Backlog:
        return self.outbox.backlog()

    @property
    def counts(self) -> dict[str, int]:
        return {name[len("summaries/shelf/") :]: n for name, n in self.records.counts().items() if "shelf" in name}

    @property
    def buried(self) -> list[str]:
        return [message.kwargs["summary"]["id"] for message, _ in self.dead]


@pytest.fixture
def make_desk(make_settings: Callable[..., Settings]) -> Iterator[Callable[..., Desk]]:
    yield lambda **settings: Desk(make_settings(**settings))
    forget_memory(RECORDS)


def test_what_is_recorded_together_is_delivered_together_and_once(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk()
    desk.record("1", "2", "3")
    assert desk.turn() < 0, "nothing waits any more"
    assert desk.sink.calls == [["1", "2", "3"]]
    assert desk.counts == {"delivered": 3}
    assert desk.backlog.undelivered == 0


def test_a_sink_gets_no_more_at_once_than_it_wants(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk()
    desk.sink.batch = 2
    desk.record("1", "2", "3")
    desk.turns(2)
    assert desk.sink.calls == [["1", "2"], ["3"]]


def test_while_a_sink_fails_its_batch_waits_twice_as_long_each_time_and_stays_the_same(
    make_desk: Callable[..., Desk],
) -> None:
    desk = make_desk(sink_retry_min=1, sink_retry_max=10)
    desk.sink.error = OSError("no space left")
    desk.record("1", "2")
    desk.turn()
    desk.record("3")
    for least, most in ((1, 2), (2, 4), (4, 8), (5, 10)):
        wait = desk.turn()
        assert least <= wait <= most, "the circuit breaker is open"
        assert desk.turn(wait / 2) > 0
        desk.turn(wait)
    assert desk.sink.calls[:3] == [["1", "2"]] * 3
    assert desk.backlog.error == "OSError: no space left"
    assert desk.backlog.failing is not None
    desk.sink.error = None
    desk.turns(3)
    assert sorted(desk.sink.ids) == ["1", "2", "3"]
    assert (desk.backlog.error, desk.backlog.failing) == ("", None)
    assert desk.counts == {"delivered": 3, "retried": 2}


def test_a_summary_that_fails_while_others_are_taken_waits_alone_and_holds_nobody_up(
    make_desk: Callable[..., Desk],
) -> None:
    desk = make_desk(sink_retries=8)
    desk.sink.error, desk.sink.poison = OSError("2 is too long"), {"2"}
    desk.record("1", "2", "3")
    desk.turns(4)
    assert sorted(desk.sink.ids) == ["1", "3"]
    assert desk.backlog.alone == 1
    desk.record("4", "5")
    desk.turn()
    assert desk.sink.ids[-2:] == ["4", "5"], "before what waits alone is due"
    desk.turns(10)
    assert desk.dead == [(desk.dead[0][0], "sink 'shelf': OSError: 2 is too long; given up after 8 retries")]
    assert desk.buried == ["2"]
    assert len([call for call in desk.sink.calls if "2" in call]) == 9
    assert desk.counts == {"delivered": 4, "retried": 3, "failed": 1}
    assert (desk.backlog.waiting, desk.backlog.dead) == (0, 1)


def test_a_single_summary_that_fails_lets_the_next_ones_pass(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk()
    desk.sink.error, desk.sink.poison = OSError("1 is too long"), {"1"}
    desk.record("1")
    desk.turns(3)
    desk.record("2")
    desk.turns(2)
    assert desk.sink.ids == ["2"]
    assert desk.backlog.waiting == 1


@pytest.mark.parametrize("count", [2, 3, 4, 50])
def test_when_none_is_taken_the_sink_is_the_reason_and_nothing_is_given_up_before_the_last_retry(
    make_desk: Callable[..., Desk], count: int
) -> None:
    desk = make_desk(sink_retries=9)
    desk.sink.error = OSError("away")
    ids = [f"{number:02}" for number in range(count)]
    desk.record(*ids)
    desk.turns(9)
    assert desk.dead == []
    assert desk.backlog.waiting == count
    desk.sink.error = None
    desk.turns(count + 5)
    assert sorted(desk.sink.ids) == ids
    assert desk.counts == {"delivered": count, "retried": count}


@pytest.mark.parametrize("poisoned", [1, 4, 7])
def test_poison_at_the_head_of_a_batch_does_not_hide_that_the_sink_is_well(
    make_desk: Callable[..., Desk], poisoned: int
) -> None:
    desk = make_desk(sink_retries=20)
    desk.sink.error, desk.sink.poison = OSError("poison"), {f"{number:02}" for number in range(poisoned)}
    desk.record(*(f"{number:02}" for number in range(20)))
    desk.turns(8)
    assert sorted(desk.sink.ids) == [f"{number:02}" for number in range(poisoned, 20)]
    assert desk.backlog.waiting == poisoned
    assert desk.backlog.alone >= poisoned - 1, "one may be in hand"


@pytest.mark.parametrize(
    ("limit", "said"), [(0, "no retry is wanted"), (1, "given up after 1 retry"), (3, "3 retries")]
)
def test_only_what_was_tried_alone_is_given_up_and_says_why(
    make_desk: Callable[..., Desk], limit: int, said: str
) -> None:
    desk = make_desk(sink_retries=limit)
    desk.sink.error = OSError("no space left")
    desk.record("1", "2")
    desk.turns(limit + 4)
    assert sorted(desk.buried) == ["1", "2"]
    assert all(why.startswith("sink 'shelf': OSError: no space left; ") and said in why for _, why in desk.dead)
    assert [call for call in desk.sink.calls if len(call) == 1]
    assert {message.message_id for message, _ in desk.dead} == {"shelf/1", "shelf/2"}
    assert desk.counts["failed"] == 2
    assert (desk.backlog.waiting, desk.backlog.dead) == (0, 2)


def test_what_is_sent_again_after_it_was_given_up_has_all_retries_before_it(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(sink_retries=2)
    desk.sink.error = OSError("away")
    desk.record("1")
    desk.turns(4)
    [(message, _)] = desk.dead
    summary = StaySummary.parse(message.kwargs["summary"])
    assert desk.outbox.put_back(summary)
    assert not desk.outbox.put_back(summary), "a letter that is sent twice makes no second row"
    calls = len(desk.sink.calls)
    desk.turns(2)
    assert desk.buried == ["1"]
    assert len(desk.sink.calls) == calls + 2
    desk.sink.error = None
    desk.turns(2)
    assert desk.sink.ids == ["1"]
    assert desk.backlog.undelivered == 0


def test_a_forged_letter_makes_no_row(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(sink_retries=0)
    desk.sink.error = OSError("away")
    desk.record("1")
    desk.turns(3)
    [(message, _)] = desk.dead
    true = message.kwargs["summary"]
    for lie in ({"vehicle_plate": "OTHER"}, {"id": "2"}, {"entry_date_time": "2020-01-01T00:00:00.000000Z"}):
        assert not desk.outbox.put_back(StaySummary.parse({**true, **lie, "duration": 1.0}))
    assert (desk.backlog.waiting, desk.backlog.dead) == (0, 1)


def test_of_a_batch_only_the_refused_ones_are_given_up_and_at_once(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk()
    desk.sink.error = SummaryRefused("no such tenant", ("2",))
    desk.record("1", "2", "3")
    desk.turn()
    assert desk.buried == ["2"]
    assert desk.dead[0][1] == "sink 'shelf' refused: no such tenant"
    assert desk.counts == {"delivered": 2, "failed": 1}
    assert desk.backlog.failing is None


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
def test_a_refusal_that_names_nobody_is_asked_again_for_each(
    make_desk: Callable[..., Desk], error: SummaryRefused
) -> None:
    desk = make_desk()
    desk.sink.error = error
    desk.record("1", "2")
    desk.turn()
    assert desk.buried == ["1", "2"], "each alone, as if it had come alone"
    assert desk.sink.calls == [["1", "2"], ["1"], ["2"]]
    assert "delivered" not in desk.counts


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit(), MemoryError(), ValueError("\ud800 \x00 ✓")]
)
def test_whatever_a_sink_raises_is_a_failed_attempt(make_desk: Callable[..., Desk], error: BaseException) -> None:
    desk = make_desk(sink_retries=100_000)
    desk.sink.error = error
    desk.record("1", "2")
    desk.turns(10)
    assert desk.dead == []
    assert type(error).__name__ in desk.backlog.error
    desk.sink.error = None
    desk.turns(10)
    assert sorted(desk.sink.ids) == ["1", "2"]


def test_one_batch_is_in_hand_at_a_time_and_a_lease_that_is_over_gives_the_same_to_another(
    make_desk: Callable[..., Desk],
) -> None:
    desk = make_desk(sink_timeout=5)
    desk.record("1")
    desk.sink.open.clear()
    hanging = threading.Thread(target=desk.turn)
    hanging.start()
    eventually(lambda: desk.sink.calls)
    desk.record("2")
    other = open_records(RECORDS, 100, ("shelf",), lambda: desk.now).outbox("shelf")
    assert other.take(10) == pytest.approx(10, abs=0.01), "sink_timeout and 5 s"
    desk.now += 10.5
    batch = other.take(10)
    assert not isinstance(batch, float)
    assert ([each.id for each in batch.summaries], batch.number, batch.attempt) == (["1"], 1, 2)
    desk.sink.error = OSError("too late to be believed")
    desk.sink.open.set()
    hanging.join()
    assert other.take(10) == pytest.approx(10, abs=0.01), "what a given-up attempt says ends no lease"


def test_what_cannot_be_buried_now_is_buried_when_the_broker_is_back(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(sink_retries=0)
    desk.sink.error = SummaryRefused("never")
    desk.record("1", "2")
    desk.broker_is_away = 3
    desk.turn()
    assert desk.buried == ["1", "2"]
    assert desk.backlog.dead == 2


def test_at_a_stop_only_what_has_its_dead_letter_is_marked_as_given_up(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk()
    desk.sink.error = SummaryRefused("never")
    desk.record("1", "2")
    desk.broker_is_away = 1_000_000
    desk.stopping.set()
    desk.turn()
    assert desk.dead == []
    assert (desk.backlog.waiting, desk.backlog.dead) == (2, 0)
    desk.broker_is_away = 0
    desk.turns(2)
    assert (sorted(desk.buried), desk.backlog.dead) == (["1", "2"], 2)


def test_a_batch_that_is_refused_as_a_whole_is_asked_for_within_its_lease(
    make_desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = make_desk()
    desk.sink.error, desk.sink.poison = SummaryRefused("one of these"), {"7"}
    seconds = [0.0]

    def tick() -> float:
        seconds[0] += 0.1
        return seconds[0]

    monkeypatch.setattr("carpark.backend.relay.time.monotonic", tick)
    desk.record(*(f"{number}" for number in range(100)))
    desk.turn()
    assert 2 < len(desk.sink.calls) < 50, "the others stay in the batch"
    assert desk.backlog.waiting == 100 - len(desk.sink.ids) - 1
    desk.turns(10)
    assert (len(desk.sink.ids), desk.buried) == (99, ["7"])


def test_no_sink_waits_for_another(make_settings: Callable[..., Settings]) -> None:
    sinks = {"hangs": Shelf(), "fails": Shelf(), "well": Shelf()}
    sinks["hangs"].open.clear()
    sinks["fails"].error = OSError("away")
    records = open_records(RECORDS, 100, tuple(sinks))
    relay = Relay(make_settings(), sinks, lambda: records, lambda message, why: None, Meter(tuple(sinks)))
    relay.start()
    for number in range(3):
        records.record([entered(f"{number}", f"{number}"), exited(f"{number}", f"{number}")])
        relay.wake()
        eventually(lambda number=number: f"{number}" in sinks["well"].ids)
    assert records.outbox("hangs").backlog().waiting == records.outbox("fails").backlog().waiting == 3
    sinks["hangs"].open.set()
    eventually(lambda: sorted(sinks["hangs"].ids) == ["0", "1", "2"])
    relay.stop()
    forget_memory(RECORDS)


def test_a_stop_ends_the_call_in_hand_and_settles_it(make_settings: Callable[..., Settings]) -> None:
    sink = Shelf()
    sink.open.clear()
    records = open_records(RECORDS, 100, ("shelf",))
    relay = Relay(make_settings(), {"shelf": sink}, lambda: records, lambda message, why: None, Meter(["shelf"]))
    records.record([entered("1"), exited("1")])
    relay.start()
    eventually(lambda: sink.calls)
    records.record([entered("2", "2"), exited("2", "2")])
    stopping = threading.Thread(target=relay.stop)
    stopping.start()
    eventually(relay._stopping.is_set)
    sink.open.set()
    stopping.join()
    assert sink.ids == ["1"]
    batch = records.outbox("shelf").take(1)
    assert not isinstance(batch, float), "nobody holds a lease"
    assert [each.id for each in batch.summaries] == ["2"]
    forget_memory(RECORDS)
