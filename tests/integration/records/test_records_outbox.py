"""The outbox: each finished stay is in it once for each sink, and leaves it once; and the counts beside it."""

from __future__ import annotations

import random

import pytest
import redis
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from carpark.domain.events import Event
from carpark.records import Batch, ExitsHeld, Outcome, Records, Settlement, connect, forget_memory
from tests.integration.records.conftest import RETENTION, SINKS, Clock
from tests.support.stays import at, entered, exited


def _take(records: Records, sink: str = "http-csv", lease: float = 10) -> Batch:
    batch = records.outbox(sink).take(lease)
    assert isinstance(batch, Batch)
    return batch


def _ids(batch: Batch) -> list[str]:
    return [summary.id for summary in batch.summaries]


class TestOutbox:
    """The step that finishes a stay puts it into the outbox of each sink."""

    def test_each_sink_has_a_stay_once_whatever_is_repeated(self, records: Records) -> None:
        stay: list[Event] = [entered("e1"), exited("x1")]
        for _ in range(3):
            recorded = records.record(stay)
        assert [effect.outcome for effect in recorded] == [Outcome.DUPLICATE, Outcome.DUPLICATE]
        assert records.undelivered() == 2
        for sink in SINKS:
            batch = _take(records, sink)
            assert _ids(batch) == ["x1"]
            assert records.outbox(sink).settle(batch, Settlement(delivered=None)) == (1, 0, 0)
        records.record(stay)
        assert records.undelivered() == 0

    @pytest.mark.parametrize("exit_first", [False, True])
    def test_the_summary_is_the_stay_whichever_event_came_second(self, records: Records, exit_first: bool) -> None:
        events: list[Event] = [entered('e/1 "ü"', "B1", 1), exited('x/1 "ü"', "B1", 2)]
        recorded = records.record(events[::-1] if exit_first else events)[1]
        [summary] = _take(records).summaries
        assert summary == recorded.summary
        assert (summary.id, summary.vehicle_plate, summary.duration) == ('x/1 "ü"', "B1", 1e-06)

    def test_without_sinks_nothing_is_kept_for_them(self, client: redis.Redis, clock: Clock) -> None:
        records = Records(client, RETENTION, (), clock)
        recorded = records.record([entered("e1"), exited("x1")])
        assert recorded[1].outcome is Outcome.MATCHED
        assert recorded[1].summary
        assert records.undelivered() == 0

    def test_what_waits_for_a_sink_that_nobody_has_any_more_is_still_known(
        self, client: redis.Redis, clock: Clock, records: Records
    ) -> None:
        records.record([entered("e1"), exited("x1")])
        clock.now += 60
        left = Records(client, RETENTION, ("http-csv",), clock).backlogs()
        assert [(each.sink, each.waiting, each.age, each.asked) for each in left] == [
            ("http-csv", 1, 60.0, None),
            ("sqlite", 1, 60.0, None),
        ]
        _take(records, lease=10)
        clock.now += 15
        assert records.backlogs()[0].asked == 5.0, "since it had some in hand"

    def test_a_batch_keeps_number_and_members_until_all_of_it_is_settled(self, clock: Clock, records: Records) -> None:
        for number in range(5):
            records.record([entered(f"e{number}", f"P{number}"), exited(f"x{number}", f"P{number}")])
        outbox = records.outbox("http-csv")
        batch = outbox.take(10, 3)
        assert isinstance(batch, Batch)
        assert _ids(batch) == ["x0", "x1", "x2"]
        assert outbox.settle(batch, Settlement(delivered=["x1"], last=["x0"])) == (1, 2, 0)
        again = _take(records)
        assert (_ids(again), again.number, again.attempt) == (["x2", "x0"], batch.number, 2)
        assert outbox.settle(again, Settlement(delivered=None)) == (2, 0, 0)
        following = _take(records)
        assert (_ids(following), following.number, following.attempt) == (["x3", "x4"], batch.number + 1, 1)
        assert outbox.settle(again, Settlement(delivered=None)) == (0, 0, 0), "an old number settles nothing"
        assert outbox.settle(following, Settlement(delivered=None)) == (2, 0, 0)

    def test_who_settles_a_batch_takes_what_was_recorded_by_somebody_who_was_told_to_wait(
        self, records: Records
    ) -> None:
        records.record([entered("e1"), exited("x1")])
        outbox = records.outbox("http-csv")
        batch = _take(records)
        records.record([entered("e2", "C3"), exited("x2", "C3")])
        assert outbox.take(10) == pytest.approx(10, abs=1), "another has a batch in hand"
        counted, following = outbox.settle_and_take(batch, Settlement(delivered=None), 10)
        assert counted == (1, 0, 0)
        assert isinstance(following, Batch)
        assert _ids(following) == ["x2"]
        counted, following = outbox.settle_and_take(following, Settlement(delivered=None), 10)
        assert (counted, following) == ((1, 0, 0), -1), "nothing waits"

    def test_a_circuit_breaker_is_open_for_all_relays_and_after_a_restart(
        self, client: redis.Redis, clock: Clock, records: Records
    ) -> None:
        records.record([entered("e1"), exited("x1")])
        outbox = records.outbox("http-csv")
        outbox.settle(_take(records), Settlement(error="down", delay=30))
        restarted = Records(client, RETENTION, SINKS, clock)
        assert restarted.outbox("http-csv").take(10) == pytest.approx(30, abs=0.01)
        clock.now += 30.01
        batch = _take(restarted)
        assert (batch.attempt, batch.failures) == (2, 1)

    def test_what_waits_alone_takes_turns_with_what_waits_in_order(self, clock: Clock, records: Records) -> None:
        for number in range(4):
            records.record([entered(f"e{number}", f"P{number}"), exited(f"x{number}", f"P{number}")])
        outbox = records.outbox("http-csv")
        batch = _take(records)
        outbox.settle(batch, Settlement(alone={"x0": 5, "x1": 5}, delivered=["x2", "x3"]))
        assert outbox.take(10) == -1
        clock.now += 6
        records.record([entered("e5", "P5"), exited("x5", "P5")])
        seen = []
        for _ in range(3):
            batch = _take(records)
            seen.append((*_ids(batch), batch.alone))
            outbox.settle(batch, Settlement(delivered=None))
        assert sorted(seen) == [("x0", True), ("x1", True), ("x5", False)]
        assert seen[1] == ("x5", False)

    def test_when_the_clock_of_the_records_goes_back_nothing_waits_until_it_has_caught_up(
        self, clock: Clock, records: Records
    ) -> None:
        records.record([entered("e1"), exited("x1"), entered("e2", "C1"), exited("x2", "C1")])
        outbox = records.outbox("http-csv")
        outbox.settle(_take(records), Settlement(delivered=["x1"], alone={"x2": 60}))
        records.record([entered("e3", "C2"), exited("x3", "C2")])
        outbox.settle(_take(records), Settlement(error="down", delay=300))
        clock.now -= 7 * 3600
        assert _ids(_take(records)) == ["x3"]
        assert outbox.take(10) == pytest.approx(10, abs=0.01), "a lease of now is heeded"
        clock.now += 11
        outbox.settle(_take(records), Settlement(delivered=None))
        assert _ids(_take(records)) == ["x2"]


