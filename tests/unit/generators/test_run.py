"""The loop: due times, pauses, waits, windows, seeds, and what happens when a server is away."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from carpark.domain.events import Event, VehicleEntered
from carpark.errors import BrokerUnavailable, ConfigurationError, RecordsUnavailable
from carpark.plugins import Plugins
from carpark.settings import Settings
from generators.build import Plan, local_lanes, make_lane
from generators.cameras import Seen, Wait
from generators.chance import stream
from generators.clock import Stamps
from generators.journal import Journal
from generators.lane import Lane
from generators.lot import LocalLot
from generators.publisher import Publisher
from generators.service import WINDOW, Run, Watcher
from tests.support.generating import HandClock, ListPublisher


class Listener(Watcher):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


class Bench:
    """Everything a run needs, with a clock moved by hand."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock, self.stop, self.listener = HandClock(), threading.Event(), Listener()
        self.registry = CollectorRegistry()

    def both(self, **plan: Any) -> list[Lane]:
        return local_lanes(self.settings, Plan(**plan), plugins=Plugins(), clock=self.clock, registry=self.registry)

    def one(self, kind: str = "entry", lot: LocalLot | None = None, **plan: Any) -> Lane:
        lot = lot or LocalLot(self.settings.capacity, random.Random(1))
        return make_lane(
            kind, self.settings, Plan(**plan), plugins=Plugins(), lot=lot, clock=self.clock, registry=self.registry
        )

    def run(self, lanes: Sequence[Lane], publisher: Publisher, duration: float | None = None) -> None:
        until = None if duration is None else self.clock.monotonic() + duration
        Run(lanes, publisher, clock=self.clock, stop=self.stop, watcher=self.listener, until=until).run()

    def metric(self, name: str, labels: Mapping[str, str] | None = None) -> float | None:
        return self.registry.get_sample_value(name, dict(labels or {}))


@pytest.fixture
def bench(make_settings: Callable[..., Settings]) -> Bench:
    return Bench(make_settings(rate=10, capacity=0))


def test_events_come_at_their_due_times_one_by_one(bench: Bench) -> None:
    times: list[float] = []
    publisher = ListPublisher(lambda _: times.append(bench.clock.elapsed))
    bench.run([bench.one(events=50)], publisher)
    assert times == pytest.approx([number / 10 for number in range(50)])
    assert publisher.windows == [1] * 50


def test_a_pause_is_caught_up_and_its_lateness_is_known(bench: Bench) -> None:
    def hang_once(_: object) -> None:
        if bench.clock.elapsed < 1:
            bench.clock.elapsed += 5

    lane = bench.one()
    publisher = ListPublisher(hang_once)
    bench.run([lane], publisher, duration=10)
    assert len(publisher.events) == 100
    assert lane.tally.published == 100
    assert lane.tally.latest == pytest.approx(4.9)
    assert lane.tally.late == pytest.approx(0)
    assert lane.tally.waits == 0


def test_what_cannot_be_made_before_the_time_is_up_is_counted(bench: Bench) -> None:
    lane = bench.one()
    publisher = ListPublisher(lambda _: setattr(bench.clock, "elapsed", bench.clock.elapsed + 60))
    bench.run([lane], publisher, duration=10)
    assert lane.tally.published + lane.tally.not_made == 100


def test_what_was_due_before_the_end_is_still_made_for_a_second(bench: Bench) -> None:
    def hang_at_the_end(_: object) -> None:
        if bench.clock.elapsed > 9.2:
            bench.clock.elapsed = max(bench.clock.elapsed, 10.5)

    lane = bench.one()
    bench.run([lane], ListPublisher(hang_at_the_end), duration=10)
    assert (lane.tally.published, lane.tally.not_made) == (100, 0)


@pytest.mark.parametrize("rate", [10, 300, 2000])
def test_a_stop_counts_what_was_due_and_is_not_made_as_the_end_of_the_time_does(
    make_settings: Callable[..., Settings], rate: int
) -> None:
    bench = Bench(make_settings(rate=rate, capacity=0))

    def slow(_: object) -> None:
        bench.clock.elapsed += 2
        if bench.clock.elapsed >= 6:
            bench.stop.set()

    lanes = bench.both()
    bench.run(lanes, ListPublisher(slow))
    for lane in lanes:
        assert lane.tally.published + lane.tally.not_made == 6 * rate
    assert any(lane.tally.not_made for lane in lanes) == (rate > WINDOW)


def test_no_more_is_due_than_is_asked_for(bench: Bench) -> None:
    def very_slow(_: object) -> None:
        bench.stop.set()
        bench.clock.elapsed += 1000

    lane = bench.one(events=300)
    bench.run([lane], ListPublisher(very_slow))
    assert (lane.tally.published, lane.tally.not_made) == (251, 49)


