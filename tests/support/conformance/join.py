"""What both implementations of the records promise of the join, case by case; in any number in test_records_join.py."""

from __future__ import annotations

from itertools import permutations

import pytest

from carpark.domain.events import Event, VehicleEntered, VehicleExited
from carpark.records import Batch, Outcome, Recorded, Records, Settlement
from tests.support.stays import at, entered, exited
from tests.support.stores import RETENTION, SINKS, Clock, Store

NON_BMP = "\N{CARPENTRY SAW}"
ODD_IDS = [
    "with spaces  in it ",
    " ",
    "entry/1",
    "http-csv/exit/1",
    """it's "quoted" \\ and `ticked`""",
    f"saw {NON_BMP}",
    "e\N{COMBINING ACUTE ACCENT}",
    "x" * 128,
    NON_BMP * 128,
    "*",
    "-inf",
    "\N{RIGHT-TO-LEFT OVERRIDE}\N{LINE SEPARATOR}",
]
ODD_PLATES = [
    "OPEN",
    "WAIT",
    "ENTRYID",
    "1",
    "0",
    "INF",
    "NAN",
    "Ä",
    "粤B12345",
    "𠮷",
    "٣",
    "बा१च१२३४",
    "ঢাকামেট্রোগ১১১২৩৪",
    "A" * 24,
]


def outcomes(recorded: list[Recorded]) -> list[str]:
    return [str(effect.outcome) for effect in recorded]