class TestExitsWait:
    """Exits do not overtake entries: how far these have come is written by the step that records them."""

    def test_an_exit_waits_until_its_marker_is_reached(self, records: Records) -> None:
        records.record_entries([entered("e1", microseconds=5)])
        later = [exited("x1", microseconds=9)]
        assert not records.reach("mine"), "nobody waits for it yet"
        for _ in range(2):
            with pytest.raises(ExitsHeld) as held:
                records.record_exits(later, at(6), "mine")
            assert held.value.lists == 1
        assert not records.reach("made up")
        with pytest.raises(ExitsHeld):
            records.record_exits(later, at(6), "mine")
        assert records.reach("mine")
        assert records.record_exits(later, at(6), "mine")[0].outcome == "matched"
        with pytest.raises(ExitsHeld):
            records.record_exits([exited("x2", microseconds=10)], at(9), "another")

    def test_an_exit_that_is_not_later_than_the_last_entry_does_not_wait(self, records: Records) -> None:
        records.record_entries([entered("e1", microseconds=5), entered("e2", "C1", 7)])
        records.record_entries([entered("e1", microseconds=5)])
        assert records.record_exits([exited("x1", microseconds=8)], at(7), "mine")[0].outcome == "matched"

    def test_what_is_rejected_moves_the_queue_of_entries_on(self, records: Records) -> None:
        records.record_entries([entered("e1")])
        for kind in ("entry", "exit", "entry"):
            records.reject(kind)
        with pytest.raises(ExitsHeld) as held:
            records.record_exits([exited("x1", microseconds=9)], at(6), "mine")
        assert held.value.lists == 3

    def test_an_exit_waits_for_the_entries_of_its_own_partition_alone(self, records: Records) -> None:
        records.record_entries([entered("e0", "C0", 9)])
        records.reject("entry", 1)
        late = [exited("x1", "C1", 9)]
        with pytest.raises(ExitsHeld) as held:
            records.record_exits(late, at(6), "mine", 1)
        assert held.value.lists == 1
        assert not records.reach("mine"), "another partition's queue says nothing about this one's"
        assert not records.reach("mine", 2)
        assert records.reach("mine", 1)
        assert records.record_exits(late, at(6), "mine", 1)[0].outcome == "unmatched"
        records.record_entries([entered("e2", "C2", 9)], 2)
        assert records.record_exits([exited("x2", "C2", 9)], at(6), "another", 2)[0].outcome == "matched"
        assert records.record_exits([exited("x0", "C0", 9)], at(6), "another")[0].outcome == "matched"