def test_a_stop_on_time_leaves_nothing_that_was_due(bench: Bench) -> None:
    publisher = ListPublisher(lambda _: bench.stop.set() if bench.clock.elapsed > 3 else None)
    lanes = bench.both()
    bench.run(lanes, publisher)
    assert [lane.tally.not_made for lane in lanes] == [0, 0]
    assert [lane.tally.published for lane in lanes] == [31, 31] or [lane.tally.published for lane in lanes] == [32, 32]


def test_while_redis_is_away_at_the_end_nothing_is_made_up_for(bench: Bench) -> None:
    lane = bench.one()
    looks, look = [], lane.camera.look

    def away_at_the_end() -> Seen | Wait:
        looks.append(bench.clock.elapsed)
        if bench.clock.elapsed >= 9:
            raise RecordsUnavailable("Redis is away (connection refused)")
        return look()

    lane.camera.look = away_at_the_end  # type: ignore[method-assign]
    bench.run([lane], ListPublisher(), duration=10)
    assert (lane.tally.published, lane.tally.not_made) == (90, 10)
    assert len(looks) < 120, "it does not ask without a pause"


def test_a_wait_that_lasts_until_the_end_is_a_wait(make_settings: Callable[..., Settings]) -> None:
    bench = Bench(make_settings(rate=10, capacity=20, match_ratio=0))
    lanes = bench.both()
    bench.run(lanes, ListPublisher(), duration=10)
    assert [(lane.tally.published, lane.tally.not_made) for lane in lanes] == [(20, 0), (100, 0)]
    assert lanes[0].tally.waited == pytest.approx(8, abs=0.11)


def test_a_run_ends_on_time_and_after_as_many_events_as_it_shall(bench: Bench) -> None:
    publisher = ListPublisher()
    bench.run([bench.one(events=7)], publisher)
    assert len(publisher.events) == 7
    bench.registry = CollectorRegistry()
    bench.run([bench.one()], publisher, duration=2.95)
    assert len(publisher.events) == 37
    assert bench.clock.elapsed == pytest.approx(0.6 + 2.95)


def test_time_at_the_barrier_moves_the_schedule_and_is_no_lateness(make_settings: Callable[..., Settings]) -> None:
    bench = Bench(make_settings(rate=10, capacity=3))
    lot = LocalLot(3, random.Random(1))
    lot.shared = True  # as if other generators' vehicles left it
    lane = bench.one(lot=lot, events=5)
    waiting = bench.clock.wait

    def somebody_leaves(seconds: float, stop: threading.Event) -> None:
        waiting(seconds, stop)
        if bench.clock.elapsed > 20:
            lot.leave("")

    bench.clock.wait = somebody_leaves  # type: ignore[method-assign]
    bench.run([lane], ListPublisher())
    assert lane.tally.published == 5
    assert lane.tally.waits == 1
    assert lane.tally.waited == pytest.approx(19.7, abs=0.1)
    assert lane.tally.latest < 0.1
    assert bench.metric("vehicle_entry_waiting_seconds_total", {"reason": "full"}) == pytest.approx(19.7, abs=0.1)
    assert bench.listener.lines == ["entry camera waits: the car park is full: 3 inside, capacity 3"]


def test_both_cameras_of_one_process_go_in_the_order_of_their_due_times(bench: Bench) -> None:
    publisher = ListPublisher()
    bench.run(bench.both(events=100, seed="7"), publisher)
    kinds = [event.kind for event in publisher.events]
    assert kinds[:2] == ["entry", "exit"]
    assert kinds.count("entry") == kinds.count("exit") == 100
    assert all(abs(kinds[:n].count("entry") - kinds[:n].count("exit")) <= 1 for n in range(200))


@pytest.mark.parametrize(("capacity", "count"), [(0, 600), (5, 545)])
def test_a_seed_repeats_plates_and_who_leaves_however_fast_the_rest_is(
    make_settings: Callable[..., Settings], capacity: int, count: int
) -> None:
    def day(seed: str, hiccups: random.Random) -> list[tuple[str, str]]:
        bench = Bench(make_settings(rate=30, capacity=capacity))
        bench.clock = HandClock(booted=hiccups.uniform(0, 1e6))
        publisher = ListPublisher(lambda _: setattr(bench.clock, "elapsed", bench.clock.elapsed + hiccups.random()))
        bench.run(bench.both(events=300, seed=seed), publisher)
        return [(event.kind, event.vehicle_plate) for event in publisher.events]

    days = [day("7", random.Random(speed)) for speed in range(8)]
    assert days[1:] == days[:-1]
    assert len(days[0]) == count  # in a full car park only as many enter as leave: 240, and the 5 that stay
    assert day("8", random.Random(0)) != days[0]