class JoinConformance:
    """What becomes of events, and for how long they are known."""

    def test_vehicles_inside_are_counted(self, records: Records) -> None:
        assert records.inside() == 0
        records.record([entered("e1", "A1"), entered("e2", "A2"), entered("e3", "A3"), exited("x2", "A2")])
        assert records.inside() == 2

    def test_an_exit_at_the_time_of_its_entry_ends_a_stay_of_no_length(self, records: Records) -> None:
        pairs: list[list[Event]] = [[entered("a"), exited("a")], [exited("b"), entered("b")]]
        for pair in pairs:
            recorded = records.record(pair)
            assert recorded[1].outcome is Outcome.MATCHED
            assert recorded[1].summary
            assert recorded[1].summary.duration == 0

    def test_an_exit_earlier_than_the_entry_does_not_close_it(self, records: Records) -> None:
        recorded = records.record([entered("e1", microseconds=5), exited("x1", microseconds=4)])
        assert outcomes(recorded) == ["recorded", "unmatched"]
        assert records.inside() == 1

    def test_a_superseded_entry_is_closed_only_by_an_exit_between_the_two(self, records: Records) -> None:
        records.record([entered("e1", microseconds=10), entered("e2", microseconds=20)])
        assert records.counts()["entry/abandoned"] == 1
        recorded = records.record([exited("x9", microseconds=9), exited("x20", microseconds=20)])
        assert outcomes(recorded) == ["unmatched", "matched"]
        assert recorded[1].summary
        assert recorded[1].summary.entry_date_time == at(20)
        recorded = records.record([exited("x21", microseconds=21), exited("x19", microseconds=19)])
        assert outcomes(recorded) == ["unmatched", "matched"]
        assert recorded[1].summary
        assert recorded[1].summary.entry_date_time == at(10)
        assert records.counts()["entry/reclaimed"] == 1

    @pytest.mark.parametrize("order", list(permutations((10, 20, 30))), ids=str)
    def test_entries_in_any_order_each_reach_to_the_next(self, records: Records, order: tuple[int, ...]) -> None:
        records.record([entered(f"e{n}", microseconds=n) for n in order])
        recorded = records.record([exited(f"x{n}", microseconds=n) for n in (25, 26, 15, 16)])
        assert outcomes(recorded) == ["matched", "unmatched", "matched", "unmatched"]
        assert [effect.summary.entry_date_time for effect in recorded if effect.summary] == [at(20), at(10)]
        assert records.inside() == 1

    def test_a_late_entry_does_not_reach_over_one_that_is_closed(self, records: Records) -> None:
        records.record([entered("e2", microseconds=20), exited("x2", microseconds=21), exited("x3", microseconds=22)])
        assert outcomes(records.record([entered("e1", microseconds=10)])) == ["recorded"]
        records.record([entered("e4", microseconds=40), exited("x4", microseconds=41)])
        assert outcomes(records.record([entered("e15", microseconds=15)])) == ["recorded"]
        recorded = records.record([exited("x15", microseconds=16), exited("x1", microseconds=11)])
        assert outcomes(recorded) == ["matched", "matched"]
        counts = records.counts()
        assert counts["exit/unmatched"] == 1
        assert counts["entry/abandoned"] == counts["entry/reclaimed"] == 2
        assert records.inside() == 0

    def test_of_two_entries_at_one_time_one_is_abandoned(self, records: Records) -> None:
        recorded = records.record([entered("e1"), entered("e2"), exited("x1"), exited("x2")])
        assert outcomes(recorded) == ["recorded", "recorded", "matched", "unmatched"]
        assert records.counts()["entry/abandoned"] == 1

    def test_an_entry_takes_the_earliest_exit_that_waits(self, records: Records) -> None:
        records.record([exited("x3", microseconds=30), exited("x1", microseconds=10), exited("x2", microseconds=20)])
        recorded = records.record([entered("e2", microseconds=11), entered("e3", microseconds=21)])
        assert [effect.summary.id for effect in recorded if effect.summary] == ["x2", "x3"]

    def test_only_the_eight_latest_exits_wait(self, records: Records) -> None:
        records.record([exited(f"x{n}", microseconds=10 * n) for n in range(1, 10)])
        assert records.counts()["exit/dropped"] == 1
        entries = [entered(f"e{n}", microseconds=10 * n - 1) for n in range(1, 10)]
        # x1 was dropped, so its entry takes the next exit that waits: e1 is one of the eight, e9 is left without.
        recorded = records.record(entries)
        assert outcomes(recorded) == ["matched"] * 8 + ["recorded"]
        assert records.counts()["exit/unmatched"] == 9

    def test_of_nine_open_entries_the_oldest_is_dropped(self, records: Records) -> None:
        records.record([entered(f"e{n}", microseconds=10 * n) for n in range(1, 9)])
        assert "entry/dropped" not in records.counts()
        records.record([entered("e9", microseconds=90)])
        assert records.counts()["entry/dropped"] == 1
        recorded = records.record([exited(f"x{n}", microseconds=10 * n + 1) for n in range(1, 10)])
        assert outcomes(recorded) == ["unmatched"] + ["matched"] * 8
        counts = records.counts()
        assert (counts["entry/abandoned"], counts["entry/reclaimed"]) == (8, 7)

    def test_an_entry_older_than_eight_open_ones_is_itself_dropped(self, records: Records) -> None:
        records.record([entered(f"e{n}", microseconds=10 * n) for n in range(1, 9)])
        assert outcomes(records.record([entered("e0", microseconds=0)])) == ["recorded"]
        assert records.counts()["entry/dropped"] == 1
        recorded = records.record([exited("x0", microseconds=1), exited("x1", microseconds=11)])
        assert outcomes(recorded) == ["unmatched", "matched"]

    def test_a_vehicle_that_enters_is_one_of_the_eight(self, records: Records) -> None:
        records.record([entered("e100", microseconds=100), exited("x100", microseconds=101)])
        records.record([entered(f"e{n}", microseconds=10 * n) for n in (5, 1, 8, 3, 6, 2, 7, 4)])
        assert "entry/dropped" not in records.counts()
        records.record([entered("e200", microseconds=200)])
        assert records.counts()["entry/dropped"] == 1
        recorded = records.record([exited(f"x{n}", microseconds=10 * n + 1) for n in range(1, 9)])
        assert outcomes(recorded) == ["unmatched"] + ["matched"] * 7

    def test_what_was_dropped_is_still_known(self, records: Records) -> None:
        events: list[Event] = [exited(f"x{n}", microseconds=n) for n in range(12)]
        events += [entered(f"e{n}", "C1", microseconds=n) for n in range(12)]
        records.record(events)
        assert outcomes(records.record(events)) == ["duplicate"] * 24

    @pytest.mark.parametrize("time", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"])
    def test_the_ends_of_the_calendar_are_times_like_others(self, records: Records, time: str) -> None:
        entry = VehicleEntered.parse({"id": "e", "vehicle_plate": "B1", "entry_date_time": "0001-01-01T00:00:00Z"})
        exit_ = VehicleExited.parse({"id": "x", "vehicle_plate": "B1", "exit_date_time": time})
        recorded = records.record([entry, exit_])
        assert recorded[1].summary
        assert recorded[1].summary.exit_date_time == exit_.time
        assert recorded[1].summary.duration in (0, 315537897599.999999)

    @pytest.mark.parametrize("plate", ODD_PLATES)
    def test_any_plate_has_a_record_of_its_own(self, records: Records, plate: str) -> None:
        recorded = records.record([entered("e0", "B1"), entered("e1", plate), exited("x1", plate, 1)])
        assert recorded[2].summary
        assert recorded[2].summary.vehicle_plate == plate
        assert list(records.vehicles()) == [("B1", at(0))]

    @pytest.mark.parametrize("id_", ODD_IDS, ids=ascii)
    def test_any_id_comes_through_unchanged(self, records: Records, id_: str) -> None:
        events: list[Event] = [entered(id_, "A1", 1), entered("e2", "A1", 3), exited(id_, "A1", 2)]
        other: list[Event] = [exited(f"{id_[:-1]}y", "A2", 2), entered(f"{id_[:-1]}y", "A2", 1)]
        recorded = records.record(events + other)
        assert outcomes(recorded) == ["recorded", "recorded", "matched", "unmatched", "matched"]
        assert recorded[2].key == f"exit/{id_}"
        assert recorded[2].summary
        assert recorded[2].summary.id == id_
        again = records.record([events[2], other[1]])
        assert outcomes(again) == ["duplicate", "duplicate"]
        for sink in SINKS:
            batch = records.outbox(sink).take(10)
            assert isinstance(batch, Batch)
            assert batch.summaries == (recorded[2].summary, recorded[4].summary)
            became = Settlement(delivered=[id_], alone={f"{id_[:-1]}y": 1.0})
            assert records.outbox(sink).settle(batch, became) == (1, 1, 0)

    def test_the_same_id_again_has_no_effect_whatever_else_it_says(self, store: Store, records: Records) -> None:
        records.record([entered("1", microseconds=5)])
        before = store.content()["plates"]
        again = [entered("1", microseconds=5), entered("1", microseconds=9), entered("1", "C9", 5, lane=1)]
        assert outcomes(records.record(again)) == ["duplicate"] * 3
        assert store.content()["plates"] == before
        assert records.counts()["entry/duplicate"] == 3

    def test_an_entry_and_an_exit_may_have_the_same_id(self, records: Records) -> None:
        assert outcomes(records.record([entered("1"), exited("1")])) == ["recorded", "matched"]

    def test_an_id_is_known_for_the_retention_and_then_forgotten(self, records: Records, clock: Clock) -> None:
        stay: list[Event] = [entered("e1"), exited("x1"), exited("x2", "C9")]
        records.record(stay)
        clock.now += RETENTION - 0.001
        assert outcomes(records.record(stay)) == ["duplicate"] * 3
        clock.now += 0.002
        assert outcomes(records.record([entered("e1", "D1"), exited("x2", "D2")])) == ["recorded", "unmatched"]

    def test_many_ids_are_forgotten_at_once_though_they_are_cleared_away_little_by_little(
        self, store: Store, records: Records, clock: Clock
    ) -> None:
        exits = [exited(f"x{n}", f"P{n}") for n in range(200)]
        records.record(exits)
        clock.now += RETENTION + 1
        records.record([])
        assert len(store.content()["known"]["exit"]) == 200
        assert outcomes(records.record([exits[-1]])) == ["unmatched"]
        assert 1 < len(store.content()["known"]["exit"]) < 200

    def test_an_id_is_not_forgotten_with_an_older_one(self, records: Records, clock: Clock) -> None:
        first, second = exited("x1", "A1"), exited("x2", "A2")
        records.record([first])
        clock.now += 1
        records.record([second])
        clock.now += RETENTION - 0.5
        assert outcomes(records.record([first, second])) == ["unmatched", "duplicate"]

    def test_ids_of_a_vehicle_inside_are_known_however_long_it_stays(self, records: Records, clock: Clock) -> None:
        # Of its plate an exit waits and an entry is superseded; both could still become stays.
        events: list[Event] = [
            exited("x0", microseconds=1),
            entered("e1", microseconds=2),
            entered("e2", microseconds=3),
        ]
        records.record(events)
        clock.now += 1000 * RETENTION
        assert outcomes(records.record(events)) == ["duplicate"] * 3
        records.record([exited("x2", microseconds=4)])
        clock.now += RETENTION - 1
        assert outcomes(records.record(events)) == ["duplicate"] * 3
        clock.now += 2
        assert outcomes(records.record([entered("e1", "C1"), exited("x0", "C2")])) == ["recorded", "unmatched"]

    def test_ids_that_a_record_names_are_known_as_long_as_the_record(self, records: Records, clock: Clock) -> None:
        first = exited("x1", microseconds=1)
        records.record([first])
        clock.now += RETENTION * 0.9
        records.record([exited("x2", microseconds=2)])  # the record, x1 in it, lives on from here
        clock.now += RETENTION * 0.9
        assert outcomes(records.record([first])) == ["duplicate"]

    def test_a_stay_longer_than_the_retention_is_joined(self, records: Records, clock: Clock) -> None:
        records.record([entered("e1")])
        clock.now += 50 * RETENTION
        assert outcomes(records.record([exited("x1", microseconds=1)])) == ["matched"]

    def test_forgotten_ids_are_cleared_away_as_new_ones_come(
        self, store: Store, records: Records, clock: Clock
    ) -> None:
        for n in range(200):
            clock.now += 1
            records.record([entered(f"e{n}", "A1", 2 * n), exited(f"x{n}", "A1", 2 * n + 1)])
        for known in store.content()["known"].values():
            assert RETENTION <= len(known) <= RETENTION + 1