class TestCounts:
    """Each event counts once, in the step that records it."""

    def test_rejected_messages_are_counted_by_their_queue(self, records: Records) -> None:
        for kind in ("entry", "exit", "exit"):
            records.reject(kind)
        assert records.counts() == {"entry/rejected": 1, "exit/rejected": 2}

    def test_no_events_are_no_work(self, records: Records) -> None:
        assert records.record([]) == []
        assert not any(records.counts().values())

    def test_a_key_of_another_kind_spoils_only_the_events_of_its_plate(
        self, client: redis.Redis, records: Records
    ) -> None:
        client.set("SPOILT", "by hand")
        events: list[Event] = [entered("e1"), entered("e2", "SPOILT"), exited("x2", "SPOILT"), exited("x1")]
        recorded = records.record(events)
        assert [effect.outcome for effect in recorded] == [Outcome.RECORDED, None, None, Outcome.MATCHED]
        for effect in recorded[1:3]:
            assert "WRONGTYPE" in effect.error
            assert effect.summary is None
        counts = records.counts()
        assert counts == {"entry/recorded": 1, "exit/matched": 1, "summaries": 1}
        assert client.get("SPOILT") == "by hand"
        client.delete("SPOILT")
        assert [str(effect.outcome) for effect in records.record(events)] == [
            "duplicate",
            "recorded",
            "matched",
            "duplicate",
        ]


@pytest.mark.parametrize("retention", [1.0, 0.0001, 1e9])
def test_any_retention_is_one_that_the_store_takes(client: redis.Redis, retention: float) -> None:
    records = Records(client, retention, SINKS)
    recorded = records.record([entered("e1"), exited("x1", microseconds=1), exited("x2", "C1")])
    assert [effect.error for effect in recorded] == ["", "", ""]


