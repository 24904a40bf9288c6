"""Events to test with, and hypothesis strategies of them: the orders that the join is made for, and any other."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from hypothesis import strategies as st

from carpark.domain.events import Event, VehicleEntered, VehicleExited, format_time

T = TypeVar("T")

DAY = datetime(2026, 11, 23, tzinfo=UTC)
PLATES = ("OPEN", "WAIT", "ÄÖ7", "SGM6322E")
MOST = 8  # open entries, and waiting exits, per plate


def at(microseconds: int) -> str:
    """Give the time so many microseconds into the day."""
    return format_time(DAY + timedelta(microseconds=microseconds))


def entered(id_: str, plate: str = "B123", microseconds: int = 0, **further: Any) -> VehicleEntered:
    """Make an entry."""
    fields = {"id": id_, "vehicle_plate": plate, "entry_date_time": at(microseconds)}
    return VehicleEntered.parse({**fields, **further})


def exited(id_: str, plate: str = "B123", microseconds: int = 0, **further: Any) -> VehicleExited:
    """Make an exit."""
    fields = {"id": id_, "vehicle_plate": plate, "exit_date_time": at(microseconds)}
    return VehicleExited.parse({**fields, **further})


Stay = tuple[VehicleEntered | None, VehicleExited]


@st.composite
def stays(draw: st.DrawFn, plate: str, most: int, *, dirty: bool = False) -> list[Stay]:
    """Stays of one vehicle in the order of their times; no two touch. Dirty: entries may be missing."""
    made: list[Stay] = []
    clock = 0
    for number in range(draw(st.integers(1, most))):
        clock += draw(st.integers(1, 3))
        entry = entered(f"{plate}/{number}", plate, clock)
        clock += draw(st.integers(0, 2))
        is_seen = not dirty or draw(st.integers(0, 3)) > 0
        made.append((entry if is_seen else None, exited(f"{plate}/{number}", plate, clock)))
    return made


@st.composite
def whole_stays(draw: st.DrawFn, plate: str) -> list[Event]:
    """Guarantee (a), and more: whole stays one after another, in either order inside; the stays in any order."""
    events: list[Event] = []
    for entry, exit_ in draw(st.permutations(draw(stays(plate, 8)))):
        assert entry
        events += draw(st.permutations([entry, exit_]))
    return events


@st.composite
def two_queues(draw: st.DrawFn, plate: str, *, dirty: bool = False) -> list[Event]:
    """Guarantee (b): each queue in order, at any relative speed. Dirty: also exits of vehicles nobody saw entering."""
    visits = draw(stays(plate, 20, dirty=dirty))
    entries = [entry for entry, _ in visits if entry]
    exits = [exit_ for _, exit_ in visits]
    events: list[Event] = []

    def may_go_on(kind: str) -> bool:
        done = [event for event in events if event.kind == "exit"]
        left = entries[len(events) - len(done) :]
        if kind == "entry":
            there = {event.id for event in events if event.kind == "entry"}
            return bool(left) and len(there - {event.id for event in done}) < MOST
        waiting = [event for event in done if left and event.time >= left[0].time]
        return len(done) < len(exits) and len(waiting) < MOST

    while len(events) < len(entries) + len(exits):
        kind = draw(st.sampled_from([kind for kind in ("entry", "exit") if may_go_on(kind)]))
        for _ in range(draw(st.integers(1, 10))):
            if not may_go_on(kind):
                break
            done = sum(event.kind == kind for event in events)
            events.append(entries[done] if kind == "entry" else exits[done])
    return events


@st.composite
def incomplete(draw: st.DrawFn, plate: str) -> list[Event]:
    """Guarantee (c): in the order of times, at equal ones entries first, then by id; any event may be missing."""
    events: list[Event] = []
    clock = 0
    for number, (is_entry, gap) in enumerate(draw(st.lists(st.tuples(st.booleans(), st.integers(0, 2)), max_size=40))):
        clock += gap
        events.append((entered if is_entry else exited)(f"{plate}/{number:02}", plate, clock))
    return sorted(events, key=lambda event: (event.time, event.kind == "exit"))


@st.composite
def any_events(draw: st.DrawFn, plate: str) -> list[Event]:
    """No order at all."""
    return draw(st.permutations(draw(incomplete(plate))))


@st.composite
def mixed(draw: st.DrawFn, of_plate: Any) -> list[Event]:
    """The events of several plates, each in its own order, with repeats of any of them."""
    lists = {plate: draw(of_plate(plate)) for plate in PLATES[: draw(st.integers(1, len(PLATES)))]}
    turns = draw(st.permutations([plate for plate, events in lists.items() for _ in events]))
    rests = {plate: iter(events) for plate, events in lists.items()}
    events = [next(rests[plate]) for plate in turns]
    for _ in range(draw(st.integers(0, 8)) if events else 0):
        event = draw(st.sampled_from(events))
        events.insert(draw(st.integers(events.index(event) + 1, len(events))), draw(repeat_of(event)))
    return events


@st.composite
def repeat_of(draw: st.DrawFn, event: Event) -> Event:
    """The same id once more: the same event, whatever else it says."""
    if draw(st.booleans()):
        return event
    plate, moment = draw(st.sampled_from(PLATES)), draw(st.integers(0, 60))
    return (entered if event.kind == "entry" else exited)(event.id, plate, moment, again=True)


def in_batches(events: Sequence[T], size: int) -> list[Sequence[T]]:
    """Cut a list into pieces."""
    return [events[start : start + size] for start in range(0, len(events), size)]
