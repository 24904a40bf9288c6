"""The join keeps its word: contract's guarantees, on the records in this process and on a real Redis.

What must come of the events is computed by `tests.support.reference`, which knows nothing of the records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carpark.domain.events import Event, StaySummary
from carpark.records import Outcome, Recorded
from tests.support.reference import Account, account_for
from tests.support.stays import any_events, in_batches, incomplete, mixed, stays, two_queues, whole_stays
from tests.support.stores import SINKS, Clock, Store

examples = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
sizes = st.integers(1, 30)


@pytest.fixture(params=["memory_store", pytest.param("redis_store", marks=pytest.mark.servers)])
def store(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


class Run:
    """Records events in batches, from nothing, and reads what became of them."""

    def __init__(self, store: Store, events: Sequence[Event], size: int) -> None:
        store.clear()
        records = store.open(clock=Clock())
        self.events, self.results = events, list[Recorded]()
        for batch in in_batches(events, size):
            self.results += records.record(batch)
        self.content = store.content()
        self.counts, self.plates = Counter(self.content["counts"]), self.content["plates"]
        assert not [result for result in self.results if result.error]

    @property
    def summaries(self) -> list[StaySummary]:
        return [r.summary for r in self.results if r.outcome is Outcome.MATCHED and r.summary]

    @property
    def inside(self) -> dict[str, str]:
        return {plate: known["inside"] for plate, known in self.plates.items() if known["inside"]}

    def listed(self, name: str) -> set[tuple[str, str, str]]:
        """The (plate, time, id) of entries that are `open` though superseded, or of exits that `wait`."""
        return {(plate, time, id_) for plate, known in self.plates.items() for time, id_, *_ in known[name]}

    def check_sums(self) -> None:
        """Check what holds for any events in any order."""
        counts = self.counts
        first: dict[tuple[str, str], Event] = {}
        for event in self.events:
            first.setdefault((event.kind, event.id), event)
        entries = [event for event in first.values() if event.kind == "entry"]
        exits = {event.id: event for event in first.values() if event.kind == "exit"}
        abandoned = counts["entry/abandoned"] - counts["entry/reclaimed"]
        unmatched = counts["exit/unmatched"] - counts["entry/matched"]

        # Each event counts once, and the sums close.
        assert counts["entry/recorded"] + counts["entry/matched"] == len(entries)
        assert counts["exit/unmatched"] + counts["exit/matched"] == len(exits)
        assert counts["entry/duplicate"] + counts["exit/duplicate"] == len(self.events) - len(first)
        assert counts["summaries"] == len(self.summaries)
        assert len(entries) == len(self.summaries) + len(self.inside) + abandoned
        assert len(exits) == len(self.summaries) + unmatched
        assert counts["entry/abandoned"] == sum(result.abandoned for result in self.results)
        told = Counter(f"{result.key.split('/')[0]}/{result.outcome}" for result in self.results)
        assert all(
            counts[name] == told[name] for kind in ("entry", "exit") for o in Outcome for name in [f"{kind}/{o}"]
        )

        # The counts are true: every event is where they say.
        assert len(self.listed("open")) + counts["entry/dropped"] == abandoned
        assert len(self.listed("wait")) + counts["exit/dropped"] == unmatched
        gone = Counter((s.vehicle_plate, s.entry_date_time) for s in self.summaries)
        kept = Counter((plate, time) for plate, time, _ in self.listed("open"))
        kept.update((plate, self.plates[plate]["entry"]) for plate in self.inside)
        assert gone + kept <= Counter((e.vehicle_plate, e.time) for e in entries)
        assert (gone + kept).total() + counts["entry/dropped"] == len(entries)

        # A summary is of one entry and one exit, which are of no other.
        assert len({s.id for s in self.summaries}) == len(self.summaries)
        assert not {s.id for s in self.summaries} & {id_ for _, _, id_ in self.listed("wait")}
        for summary in self.summaries:
            event = exits[summary.id]
            assert (summary.vehicle_plate, summary.exit_date_time) == (event.vehicle_plate, event.time)
            assert summary.duration >= 0
        assert sum(map(len, self.content["outboxes"].values())) == len(SINKS) * len(self.summaries)
        assert len(self.content["known"]["entry"]) == len(entries)
        assert len(self.content["known"]["exit"]) == len(exits)

    def check_account(self, account: Account) -> None:
        """Check that it came to what the reference says."""
        counts = self.counts
        made = {(s.id, s.vehicle_plate, s.entry_date_time, s.exit_date_time) for s in self.summaries}
        assert made == account.summaries
        assert self.inside == account.inside
        assert counts["entry/abandoned"] - counts["entry/reclaimed"] == len(account.abandoned)
        assert counts["exit/unmatched"] - counts["entry/matched"] == len(account.unmatched)
        assert counts["entry/duplicate"] + counts["exit/duplicate"] == account.duplicates
        assert {id_ for _, _, id_ in self.listed("open")} <= account.abandoned
        assert {id_ for _, _, id_ in self.listed("wait")} <= account.unmatched


class TestJoin:
    """Guarantees (a), (b) and (c), each with any repeats; and what holds beyond them."""

    @given(mixed(whole_stays), sizes)
    @examples
    @pytest.mark.slow
    def test_whole_stays_one_after_another_join_in_either_order_inside(
        self, store: Store, events: list[Event], size: int
    ) -> None:
        check(store, events, size)

    @pytest.mark.slow
    @given(mixed(two_queues), sizes)
    @examples
    def test_complete_stays_join_at_any_relative_speed_of_the_two_queues(
        self, store: Store, events: list[Event], size: int
    ) -> None:
        run = check(store, events, size)
        assert not run.inside
        assert not run.counts["entry/dropped"]
        assert not run.counts["exit/dropped"]

    @pytest.mark.slow
    @given(mixed(incomplete), sizes)
    @examples
    def test_events_in_the_order_of_their_times_join_when_some_are_missing(
        self, store: Store, events: list[Event], size: int
    ) -> None:
        check(store, events, size)

    @pytest.mark.slow
    @given(mixed(lambda plate: two_queues(plate, dirty=True)), sizes)
    @examples
    def test_exits_that_nobody_saw_entering_do_not_disturb_the_two_queues(
        self, store: Store, events: list[Event], size: int
    ) -> None:
        check(store, events, size)

    @pytest.mark.slow
    @given(mixed(any_events), sizes)
    @examples
    def test_in_no_order_at_all_the_sums_close_and_nothing_is_used_twice(
        self, store: Store, events: list[Event], size: int
    ) -> None:
        Run(store, events, size).check_sums()

    @given(mixed(any_events), sizes)
    @settings(examples, max_examples=30)
    def test_a_batch_comes_to_what_its_events_one_by_one_come_to(
        self, store: Store, events: list[Event], size: int
    ) -> None:
        one_by_one, batches = Run(store, events, 1), Run(store, events, size)
        assert batches.results == one_by_one.results
        assert batches.content == one_by_one.content

    @given(stays("B123", 8), sizes)
    @settings(examples, max_examples=20)
    def test_the_newest_stay_is_what_people_see(self, store: Store, visits: list[Any], size: int) -> None:
        entry, exit_ = visits[-1]
        late_first = [event for visit in reversed(visits) for event in visit]
        assert len(Run(store, late_first, size).summaries) == len(visits)
        shown = store.content()["plates"]["B123"]
        assert (shown["entry"], shown["exit"]) == (entry.time, exit_.id)


def check(store: Store, events: Sequence[Event], size: int) -> Run:
    """Record events and hold what became of them against the reference."""
    run = Run(store, events, size)
    run.check_sums()
    run.check_account(account_for(events))
    return run
