"""Both implementations side by side under a machine that does anything: they must come to the same, and to the sums."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from math import inf
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from carpark.domain.events import Event
from carpark.records import Batch, ExitsHeld, Outbox, Outcome, Recorded, Records, Settlement
from tests.support.stays import at, entered, exited
from tests.support.stores import RETENTION, Clock, MemoryStore, RedisStore, Store

PLATES = ("B1", "B2", "B3")
SINKS = ("one", "other")
events = st.builds(
    lambda make, number, plate, moment: make(str(number), plate, moment),
    st.sampled_from([entered, exited]),
    st.integers(0, 40),
    st.sampled_from(PLATES),
    st.integers(0, 20),
)
lists = st.lists(events, min_size=1, max_size=8)
partitions = st.integers(0, 1)


def effects(recorded: list[Recorded]) -> list[Any]:
    return [(each.key, each.outcome, each.summary, each.error, each.abandoned) for each in recorded]


class Machine(RuleBasedStateMachine):
    """Takes each step in both, at the same time of the same clock; what they say and what they hold is the same.

    A repeat may say another plate and time than the first of its id. The clock is the machine's, so it also does in
    Redis what time does: it takes the records away to which nothing happened for the retention.
    """

    stores: tuple[Store, ...]

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        for store in self.stores:
            store.clear()
        self.records = [store.open(SINKS, self.clock) for store in self.stores]
        self.latest = self.clock.now
        self.told: Counter[str] = Counter()
        self.known_until: dict[str, float] = {}
        self.open: Counter[tuple[str, str]] = Counter()
        self.touched: dict[str, float] = {}
        self.in_hand: dict[str, list[Batch]] = {sink: [] for sink in SINKS}
        self.is_reused = False  # whether an id came again after it was forgotten: then it may name two stays

    def both(self, step: Callable[[Records], Any]) -> Any:
        """Take a step in both, and give what they say, which is the same."""
        answers = [step(records) for records in self.records]
        assert answers[0] == answers[1]
        return answers[0]

    def outboxes(self, sink: str, step: Callable[[Outbox], Any]) -> Any:
        return self.both(lambda records: step(records.outbox(sink)))

    # Events.

    @rule(batch=lists)
    def record(self, batch: list[Event]) -> None:
        self._note(batch, self.both(lambda records: effects(records.record(batch))))

    @rule(batch=lists, partition=partitions)
    def record_entries(self, batch: list[Event], partition: int) -> None:
        batch = [event for event in batch if event.kind == "entry"]
        self._note(batch, self.both(lambda records: effects(records.record_entries(batch, partition))))

    @rule(batch=lists, after=st.integers(0, 20), marker=st.sampled_from("mn"), partition=partitions)
    def record_exits(self, batch: list[Event], after: int, marker: str, partition: int) -> None:
        batch = [event for event in batch if event.kind == "exit"]

        def step(records: Records) -> Any:
            try:
                return effects(records.record_exits(batch, at(after), marker, partition))
            except ExitsHeld as held:
                return held.lists

        if not isinstance(recorded := self.both(step), int):
            self._note(batch, recorded)

    @rule(marker=st.sampled_from("mn"), partition=partitions)
    def reach(self, marker: str, partition: int) -> None:
        self.both(lambda records: records.reach(marker, partition))

    @rule(kind=st.sampled_from(["entry", "exit"]), partition=partitions)
    def reject(self, kind: str, partition: int) -> None:
        self.told[f"{kind}/rejected"] += 1
        self.both(lambda records: records.reject(kind, partition))

    def _note(self, batch: list[Event], recorded: list[Any]) -> None:
        for event, (key, outcome, summary, error, abandoned) in zip(batch, recorded, strict=True):
            assert (key, error) == (f"{event.kind}/{event.id}", "")
            self.told[f"{event.kind}/{outcome}"] += 1
            self.told["entry/abandoned"] += abandoned
            is_known = self.known_until.get(key, 0.0) > self.latest
            if outcome is Outcome.DUPLICATE:
                assert key in self.known_until, "nothing is a repeat that was never there"
                continue
            self.is_reused |= key in self.known_until
            assert not is_known, f"{key} was recorded less than a retention ago"
            self.known_until[key] = self.clock.now + RETENTION
            self.touched[event.vehicle_plate] = self.clock.now
            if event.kind == "entry":
                self.open[event.vehicle_plate, event.time] += 1
            if summary:
                assert summary.duration >= 0
                assert summary.vehicle_plate == event.vehicle_plate
                assert event.time in (summary.entry_date_time, summary.exit_date_time)
                self.open[summary.vehicle_plate, summary.entry_date_time] -= 1
                assert self.open[summary.vehicle_plate, summary.entry_date_time] >= 0, "an entry is in one stay at most"

    # Time.

    @rule(seconds=st.sampled_from([1.0, 6.0, 11.0, RETENTION / 2, RETENTION - 1, RETENTION + 1]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds
        self.latest = max(self.latest, self.clock.now)
        for plate, moment in self.touched.items():
            if moment + RETENTION <= self.clock.now:
                for store in self.stores:
                    store.expire(plate)
        self.both(lambda records: records.record([]))

    @rule(seconds=st.sampled_from([0.5, 30.0]))
    def the_clock_is_set_back(self, seconds: float) -> None:
        """As after a failover to a Redis on another machine: what is known is so for as much less at most."""
        self.clock.now -= seconds
        self.known_until = {key: until - seconds for key, until in self.known_until.items()}

    # Sinks.

    @rule(sink=st.sampled_from(SINKS), most=st.integers(1, 4), whatever=st.booleans())
    def take(self, sink: str, most: int, whatever: bool) -> None:
        self._taken(sink, self.outboxes(sink, lambda outbox: outbox.take(10, most, whatever=whatever)))

    def _taken(self, sink: str, batch: Batch | float) -> None:
        if isinstance(batch, Batch):
            before = self.in_hand[sink][-1:]
            if before and before[0].number == batch.number:
                assert {*batch.summaries} <= {*before[0].summaries}, "a retry offers the same, or what is left"
            self.in_hand[sink].append(batch)

    @precondition(lambda self: any(self.in_hand.values()))
    @rule(
        data=st.data(),
        which=st.integers(-3, -1),
        seed=st.integers(0, 1000),
        delay=st.sampled_from([0, 5]),
        goes_on=st.booleans(),
    )
    def settle(self, data: st.DataObject, which: int, seed: int, delay: float, goes_on: bool) -> None:
        sink = data.draw(st.sampled_from([sink for sink, batches in self.in_hand.items() if batches]))
        batch = self.in_hand[sink][max(which, -len(self.in_hand[sink]))]
        became, fate = Settlement(delay=delay, error="down" if delay else ""), random.Random(seed)
        delivered: list[str] = []
        for summary in batch.summaries:
            chosen = fate.choice([delivered, became.dead, became.last, became.alone, None])
            if isinstance(chosen, list):
                chosen.append(summary.id)
            elif chosen is not None:
                chosen[summary.id] = 5.0
        became.delivered = delivered
        if goes_on:
            self._taken(sink, self.outboxes(sink, lambda outbox: outbox.settle_and_take(batch, became, 10, 3))[1])
        else:
            self.outboxes(sink, lambda outbox: outbox.settle(batch, became))

    @rule(sink=st.sampled_from(SINKS), data=st.data())
    def put_back(self, sink: str, data: st.DataObject) -> None:
        stays = list(self.records[0].outbox(sink).stays())
        if stays:
            summary, state = data.draw(st.sampled_from(stays))
            assert self.outboxes(sink, lambda outbox: outbox.put_back(summary)) == (state == "dead")

    @rule(plate=st.sampled_from(PLATES))
    def forget(self, plate: str) -> None:
        self.both(lambda records: records.forget(plate))
        self.open = Counter({key: count for key, count in self.open.items() if key[0] != plate})

    # What holds whatever happens.

    @invariant()
    def they_hold_the_same(self) -> None:
        one, other = (store.content() for store in self.stores)
        assert one == other
        self.both(Records.snapshot)
        for known in one["plates"].values():
            named = [("entry", id_) for _, id_, _ in known["open"]] + [("exit", id_) for _, id_ in known["wait"]]
            named += [("entry", known["inside"])] if known["inside"] else []
            assert sum(kind == "entry" for kind, _ in named) <= 8
            assert sum(kind == "exit" for kind, _ in named) <= 8
            assert not known["inside"] or {one["known"][kind][id_] for kind, id_ in named} == {inf}

    @invariant()
    def the_sums_close(self) -> None:
        there = self.records[0].snapshot()
        counts: Counter[str] = Counter(there.counts)
        told = {name: count for name, count in self.told.items() if count}
        assert {name: counts[name] for name in told} == told
        assert counts["summaries"] == counts["entry/matched"] + counts["exit/matched"]
        entries = counts["entry/recorded"] + counts["entry/matched"]
        gone = counts["entry/abandoned"] - counts["entry/reclaimed"] + counts["entry/forgotten"]
        assert entries == counts["summaries"] + there.inside + gone
        assert counts["exit/unmatched"] >= counts["entry/matched"]
        for sink in SINKS if not self.is_reused else ():
            left = counts[f"summaries/{sink}/delivered"] + counts[f"summaries/{sink}/forgotten"]
            [backlog] = [each for each in there.backlogs if each.sink == sink]
            assert counts["summaries"] == left + backlog.undelivered


@pytest.mark.servers
@pytest.mark.parametrize(
    "examples",
    [
        pytest.param(15, marks=[pytest.mark.slow, pytest.mark.timeout(480)]),
        pytest.param(400, marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
    ],
)
def test_whatever_comes_both_come_to_the_same(
    memory_store: MemoryStore, redis_store: RedisStore, examples: int
) -> None:
    machine = type("Both", (Machine,), {"stores": (memory_store, redis_store)})
    few = hypothesis_settings(max_examples=examples, stateful_step_count=40, deadline=None)
    run_state_machine_as_test(machine, settings=few)  # type: ignore[no-untyped-call]