def test_ids_and_times_are_never_seeded(bench: Bench, make_settings: Callable[..., Settings]) -> None:
    first, second = ListPublisher(), ListPublisher()
    bench.run(bench.both(events=20, seed="7"), first)
    bench.clock.elapsed += 100
    bench.registry = CollectorRegistry()
    bench.run(bench.both(events=20, seed="7"), second)
    assert first.plates == second.plates
    assert not {event.id for event in first.events} & {event.id for event in second.events}
    assert not {event.time for event in first.events} & {event.time for event in second.events}


def test_every_time_in_one_process_is_later_than_the_one_before(bench: Bench) -> None:
    publisher = ListPublisher()
    bench.run(bench.both(events=200), publisher)
    times = [event.time for event in publisher.events]
    assert times == sorted(set(times))


def test_every_matched_exit_is_of_a_vehicle_that_is_inside_and_the_share_is_kept(bench: Bench) -> None:
    publisher = ListPublisher()
    lanes = bench.both(events=1000)
    bench.run(lanes, publisher)
    inside, matched = set(), 0
    for event in publisher.events:
        if isinstance(event, VehicleEntered):
            assert event.vehicle_plate not in inside
            inside.add(event.vehicle_plate)
        else:
            matched += event.vehicle_plate in inside
            inside.discard(event.vehicle_plate)
    assert matched == lanes[1].tally.matched == 800
    assert bench.metric("vehicle_exit_events_total", {"outcome": "published", "plate": "matched"}) == 800
    assert bench.metric("vehicle_exit_events_total", {"outcome": "published", "plate": "unmatched"}) == 200
    assert bench.metric("vehicle_entry_events_total", {"outcome": "published"}) == 1000
    assert bench.metric("vehicle_exit_publish_seconds_count") == 1000


def test_when_nothing_more_can_happen_the_run_ends_and_says_so(make_settings: Callable[..., Settings]) -> None:
    bench = Bench(make_settings(rate=10, capacity=2, match_ratio=0))
    publisher = ListPublisher()
    bench.run(bench.both(events=5), publisher)
    assert [event.kind for event in publisher.events].count("entry") == 2
    assert bench.listener.lines[-1] == (
        "entry camera: the car park is full: 2 inside, capacity 2, and nothing else will happen"
    )


def test_what_is_due_at_once_is_sent_in_windows(make_settings: Callable[..., Settings]) -> None:
    bench = Bench(make_settings(rate=100_000, capacity=0))
    publisher = ListPublisher(lambda _: setattr(bench.clock, "elapsed", bench.clock.elapsed + 1))
    bench.run([bench.one(events=1000)], publisher)
    assert publisher.windows[0] == 1
    assert max(publisher.windows) == WINDOW
    assert len(set(publisher.plates)) == 1000


