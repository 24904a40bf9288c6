"""Every schedule of small worlds: what each comes to is what was promised, and none is left out unnoticed.

The numbers of states are part of the tests: a model that became smaller would find less and say nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from carpark.backend import gate
from carpark.backend.gate import Gate
from carpark.backend.processing import Backend
from carpark.broker import dispatch
from carpark.broker.dispatch import Dispatcher, MustWait
from carpark.domain.events import Event
from carpark.plugins import Plugins
from carpark.records import Recorded, Records
from carpark.settings import load_settings
from tests.model.explore import explore
from tests.model.memo import Memo
from tests.model.process import at_once, names_of_markers
from tests.model.queues import Queue
from tests.model.world import NOW, SINK, Model, World, Wrong
from tests.support.reference import account_for
from tests.support.stays import entered, exited
from tests.support.stores import MemoryStore, RedisStore, Store

MINUTE = 60_000_000
SPLIT = (0, 1)
"""One process is active on entries, the other on exits."""

Explore = Callable[..., int]


def plate(names: str) -> list[Event]:
    """Give events of a plate whose number says when: e1 x1 e2 x2; in the order in which they are published."""
    times = {name: 2 * int(name[1]) + (name[0] == "x") for name in names.split()}
    return [(entered if name[0] == "e" else exited)(name, microseconds=times[name] * MINUTE) for name in names.split()]


TWO, THREE = "e1 x1 e2 x2", "e1 x1 e2 x2 e3 x3"


@pytest.fixture(scope="module", autouse=True)
def _one_processor() -> Iterator[None]:
    """Threads that take turns do so ten times as fast on one processor; the dispatchers' timers are the schedule's."""
    before = os.sched_getaffinity(0)
    # Not the same one for two processes of a test run, which have ids that follow on each other.
    os.sched_setaffinity(0, {sorted(before)[os.getpid() % len(before)]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "threading", at_once())
        patch.setattr(gate, "uuid", names_of_markers())
        yield
    os.sched_setaffinity(0, before)


@pytest.fixture(scope="module")
def backends(tmp_path_factory: pytest.TempPathFactory) -> list[Backend]:
    csv = tmp_path_factory.mktemp("model") / "summaries.csv"
    given = {"broker_url": "stub://", "redis_url": "memory://", "csv": str(csv), "batch": "2"}
    return [Backend(load_settings({}, given), Plugins(())) for _ in range(2)]


def comes_to_the_reference(world: World) -> None:
    """Check what is in the outbox, and that nothing is left in a queue."""
    account = account_for(world.model.events)
    stays = [summary for summary, _ in world.memo.content()["outboxes"].get(SINK, [])]
    made = [(s.id, s.vehicle_plate, s.entry_date_time, s.exit_date_time) for s in stays]
    if len(made) != len(set(made)) or set(made) != account.summaries:
        raise Wrong(f"it came to {made}, wanted {account.summaries}")
    for queue in world.queues.values():
        if queue.recorded != queue.order or (queue.consumer and queue.consumer.settled < {*queue.rest()}):
            raise Wrong(f"{queue.name}: of {queue.order} {queue.recorded} took effect")


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.servers)])
def try_all(request: pytest.FixtureRequest, backends: list[Backend]) -> Iterator[Explore]:
    store = MemoryStore() if request.param == "memory" else RedisStore(request.getfixturevalue("redis_url"))
    yield _explorer(store, backends)
    store.close()


@pytest.fixture
def try_in_memory(backends: list[Backend]) -> Iterator[Explore]:
    store = MemoryStore()
    yield _explorer(store, backends)
    store.close()


def _explorer(store: Store, backends: list[Backend]) -> Explore:
    memo = Memo(store, SINK, NOW)

    def run(events: Sequence[Event], check: Callable[[World], None] = comes_to_the_reference, **options: Any) -> int:
        return explore(Model(memo, backends, events, **options), check)

    return run


@pytest.mark.parametrize(("names", "states"), [("e1 x1", 14), (TWO, 61), (THREE, 221)])
def test_whole_stays_come_to_the_reference_at_any_relative_speed(try_all: Explore, names: str, states: int) -> None:
    assert try_all(plate(names)) == states


REPEATS = {
    "e1 x1 e1 e2 x2": 82,
    "e1 x1 e2 e1 x2": 94,
    "e1 x1 e2 e2 x2": 94,
    "e1 x1 x1 e2 x2": 117,
    "e1 x1 e2 x2 x1": 98,
    "e1 x1 e2 x2 x2": 110,
}


@pytest.mark.parametrize(("names", "states"), REPEATS.items())
def test_one_that_comes_again_changes_nothing(try_in_memory: Explore, names: str, states: int) -> None:
    assert try_in_memory(plate(names)) == states


FAULTS = [
    ("kill", (0, 0), 2, 851),
    ("stop", (0, 0), 2, 640),
    ("cut", SPLIT, 2, 595),
    ("away", (0, 0), 2, 590),
    ("error", (0, 0), 2, 124),
    ("again", SPLIT, 2, 207),
    ("unmarked", SPLIT, 2, 131),
    ("freeze", SPLIT, 1, 5_854),
]


@pytest.mark.parametrize(
    ("fault", "layout", "most", "states"),
    [pytest.param(*each, id=each[0], marks=pytest.mark.slow if each[0] == "freeze" else ()) for each in FAULTS],
)
def test_whatever_dies_stops_or_comes_back_late_two_stays_come_to_the_reference(
    try_in_memory: Explore, fault: str, layout: tuple[int, int], most: int, states: int
) -> None:
    assert try_in_memory(plate(TWO), faults=(fault,), layout=layout, most=most) == states


TOGETHER = {
    ("kill", "e1 e1 x1"): 163,
    ("kill", "e1 x1 x1"): 316,
    ("stop", "e1 e1 x1"): 183,
    ("stop", "e1 x1 x1"): 285,
    ("cut", "e1 e1 x1"): 148,
    ("cut", "e1 x1 x1"): 260,
    ("away", "e1 e1 x1"): 84,
    ("away", "e1 x1 x1"): 91,
    ("error", "e1 e1 x1"): 47,
    ("error", "e1 x1 x1"): 30,
}


@pytest.mark.parametrize(("fault", "names"), TOGETHER)
def test_a_fault_and_a_repeat_together(try_in_memory: Explore, fault: str, names: str) -> None:
    assert try_in_memory(plate(names), faults=(fault,), layout=SPLIT) == TOGETHER[fault, names]


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fault", [fault for fault, *_ in FAULTS])
@pytest.mark.parametrize("names", [THREE, *REPEATS, "e1 e1 x1", "e1 x1 x1"])
def test_larger_ones(try_in_memory: Explore, fault: str, names: str) -> None:
    most = 1 if fault == "freeze" else 2
    assert try_in_memory(plate(names), faults=(fault,), layout=SPLIT, most=most) > 0


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fault", [fault for fault, *_ in FAULTS])
@pytest.mark.parametrize("late", [0, 1, 2])
def test_larger_ones_with_events_missing(try_in_memory: Explore, fault: str, late: int) -> None:
    assert try_in_memory(plate("e1 e2 e3 x1 x3"), overtakes_nothing, faults=(fault,), layout=SPLIT, late=late) > 0


MISSING = {
    "e1 e2 x2": 25,
    "e1 x1 e2": 28,
    "e1 x1 x2": 30,
    "e1 e2 x1 x2": 61,
    "e1 e2 e3 x2": 40,
    "e1 e2 e3 x3": 37,
    "e1 e2 e3 x1 x3": 100,
}


@pytest.mark.parametrize(("names", "states"), MISSING.items())
def test_with_events_missing_stays_come_to_the_reference(try_in_memory: Explore, names: str, states: int) -> None:
    assert try_in_memory(plate(names)) == states


def overtakes_nothing(world: World) -> None:
    """Check that all took effect; that none overtook is looked at with each step."""
    for queue in world.queues.values():
        if queue.recorded != queue.order:
            raise Wrong(f"{queue.name}: of {queue.order} {queue.recorded} took effect")


class TestExitsDoNotOvertake:
    """No exit takes effect before an earlier entry that stood in its queue before the exit came to a worker."""

    @pytest.mark.parametrize(
        ("names", "late", "most", "states"),
        [
            ("e1 e2 x2", 1, 2, 75),
            ("e1 x1 e2 x2", 1, 2, 202),
            ("e1 x1 e2 x2", 1, 1, 192),
            ("e1 e2 e3 x1 x3", 2, 2, 758),
            ("e1 e2 e3 x1 x3", 2, 1, 679),
        ],
    )
    def test_entries_that_come_meanwhile(self, try_all: Explore, names: str, late: int, most: int, states: int) -> None:
        assert try_all(plate(names), overtakes_nothing, layout=SPLIT, late=late, most=most) == states

    @pytest.mark.parametrize(
        ("fault", "states"),
        [
            ("kill", 635),
            ("stop", 609),
            ("cut", 562),
            ("again", 256),
            ("unmarked", 148),
            pytest.param("freeze", 3_837, marks=pytest.mark.slow),
        ],
    )
    def test_whatever_dies_stops_or_comes_back_late(self, try_in_memory: Explore, fault: str, states: int) -> None:
        count = try_in_memory(plate("e1 e2 x2"), overtakes_nothing, faults=(fault,), layout=SPLIT, late=1)
        assert count == states


class TestTheModelFinds:
    """What is promised is not kept without each of these, and the model notices."""

    def test_two_batches_in_hand(self, try_in_memory: Explore, monkeypatch: pytest.MonkeyPatch) -> None:
        take = Dispatcher.take

        def take_another(dispatcher: Dispatcher) -> Any:
            dispatcher._in_hand = None
            return take(dispatcher)

        monkeypatch.setattr(Dispatcher, "take", take_another)
        with pytest.raises(Wrong, match="took effect after"):
            try_in_memory(plate(TWO), mutant="two in hand", most=1)

    @pytest.mark.parametrize(
        ("mutant", "fault", "wrong"),
        [
            ("acknowledge before the step", "kill", "it came to"),
            ("nack with requeue", "away", "took effect after"),
            ("cancel before close", "stop", "took effect after"),
        ],
    )
    def test_what_breaks_the_order_or_loses(self, try_in_memory: Explore, mutant: str, fault: str, wrong: str) -> None:
        with pytest.raises(Wrong, match=wrong):
            try_in_memory(plate(TWO), mutant=mutant, faults=(fault,), most=1)

    def test_no_gate(self, try_in_memory: Explore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Gate, "record", lambda self, records, exits, last: records.record(exits))
        self._finds_one_that_overtook(try_in_memory)

    def test_exits_that_pass_when_their_marker_is_published(
        self, try_in_memory: Explore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record = Gate.record

        def record_when_published(self: Gate, records: Records, exits: Sequence[Event], last: int) -> list[Recorded]:
            try:
                return record(self, records, exits, last)
            except MustWait:
                return records.record(exits)

        monkeypatch.setattr(Gate, "record", record_when_published)
        self._finds_one_that_overtook(try_in_memory)

    def test_a_marker_that_overtakes_entries(self, try_in_memory: Explore, monkeypatch: pytest.MonkeyPatch) -> None:
        publish = Queue.publish_marker

        def publish_first(self: Queue, id_: str) -> None:
            publish(self, id_)
            if self.consumer:
                self.consumer.unread.insert(0, self.consumer.unread.pop())

        monkeypatch.setattr(Queue, "publish_marker", publish_first)
        self._finds_one_that_overtook(try_in_memory)

    def _finds_one_that_overtook(self, try_in_memory: Explore) -> None:
        with pytest.raises(Wrong, match="exit x2 overtook entry e2"):
            try_in_memory(plate("e1 e2 x2"), overtakes_nothing)

    def test_a_marker_for_all_batches(self, try_in_memory: Explore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gate, "uuid", SimpleNamespace(uuid4=lambda: "m"))
        with pytest.raises(Wrong, match="exit x2 overtook entry e2"):
            try_in_memory(plate("e1 x1 e2 x2"), overtakes_nothing, late=1)

    def test_a_marker_that_speaks_for_exits_that_come_later(
        self, try_in_memory: Explore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publish = Gate._publish

        def publish_for_all(self: Gate) -> None:
            publish(self)
            self._speaks_for = 1_000

        monkeypatch.setattr(Gate, "_publish", publish_for_all)
        with pytest.raises(Wrong, match="exit x2 overtook entry e2"):
            try_in_memory(plate("e1 x1 e2 x2"), overtakes_nothing, late=1)

    def test_exits_that_wait_for_a_marker_that_was_lost(
        self, try_in_memory: Explore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gate, "MARKED_EVERY", 1e9)
        with pytest.raises(Wrong, match="held for ever"):
            try_in_memory(plate("e1 x1"), faults=("unmarked",))
