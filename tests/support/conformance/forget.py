"""What both implementations of the records promise of a plate that is forgotten."""

from __future__ import annotations

import pytest

from carpark.domain.events import Event
from carpark.records import Batch, Forgotten, Outcome, Records, Settlement
from tests.support.stays import at, entered, exited
from tests.support.stores import RETENTION, SINKS, Clock, Store

GONE, KEPT = "GONE7", "KEPT1"


def in_every_state(records: Records, *plates: str) -> list[Event]:
    """Bring stays of plates into each state that an outbox has, and let them be inside, superseded and waited for."""
    events: list[Event] = []
    for plate in plates:
        for n in range(5):
            events += [entered(f"{plate}/e{n}", plate, 100 * n, lane=n), exited(f"{plate}/x{n}", plate, 100 * n + 50)]
        events += [exited(f"{plate}/w", plate, 610), entered(f"{plate}/o", plate, 700)]
        events.append(entered(f"{plate}/i", plate, 800))
    early = [event for event in events if event.time < at(300)]
    records.record(early)
    outbox = records.outbox(SINKS[0])
    batch = outbox.take(60)
    assert isinstance(batch, Batch)
    outbox.settle(batch, Settlement(dead=[f"{p}/x0" for p in plates], alone={f"{p}/x1": 1000.0 for p in plates}))
    records.record([event for event in events if event not in early])
    return events


class ForgetConformance:
    """Nothing of it is left, nothing else is touched, and what happened stays counted."""

    def test_nothing_of_it_is_left_and_the_others_are_as_they_were(self, store: Store, records: Records) -> None:
        in_every_state(records, KEPT, GONE)
        before = store.content()
        assert records.forget(GONE) == Forgotten(inside=at(800), known=True, summaries=2 * 5)
        after = store.content()
        assert GONE in str((before["plates"], before["outboxes"]))
        assert GONE not in str((after["plates"], after["outboxes"]))
        assert after["plates"] == {KEPT: before["plates"][KEPT]}
        for sink, stays in before["outboxes"].items():
            left = [(summary, state) for summary, state in stays if summary.vehicle_plate != GONE]
            assert after["outboxes"][sink] == left

    def test_what_happened_stays_counted_and_the_sums_close(self, records: Records) -> None:
        in_every_state(records, GONE)
        before = records.counts()
        records.forget(GONE)
        counts = records.counts()
        assert counts == before | {"entry/forgotten": 1, **{f"summaries/{sink}/forgotten": 5 for sink in SINKS}}
        entries = counts["entry/recorded"] + counts.get("entry/matched", 0)
        assert entries == counts["summaries"] + counts["entry/abandoned"] + records.inside() + counts["entry/forgotten"]
        assert records.forget(GONE) == Forgotten(inside="", known=False, summaries=0)
        assert records.counts() == counts

    def test_its_events_are_known_still_and_its_exit_finds_no_entry(
        self, store: Store, records: Records, clock: Clock
    ) -> None:
        events = in_every_state(records, GONE)
        records.forget(GONE)
        assert {each.outcome for each in records.record(events)} == {Outcome.DUPLICATE}
        assert records.record([exited("late", GONE, 900)])[0].outcome is Outcome.UNMATCHED
        assert records.record([entered("again", GONE, 1000), exited("left", GONE, 1100)])[1].outcome is Outcome.MATCHED
        for known in store.content()["known"].values():  # none for as long as a vehicle is inside that is not
            assert max(known.values()) <= clock.now + RETENTION + 0.001

    def test_a_plate_that_is_not_there_is_forgotten_up_to_the_latest_entry(self, records: Records) -> None:
        records.record_entries([entered("e", KEPT, 5)])
        assert records.forget(GONE) == Forgotten(inside="", known=False, summaries=0)
        assert records.forgotten().of(GONE) == [at(5)]
        assert records.forgotten().of(KEPT) == []

    def test_it_is_named_by_a_digest_that_another_car_park_does_not_share(
        self, store: Store, records: Records, clock: Clock
    ) -> None:
        records.forget(GONE)
        first = records.forgotten()
        assert first.times.keys() == {first.digest(GONE)}
        store.clear()
        another = store.open(clock=clock)
        another.forget(GONE)
        assert another.forgotten().digest(GONE) != first.digest(GONE)

    @pytest.mark.parametrize("sink", SINKS)
    def test_a_batch_in_hand_is_settled_as_if_it_had_never_had_it(self, records: Records, sink: str) -> None:
        records.record([entered("g", GONE, 1), exited("g", GONE, 2), entered("k", KEPT, 1), exited("k", KEPT, 2)])
        outbox = records.outbox(sink)
        batch = outbox.take(60)
        assert isinstance(batch, Batch)
        records.forget(GONE)
        assert outbox.settle(batch, Settlement(delivered=None)) == (1, 0, 0)
        assert outbox.backlog().undelivered == 0
        records.record([entered("n", KEPT, 3), exited("n", KEPT, 4)])
        following = outbox.take(60)
        assert isinstance(following, Batch)
        assert [stay.id for stay in following.summaries] == ["n"]
