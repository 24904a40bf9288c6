"""A small world in virtual time: two queues with a single active consumer each, two processes, and every step by name.

What reads, folds, orders, gates and records is carpark's own; RabbitMQ, the worker's threads and the clock are stood
in for here. A world does one step at a time of those that `World.steps` names, and what happens is decided by the
schedule alone. What makes no difference is not a step of its own: a message is read when its batch is begun (until then
it is in flight), and of what was done and not acknowledged yet it is decided when the connection ends whether RabbitMQ
heard of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dramatiq.errors import ConnectionClosed

from carpark.backend.gate import MARKED_EVERY, SLACK
from carpark.backend.processing import Backend
from carpark.broker.batches import parts_of
from carpark.domain.events import Event, parse_time
from carpark.errors import CarparkError, RecordsUnavailable
from carpark.records import ExitsHeld, Outcome
from tests.model.hands import Hand
from tests.model.memo import Memo, Step, events_of
from tests.model.process import ENTRIES, EXITS, QUEUES, Process
from tests.model.queues import Consumer, Queue

NOW = 1_764_000_000.0
SINK = "sink"


@dataclass
class Model:
    """What a world is made of.

    Args:
        memo: The records.
        backends: One for each process.
        events: What is published, in the order of each queue.
        layout: Which process is active on entries and on exits at the start.
        faults: Names of what may happen, once in a schedule.
        most: How many events a batch may have.
        late: How many entries are published while the schedule goes on.
        mutant: What is done otherwise than it should be.
    """

    memo: Memo
    backends: Sequence[Backend]
    events: Sequence[Event]
    layout: tuple[int, int] = (0, 0)
    faults: tuple[str, ...] = ()
    most: int = 2
    late: int = 0
    mutant: str = ""


class Wrong(AssertionError):
    """What a schedule came to is not what was promised."""


class World:
    """One schedule's world, at its beginning.

    Args:
        model: What it is made of.
    """

    def __init__(self, model: Model) -> None:
        self.model, self.memo = model, model.memo
        self.memo.at = 0
        self.memo.heard = self._heard
        self.queues = {
            ENTRIES: Queue(ENTRIES, [event for event in model.events if event.kind == "entry"], model.late),
            EXITS: Queue(EXITS, [event for event in model.events if event.kind == "exit"]),
        }
        self.processes = [Process(backend, self) for backend in model.backends]
        for process in self.processes:
            process.backend.broker.dispatchers._most = model.most
        for name, which in zip(QUEUES, model.layout, strict=True):
            self._consume(self.processes[which], name)
        self.faults = model.faults
        self.read: dict[str, int] = {}
        self.wrong = ""
        self.acting = self.processes[0]

    def _consume(self, process: Process, name: str) -> None:
        process.consumers[name] = Consumer(process, self.queues[name])

    def mark(self, id_: str) -> None:
        """Publish a marker behind all that is in the queue of entries, when the thread is told to."""
        is_unheard = Hand.call(("mark", id_)) == "unheard"
        self.queues[ENTRIES].publish_marker(id_)
        if is_unheard:
            raise ConnectionClosed("RabbitMQ took it, and did not say so any more")

    # What may happen next.

    def steps(self) -> list[tuple[Any, ...]]:
        """Name all that may happen now."""
        possible: list[tuple[Any, ...]] = []
        for which, process in enumerate(self.processes):
            if process.is_gone:
                continue
            for name in QUEUES:
                possible += [("go", which, name, n) for n, (hand, _) in enumerate(process.hands[name]) if hand.at]
                if not process.stops:
                    possible += self._beginnings(which, process, name)
            busy = any(hand.at for name in QUEUES for hand, _ in process.hands[name])
            if process.stops and not busy:
                possible.append(("close", which))
        if self.queues[ENTRIES].published < len(self.queues[ENTRIES].events):
            possible.append(("publish", 0))
        looks = [("begin", which, EXITS, 0) for which, process in enumerate(self.processes) if self._claims(process)]
        if not possible:
            return [
                ("five seconds alone", which) for which, process in enumerate(self.processes) if self._holds(process)
            ] + looks
        return [*possible, *looks, *self._faults()]

    def _holds(self, process: Process) -> bool:
        return bool(process.given[EXITS]) and process.held_at is not None and not process.is_gone

    def _claims(self, process: Process) -> bool:
        """Whether a look changes nothing but whose marker is waited for."""
        stands = self._holds(process) and not process.stops and not any(hand.at for hand, _ in process.hands[EXITS])
        return stands and process.held_at == self._seen() and self.memo.apart()[1] != process.backend._gates[0]._marker

    def _beginnings(self, which: int, process: Process, name: str) -> Iterator[tuple[Any, ...]]:
        consumer = process.consumers.get(name)
        busy = sum(hand.at is not None for hand, _ in process.hands[name])
        if consumer is None or busy > (self.model.mutant == "two in hand"):
            return
        dispatcher = consumer.dispatcher
        if process.given[name] or dispatcher._waiting:
            if not (process.given[name] and process.held_at == self._seen()):
                yield ("begin", which, name, 0)
        elif (
            consumer.is_open
            and not dispatcher._is_halted
            and (dispatcher._in_hand is None or self.model.mutant == "two in hand")
        ):
            for count in consumer.counts(self.model.most):
                yield ("begin", which, name, count)

    def _seen(self) -> Any:
        records, _, reached = self.memo.apart()
        return records, reached

    def _faults(self) -> Iterator[tuple[Any, ...]]:
        for fault in self.faults:
            for which, process in enumerate(self.processes):
                mine = [name for name in QUEUES if (c := self.queues[name].consumer) and c.process is process]
                if fault == "again" and self._holds(process):
                    yield ("again", which)
                if not mine or process.stops or fault == "again":
                    continue
                if fault == "unmarked":
                    yield from (
                        ("unmarked", which, is_taken)
                        for hand, _ in process.hands[EXITS]
                        if hand.at and hand.at[0] == "mark"
                        for is_taken in (False, True)
                    )
                    continue
                if fault == "stop":
                    yield ("stop", which)
                    continue
                if fault in ("away", "error"):
                    yield from self._broken_calls(fault, which, process)
                    continue
                settled = any(process.consumers[name].settled for name in mine)
                ahead = fault == "freeze" and any(process.consumers[name].unread for name in mine)
                for heard in (True, False) if settled else (True,):
                    for read in (0, 9) if ahead else (0,):
                        yield (fault, which, heard, read)

    def _broken_calls(self, fault: str, which: int, process: Process) -> Iterator[tuple[Any, ...]]:
        for name in QUEUES:
            for hand, message in process.hands[name]:
                if hand.at and hand.at[0] != "mark" and (fault == "away" or len(parts_of(message)) > 1):
                    yield (fault, which, name)

    # What happens.

    def do(self, step: tuple[Any, ...]) -> None:
        """Let something happen that `steps` names."""
        what, which, *more = step
        process = self.acting = self.processes[which]
        getattr(self, f"_{what.replace(' ', '_')}")(process, *more)
        if self.wrong:
            raise Wrong(self.wrong)

    def _publish(self, process: Process) -> None:
        self.queues[ENTRIES].publish_next()

    def _begin(self, process: Process, name: str, count: int) -> None:
        consumer = process.consumers[name]
        consumer.read(count)
        message = process.given[name].pop(0) if process.given[name] else consumer.dispatcher.take()
        hand = Hand.begin(lambda: process.work(message))
        process.hands[name] = [(h, m) for h, m in process.hands[name] if h.at] + [(hand, message)]
        if name == EXITS and hand.at:
            self._on(process, name, hand)

    def _go(self, process: Process, name: str, n: int) -> None:
        self._on(process, name, process.hands[name][n][0])

    def _on(self, process: Process, name: str, hand: Hand, answer: Any = None) -> None:
        hand.go(answer)
        if name == EXITS:
            worked_on = next(message for each, message in process.hands[name] if each is hand)
            is_held = hand.at is None and any(message is worked_on for message in process.given[name])
            process.held_at = self._seen() if is_held else None
        process.hands[name] = [(h, m) for h, m in process.hands[name] if h.at]

    def _kill(self, process: Process, heard: bool, read: int) -> None:
        process.drop()
        self._lose(process, heard)

    def _freeze(self, process: Process, heard: bool, read: int) -> None:
        for name, consumer in process.consumers.items():
            if self.queues[name].consumer is consumer:
                consumer.read(read)
        self._lose(process, heard)

    def _cut(self, process: Process, heard: bool, read: int) -> None:
        self._lose(process, heard, process)

    def _lose(self, process: Process, heard: bool, following: Process | None = None) -> None:
        self.faults = ()
        for name in QUEUES:
            consumer = self.queues[name].consumer
            if consumer and consumer.process is process:
                consumer.end(heard=heard)
                self._consume(following or self._other(process), name)

    def _other(self, process: Process) -> Process:
        return next(each for each in self.processes if each is not process)

    def _stop(self, process: Process) -> None:
        self.faults = ()
        process.stops = True

    def _away(self, process: Process, name: str) -> None:
        """Redis is away, and the process stops."""
        self._stop(process)
        self._on(process, name, process.hands[name][0][0], RecordsUnavailable("away"))

    def _error(self, process: Process, name: str) -> None:
        """The step fails for a reason that nobody expects, and that is not one of Redis or its client."""
        self.faults = ()
        self._on(process, name, process.hands[name][0][0], CarparkError("nobody expects it"))

    def _close(self, process: Process) -> None:
        process.drop()
        self._lose(process, heard=True)

    def _again(self, process: Process) -> None:
        """Exits have been held for so long that their marker is published again."""
        self.faults = ()
        process.clock += MARKED_EVERY
        process.held_at = None

    def _unmarked(self, process: Process, is_taken: bool) -> None:
        """RabbitMQ is away when a marker is published."""
        self.faults = ()
        hand = next(hand for hand, _ in process.hands[EXITS] if hand.at and hand.at[0] == "mark")
        self._on(process, EXITS, hand, "unheard" if is_taken else ConnectionClosed("away"))

    def _five_seconds_alone(self, process: Process) -> None:
        """Nothing else happens any more: exits publish their marker again, and pass before anybody else holds some."""
        process.clock += MARKED_EVERY
        held = process.given[EXITS][0]
        self._to_the_end(process, EXITS)
        consumer = self.queues[ENTRIES].consumer
        while consumer and (consumer.unread or consumer.dispatcher._waiting):
            self._to_the_end(consumer.process, ENTRIES)
        if any(message is held for message in process.given[EXITS]):
            self._to_the_end(process, EXITS)
        if any(message is held for message in process.given[EXITS]):
            self.wrong = "exits are held for ever"

    def _to_the_end(self, process: Process, name: str) -> None:
        has_one = process.given[name] or process.consumers[name].dispatcher._waiting
        self.acting = process
        self._begin(process, name, 0 if has_one else 1)
        while process.hands[name] and process.hands[name][-1][0].at:
            self._on(process, name, process.hands[name][-1][0])

    # What is looked at.

    def note_read(self, queue: Queue, numbers: Sequence[Any]) -> None:
        """Remember how many entries there were when an exit was read first."""
        for number in numbers if queue.name == EXITS else ():
            self.read.setdefault(queue.events[number].id, self.queues[ENTRIES].published)

    def _heard(self, step: Step, answer: Any) -> None:
        events, entries = events_of(step), self.queues[ENTRIES]
        if not events or isinstance(answer, ExitsHeld):
            return
        for event, effect in zip(events, answer, strict=True):
            kind, id_, time = event.kind, event.id, event.time
            queue = self.queues[f"vehicle_{kind}"]
            if effect.outcome is Outcome.DUPLICATE:
                continue
            if queue.order[len(queue.recorded)] != id_:
                self.wrong = f"{kind} {id_} took effect after {queue.recorded}, in its queue it is {queue.order}"
            queue.recorded.append(id_)
            for entry in entries.events[: self.read[id_] if kind == "exit" else 0]:
                if entry.id not in entries.recorded and parse_time(entry.time) < parse_time(time) - SLACK:
                    self.wrong = f"exit {id_} overtook entry {entry.id}"

    def state(self) -> Any:
        """Give all that what happens from here depends on."""
        entries = self.queues[ENTRIES]
        queues = [
            (q.published, q.names(q.rest()), self.processes.index(q.consumer.process) if q.consumer else None)
            for q in self.queues.values()
        ]
        records, wanted, reached = self.memo.apart()
        gates = [process.backend._gates[0] for process in self.processes if not process.is_gone]
        marks = {gate._marker for gate in gates}
        there = {label for label in entries.names(entries.rest()) if isinstance(label, str)} | marks
        read = [
            (id_, count)
            for id_, count in sorted(self.read.items())
            if count < len(entries.events) and id_ not in self.queues[EXITS].recorded
        ]
        return (
            records,
            wanted if wanted in there else None,
            reached if reached in marks else None,
            tuple(read),
            self.faults,
            *queues,
            *map(self._state_of, self.processes),
        )

    def _state_of(self, process: Process) -> Any:
        if process.is_gone:
            return None
        gate = process.backend._gates[0]
        parts = []
        for name in QUEUES:
            consumer = process.consumers.get(name)
            if consumer is None:
                continue
            dispatcher, names = consumer.dispatcher, consumer.queue.names
            parts.append(
                (
                    name,
                    consumer.is_open,
                    names(consumer.unread),
                    names(sorted(consumer.settled - consumer.queue.acknowledged)) if consumer.is_open else (),
                    tuple(map(_places, dispatcher._waiting)),
                    _places(dispatcher._in_hand),
                    (dispatcher.is_active, dispatcher._is_halted),
                    tuple((hand.at, _places(message)) for hand, message in process.hands[name] if hand.at),
                    tuple(map(_places, process.given[name])),
                )
            )
        held = process.held_at == self._seen() if process.given[EXITS] else None
        is_due = process.clock >= gate._marked_at + MARKED_EVERY
        dispatcher = process.backend.broker.dispatchers.of(EXITS)
        there = [
            part
            for message in ([dispatcher._in_hand] if dispatcher._in_hand else []) + [*dispatcher._waiting]
            for part in parts_of(message)
        ]
        spoken_for = sum(part.number <= gate._speaks_for for part in there)
        return (*parts, process.stops, held, gate._marker, is_due, gate._speaks_for < 0, spoken_for)

    def leave(self) -> None:
        """End it, wherever it is."""
        for process in self.processes:
            if not process.is_gone:
                process.drop()


def _places(message: Any) -> Any:
    if message is None:
        return None
    parts: Sequence[Any] = parts_of(message)
    return (
        *((part.consumer.queue.labels[part.place], part.consumer.is_open) for part in parts),
        getattr(message, "_closed", None),
    )
