"""Stands for a worker's process: what is carpark's in it is real, its threads go on when they are told to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from carpark.backend.gate import Gate
from carpark.backend.processing import Backend
from carpark.broker.batches import parts_of
from carpark.domain.events import VehicleEntered, VehicleExited
from tests.model.hands import Abandoned, Hand
from tests.model.queues import Consumer

ENTRIES, EXITS = VehicleEntered.queue, VehicleExited.queue
QUEUES = (ENTRIES, EXITS)


class Process:
    """A worker's process: its consumers, its dispatchers, its threads, one backend.

    Args:
        backend: One that no other process of this world has.
        world: The world.
    """

    def __init__(self, backend: Backend, world: Any) -> None:
        self.backend, self.world = backend, world
        self.consumers: dict[str, Consumer] = {}
        self.given: dict[str, list[Any]] = {name: [] for name in QUEUES}
        self.hands: dict[str, list[tuple[Hand, Any]]] = {name: [] for name in QUEUES}
        self.held_at: Any = None
        self.stops = self.is_gone = False
        self.made: set[str] = set()
        self.clock = 0.0
        broker: Any = backend.broker
        broker.dispatchers.before_worker_boot(broker, self)
        backend._gates = [Gate(world.mark, lambda: broker.dispatchers.of(EXITS).count, lambda: self.clock)]
        backend._records = world.model.memo
        backend._waiting._stopping = SimpleNamespace(  # type: ignore[assignment]
            wait=lambda pause: self.stops, set=lambda: None
        )

    def work(self, message: Any) -> None:
        """Do what Dramatiq's worker does with a message."""
        _at_work.on = (self, message)
        broker = self.backend.broker
        if self.world.model.mutant == "acknowledge before the step":
            self.consumers[message.queue_name].ack(message)
        broker.emit_before("process_message", message)
        try:
            broker.get_actor(message.actor_name)(*message.args)
        except Abandoned:
            raise
        except BaseException as error:
            broker.emit_after("process_message", message, exception=error)
        else:
            broker.emit_after("process_message", message)
        assert not message.failed, "there is no garbage here"
        broker.emit_before("ack", message)
        self.consumers[message.queue_name].ack(message)
        broker.emit_after("ack", message)

    def drop(self) -> None:
        """Let its threads do nothing more."""
        for hand in [hand for name in QUEUES for hand, _ in self.hands[name]]:
            if hand.at is not None:
                hand.go(Abandoned())
        self.is_gone = True


_at_work = threading.local()


def names_of_markers() -> SimpleNamespace:
    """Stand for the module `uuid` in the gate: a marker is called after its process and its exits."""

    def uuid4() -> str:
        process, message = _at_work.on
        name = f"{process.world.processes.index(process)}:{' '.join(part.args[0].id for part in parts_of(message))}"
        while name in process.made:
            name += "'"
        process.made.add(name)
        return name

    return SimpleNamespace(uuid4=uuid4)


def at_once() -> SimpleNamespace:
    """Stand for the module `threading` in `dispatch`: a timer hands on at once, the schedule says when it begins."""

    class Timer:
        daemon = False

        def __init__(self, interval: float, function: Callable[..., None], args: tuple[Any, ...]) -> None:
            self.start = lambda: function(*args)

    return SimpleNamespace(Lock=threading.Lock, Event=threading.Event, Timer=Timer)
