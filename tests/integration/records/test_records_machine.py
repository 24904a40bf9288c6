"""The join under a machine that does anything: events in any order with repeats, time that passes, keys that expire."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

import pytest
import redis
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from carpark.domain.events import Event
from carpark.records import Outcome, Recorded, Records
from tests.integration.records.conftest import RETENTION, Clock
from tests.support.stays import entered, exited
from tests.support.stores import STORES, open_store

PLATES = ("B1", "B2", "B3")
events = st.builds(
    lambda make, number, plate, moment: make(str(number), plate, moment),
    st.sampled_from([entered, exited]),
    st.integers(0, 30),
    st.sampled_from(PLATES),
    st.integers(0, 20),
)


class JoinMachine(RuleBasedStateMachine):
    """Records lists of events, lets time pass, and forgets what Redis would; the sums close whatever happens.

    A repeat may say another plate and time than the first of its id. The clock is the machine's, so it also takes the
    keys away that have expired by it: those of plates whose vehicle is not inside and that nothing happened to for the
    retention.
    """

    client: redis.Redis

    def __init__(self) -> None:
        super().__init__()
        self.client.flushdb()
        self.clock = Clock()
        self.records = Records(self.client, RETENTION, ("sink",), self.clock)
        self.latest = self.clock.now
        self.told: Counter[str] = Counter()
        self.abandoned = 0
        self.known_until: dict[str, float] = {}
        self.open: Counter[tuple[str, str]] = Counter()
        self.touched: dict[str, float] = {}

    @rule(batch=st.lists(events, min_size=1, max_size=8))
    def record(self, batch: list[Event]) -> None:
        for event, effect in zip(batch, self.records.record(batch), strict=True):
            self._note(event, effect)

    def _note(self, event: Event, effect: Recorded) -> None:
        assert effect.key == f"{event.kind}/{event.id}"
        assert effect.outcome is not None
        self.told[f"{event.kind}/{effect.outcome}"] += 1
        self.abandoned += effect.abandoned
        is_known = self.known_until.get(effect.key, 0.0) > self.latest
        if effect.outcome is Outcome.DUPLICATE:
            assert effect.key in self.known_until, "nothing is a repeat that was never there"
            return
        assert not is_known, f"{effect.key} was recorded less than a retention ago"
        self.known_until[effect.key] = self.clock.now + RETENTION
        self.touched[event.vehicle_plate] = self.clock.now
        if event.kind == "entry":
            self.open[event.vehicle_plate, event.time] += 1
        if summary := effect.summary:
            assert summary.duration >= 0
            assert summary.vehicle_plate == event.vehicle_plate
            assert event.time in (summary.entry_date_time, summary.exit_date_time)
            self.open[summary.vehicle_plate, summary.entry_date_time] -= 1
            assert self.open[summary.vehicle_plate, summary.entry_date_time] >= 0, "an entry is in one stay at most"

    @rule(seconds=st.sampled_from([1.0, RETENTION / 2, RETENTION - 1, RETENTION + 1]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds
        self.latest = max(self.latest, self.clock.now)
        for plate, at in self.touched.items():
            if at + RETENTION <= self.clock.now and not self.client.sismember("entry_plates", plate):
                self.client.delete(plate)

    @rule(seconds=st.sampled_from([0.5, 30.0]))
    def the_clock_is_set_back(self, seconds: float) -> None:
        """As after a failover to a Redis on another machine: what is known is so for as much less at most."""
        self.clock.now -= seconds
        self.known_until = {key: until - seconds for key, until in self.known_until.items()}

    def _hash(self, plate: str) -> dict[str, str]:
        return cast(dict[str, str], self.client.hgetall(plate))

    @invariant()
    def the_sums_close(self) -> None:
        counts: Counter[str] = Counter(self.records.counts())
        for name in (f"{kind}/{outcome}" for kind in ("entry", "exit") for outcome in Outcome):
            assert counts[name] == self.told[name]
        assert counts["entry/abandoned"] == self.abandoned
        summaries = counts["entry/matched"] + counts["exit/matched"]
        assert counts["summaries"] == summaries
        inside = self.records.inside()
        entries = counts["entry/recorded"] + counts["entry/matched"]
        assert entries == summaries + inside + counts["entry/abandoned"] - counts["entry/reclaimed"]
        assert counts["exit/unmatched"] >= counts["entry/matched"]

    @invariant()
    def each_stay_is_of_an_exit_of_its_own(self) -> None:
        stays = [summary for summary, _ in self.records.outbox("sink").stays()]
        assert len(stays) == self.records.counts().get("summaries", 0)

    @invariant()
    def who_is_inside_is_known_with_its_id(self) -> None:
        inside = cast("set[str]", self.client.smembers("entry_plates"))
        for plate in PLATES:
            fields = self._hash(plate)
            assert ("entry_id" in fields) == (plate in inside)
            if plate not in inside:
                continue
            assert self.client.ttl(plate) == -1
            named = [("entry", fields["entry_id"])]
            named += [
                ("entry" if field.startswith("open") else "exit", field.split(" ", 2)[2])
                for field in fields
                if field.startswith(("open ", "wait "))
            ]
            for kind, id_ in named:
                score: Any = self.client.zscore(f"carpark:seen:{kind}", id_)
                assert score is not None, f"{kind} {id_} is named by {plate}, which is inside"
                assert score > self.clock.now + 100 * RETENTION

    @invariant()
    def no_list_is_longer_than_eight(self) -> None:
        for plate in PLATES:
            fields = self._hash(plate)
            open_ones = sum(field.startswith("open ") for field in fields) + ("entry_id" in fields)
            assert open_ones <= 8
            assert sum(field.startswith("wait ") for field in fields) <= 8


@pytest.fixture(params=STORES)
def client(request: pytest.FixtureRequest) -> Any:
    yield from open_store(request)


@pytest.mark.slow
def test_whatever_comes_the_sums_close_and_ids_are_known(client: redis.Redis) -> None:
    is_memory = not client.connection_pool.connection_kwargs.get("port") or "fake" in type(client).__module__
    machine = type("Machine", (JoinMachine,), {"client": client})
    few = hypothesis_settings(max_examples=40 if is_memory else 15, stateful_step_count=25, deadline=None)
    run_state_machine_as_test(machine, settings=few)  # type: ignore[no-untyped-call]
