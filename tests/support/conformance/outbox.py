"""What both implementations of the records promise of the outbox, and of exits that wait for entries."""

from __future__ import annotations

import pytest

from carpark.domain.events import Event
from carpark.records import Batch, ExitsHeld, Outcome, Records, Settlement
from tests.support.stays import at, entered, exited
from tests.support.stores import SINKS, Clock, Store


def _take(records: Records, sink: str = "http-csv", lease: float = 10) -> Batch:
    batch = records.outbox(sink).take(lease)
    assert isinstance(batch, Batch)
    return batch


def _ids(batch: Batch) -> list[str]:
    return [summary.id for summary in batch.summaries]


class OutboxConformance:
    """The step that finishes a stay puts it into the outbox of each sink; it leaves each once."""

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

    def test_without_sinks_nothing_is_kept_for_them(self, store: Store, clock: Clock) -> None:
        records = store.open((), clock)
        recorded = records.record([entered("e1"), exited("x1")])
        assert recorded[1].outcome is Outcome.MATCHED
        assert recorded[1].summary
        assert records.undelivered() == 0

    def test_what_waits_for_a_sink_that_nobody_has_any_more_is_still_known(
        self, store: Store, clock: Clock, records: Records
    ) -> None:
        records.record([entered("e1"), exited("x1")])
        clock.now += 60
        left = store.open(("http-csv",), clock).backlogs()
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
        self, store: Store, clock: Clock, records: Records
    ) -> None:
        records.record([entered("e1"), exited("x1")])
        outbox = records.outbox("http-csv")
        outbox.settle(_take(records), Settlement(error="down", delay=30))
        restarted = store.open(clock=clock)
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

    def test_everything_that_waits_can_be_read_whatever_its_state(self, records: Records) -> None:
        for number in range(10):
            records.record([entered(f"e{number}", f"P{number}"), exited(f"x{number}", f"P{number}")])
        outbox = records.outbox("sqlite")
        batch = outbox.take(10, 6)
        assert isinstance(batch, Batch)
        outbox.settle(batch, Settlement(delivered=["x0"], dead=["x1"], alone={"x2": 5}))
        states = {summary.id: state for summary, state in outbox.stays()}
        assert states == {"x1": "dead"} | {f"x{number}": "waiting" for number in range(2, 10)}
        backlog = outbox.backlog()
        assert (backlog.waiting, backlog.alone, backlog.dead, backlog.undelivered) == (8, 1, 1, 9)


class GateConformance:
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

    def test_rejected_messages_are_counted_by_their_queue(self, records: Records) -> None:
        for kind in ("entry", "exit", "exit"):
            records.reject(kind)
        assert records.counts() == {"entry/rejected": 1, "exit/rejected": 2}

    def test_no_events_are_no_work(self, records: Records) -> None:
        assert records.record([]) == []
        assert not any(records.counts().values())

    @pytest.mark.parametrize("retention", [1.0, 0.0001, 1e9])
    def test_any_retention_is_one_that_the_store_takes(self, store: Store, retention: float) -> None:
        records = store.open(retention=retention)
        recorded = records.record([entered("e1"), exited("x1", microseconds=1), exited("x2", "C1")])
        assert [effect.error for effect in recorded] == ["", "", ""]