class OutboxMachine(RuleBasedStateMachine):
    """Stays finish, relays take and settle in any order, leases end, given-up ones come back; none is lost or twice."""

    def __init__(self) -> None:
        super().__init__()
        self.url = "memory://machine"
        self.clock = Clock()
        self.records = Records(connect(self.url), RETENTION, ("sink",), self.clock)
        self.outbox = self.records.outbox("sink")
        self.finished = 0
        self.delivered: list[str] = []
        self.dead: set[str] = set()
        self.in_hand: list[Batch] = []
        self.leased_until = 0.0

    def teardown(self) -> None:
        forget_memory(self.url)

    @rule(count=st.integers(1, 5))
    def finish(self, count: int) -> None:
        ids = [f"{self.finished + each}" for each in range(count)]
        self.records.record([event for id_ in ids for event in (entered(id_, id_), exited(id_, id_))])
        self.finished += count

    @rule(most=st.integers(1, 4))
    def take(self, most: int) -> None:
        self.taken(self.outbox.take(10, most))

    def taken(self, batch: Batch | float) -> None:
        if isinstance(batch, Batch):
            assert self.clock.now >= self.leased_until, "one batch is in hand at a time"
            assert not {*_ids(batch)} & ({*self.delivered} | self.dead)
            if self.in_hand and self.in_hand[-1].number == batch.number:
                assert {*_ids(batch)} <= {*_ids(self.in_hand[-1])}, "a retry offers the same members, or what is left"
            self.in_hand.append(batch)
            self.leased_until = self.clock.now + 10

    @precondition(lambda self: self.in_hand)
    @rule(
        which=st.integers(-3, -1),
        chance=st.randoms(use_true_random=False),
        delay=st.sampled_from([0, 5]),
        goes_on=st.booleans(),
    )
    def settle(self, which: int, chance: random.Random, delay: float, goes_on: bool) -> None:
        batch = self.in_hand[max(which, -len(self.in_hand))]
        became = Settlement(delay=delay, error="down" if delay else "")
        for id_ in _ids(batch):
            chance.choice(
                [
                    lambda id_: became.delivered.append(id_) if became.delivered is not None else None,
                    became.dead.append,
                    lambda id_: became.alone.update({id_: 5.0}),
                    became.last.append,
                    lambda id_: None,
                ]
            )(id_)
        before = {summary.id: state for summary, state in self.outbox.stays()}
        following: Batch | float = 0.0
        if goes_on:
            counted, following = self.outbox.settle_and_take(batch, became, 10, 3)
        else:
            counted = self.outbox.settle(batch, became)
        after = {summary.id: state for summary, state in self.outbox.stays()}
        gone, died = (
            before.keys() - after.keys(),
            {id_ for id_ in after if (before[id_], after[id_]) != (after[id_],) * 2},
        )
        assert counted[0] == len(gone)
        assert counted[2] == len(died)
        assert gone <= {*(became.delivered or ())}
        assert died <= {*became.dead}
        self.delivered += gone
        self.dead |= died
        if batch is self.in_hand[-1]:
            self.leased_until = self.clock.now
        self.taken(following)

    @rule(seconds=st.sampled_from([1.0, 6.0, 11.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @precondition(lambda self: self.dead)
    @rule(chance=st.randoms(use_true_random=False))
    def put_back(self, chance: random.Random) -> None:
        id_ = chance.choice(sorted(self.dead))
        [summary] = [summary for summary, _ in self.outbox.stays() if summary.id == id_]
        assert self.outbox.put_back(summary)
        assert not self.outbox.put_back(summary)
        self.dead.discard(id_)

    @invariant()
    def each_is_somewhere_once(self) -> None:
        there = [summary.id for summary, _ in self.outbox.stays()]
        assert sorted(there + self.delivered) == sorted(f"{number}" for number in range(self.finished))
        backlog = self.outbox.backlog()
        assert backlog.undelivered == len(there)
        assert backlog.dead == len(self.dead)


@pytest.mark.slow
class TestOutboxMachine(OutboxMachine.TestCase):  # type: ignore[misc]
    """In this process; what a real Redis does with the same script is tested above, one by one."""

    settings = hypothesis_settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.fixture
def ten(records: Records) -> Records:
    for number in range(10):
        records.record([entered(f"e{number}", f"P{number}"), exited(f"x{number}", f"P{number}")])
    return records


def test_everything_that_waits_can_be_read_whatever_its_state(ten: Records, clock: Clock) -> None:
    outbox = ten.outbox("sqlite")
    batch = outbox.take(10, 6)
    assert isinstance(batch, Batch)
    outbox.settle(batch, Settlement(delivered=["x0"], dead=["x1"], alone={"x2": 5}))
    states = {summary.id: state for summary, state in outbox.stays()}
    assert states == {"x1": "dead"} | {f"x{number}": "waiting" for number in range(2, 10)}
    backlog = outbox.backlog()
    assert (backlog.waiting, backlog.alone, backlog.dead, backlog.undelivered) == (8, 1, 1, 9)