def test_the_journal_is_written_ahead_of_every_window(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "entries.jsonl"

    def on_file(events: Sequence[Event]) -> None:
        written = path.read_text().splitlines()
        assert written[-len(events) :] == [event.to_json() for event in events]

    lane = bench.one(events=30, journals={"entry": path})
    bench.run([lane], ListPublisher(on_file))
    assert lane.journal
    assert (lane.journal.count, lane.journal.confirmed) == (30, 30)
    lane.journal.close()


def test_a_stop_while_the_broker_is_away_says_what_is_unconfirmed_and_the_next_run_sends_it(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    path = tmp_path / "exits.jsonl"
    plan: dict[str, Any] = {"seed": "7", "journals": {"exit": path}}
    bench = Bench(make_settings(rate=1000, match_ratio=0))

    def away(events: Sequence[Event]) -> int:
        bench.clock.elapsed += 0.02
        if bench.clock.elapsed > 0.1:
            bench.stop.set()
            return 3
        return len(events)

    first = ListPublisher(away)
    lane = bench.one("exit", **plan)
    with pytest.raises(BrokerUnavailable, match=r"17 events are unconfirmed; they are sent again .* same journal"):
        bench.run([lane], first)
    assert lane.journal
    lane.journal.close()
    waiting = Journal(path, type(first.events[0]))
    tail, count = waiting.tail(), waiting.count
    waiting.close()
    assert len(tail) == 17

    bench = Bench(bench.settings)
    second = ListPublisher()
    lane = bench.one("exit", events=count + 100, **plan)
    bench.run([lane], second)
    assert second.events[:17] == tail
    assert len(second.events) == 117
    assert lane.tally.resent == 17
    published = {
        plate: bench.metric("vehicle_exit_events_total", {"outcome": "published", "plate": plate})
        for plate in ("matched", "unmatched")
    }
    assert published == {"matched": 0, "unmatched": 100}, "a journal does not say which exits were matched"
    assert bench.metric("vehicle_exit_publish_seconds_count") == 117
    assert lane.journal
    assert lane.journal.confirmed == count + 100
    lane.journal.close()

    straight = ListPublisher()
    bench = Bench(bench.settings)
    bench.run([bench.one("exit", seed="7", events=count + 100)], straight)
    assert first.plates + second.plates == straight.plates


def test_without_a_journal_what_is_unconfirmed_is_said_to_be_lost(bench: Bench) -> None:
    bench.stop.clear()

    def away(events: Sequence[Event]) -> int:
        bench.stop.set()
        return 0

    with pytest.raises(BrokerUnavailable, match="1 event is unconfirmed; nothing keeps"):
        bench.run([bench.one()], ListPublisher(away))


def test_a_journal_of_another_seed_is_refused(bench: Bench, tmp_path: Path) -> None:
    journals = {"entry": tmp_path / "entries.jsonl"}
    lane = bench.one(seed="7", events=20, journals=journals)
    bench.run([lane], ListPublisher())
    assert lane.journal
    lane.journal.close()
    bench.registry = CollectorRegistry()
    with pytest.raises(ConfigurationError, match="was not written with this --seed"):
        bench.one(seed="8", events=20, journals=journals)


def test_a_redis_that_goes_away_is_waited_for_with_one_line_and_nothing_is_skipped(bench: Bench) -> None:
    lane = bench.one(seed="7", events=40)
    look = lane.camera.look

    def away_for_a_while() -> Seen | Wait:
        if 1 <= bench.clock.elapsed < 31:
            raise RecordsUnavailable("Redis is away (connection refused)")
        return look()

    lane.camera.look = away_for_a_while  # type: ignore[method-assign]
    publisher = ListPublisher()
    bench.run([lane], publisher)
    assert bench.listener.lines[0] == "Redis is away (connection refused); the cameras wait for it"
    assert bench.listener.lines[1].startswith("Redis is back after 3")
    assert len(bench.listener.lines) == 2
    straight = ListPublisher()
    bench.registry = CollectorRegistry()
    bench.run([bench.one(seed="7", events=40)], straight)
    assert publisher.plates == straight.plates
    assert lane.tally.latest > 29


def test_what_is_confirmed_is_told_to_the_lot_before_anyone_else_is_looked_for(bench: Bench) -> None:
    lot = LocalLot(0, random.Random(1))
    lane = bench.one(lot=lot, events=40)
    keep, look, told = lot.keep, lane.camera.look, [True]

    def away_for_a_while(events: Sequence[Event], *, confirmed: bool) -> None:
        if confirmed and 1 <= bench.clock.elapsed < 700:
            told[0] = False
            raise RecordsUnavailable("Redis is away (connection refused)")
        keep(events, confirmed=confirmed)
        told[0] = True

    def look_when_told() -> Seen | Wait:
        assert told[0], "its claims may be over"
        return look()

    lot.keep, lane.camera.look = away_for_a_while, look_when_told  # type: ignore[method-assign]
    bench.run([lane], ListPublisher())
    assert lane.tally.published == 40
    assert lane.tally.latest > 690
    assert [line.partition(" ")[0] for line in bench.listener.lines] == ["Redis", "Redis"]


def test_what_is_sent_again_counts_as_failed(bench: Bench) -> None:
    publisher = ListPublisher(lambda events: publisher.failed(range(len(events))))
    bench.run(bench.both(events=10), publisher)
    assert bench.metric("vehicle_entry_events_total", {"outcome": "failed"}) == 10
    failed = [
        bench.metric("vehicle_exit_events_total", {"outcome": "failed", "plate": plate})
        for plate in ("matched", "unmatched")
    ]
    assert failed == [8, 2]


def test_a_stop_finishes_what_is_in_hand(make_settings: Callable[..., Settings]) -> None:
    bench = Bench(make_settings(rate=1000))
    lane = bench.one()
    look = lane.camera.look

    def stopped_while_looking() -> Seen | Wait:
        if lane.tally.published >= 3:
            bench.stop.set()
        return look()

    lane.camera.look = stopped_while_looking  # type: ignore[method-assign]
    publisher = ListPublisher()
    bench.run([lane], publisher)
    assert len(publisher.events) == lane.tally.published == 4


def test_streams_and_stamps_are_shared_where_they_must_be(bench: Bench) -> None:
    entry, exit_ = bench.both()
    assert entry.camera.lot is exit_.camera.lot
    assert isinstance(entry.camera._stamps, Stamps)
    assert entry.camera._stamps is exit_.camera._stamps
    assert stream(None, "x").random() != stream(None, "x").random()
