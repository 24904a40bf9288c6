"""The whole car park in one process: cameras, broker, backend, records and writer, with no server and no root."""

from __future__ import annotations

import math
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self, cast

import dramatiq
from dramatiq.common import xq_name
from prometheus_client import CollectorRegistry, ProcessCollector

from carpark.backend.page import RecordsNow
from carpark.backend.processing import Backend
from carpark.backend.relay import summary_message
from carpark.broker import STUB, StubBroker
from carpark.broker.dead_letters import headers_for
from carpark.broker.stub import StoredMessage
from carpark.domain.events import Event, StaySummary, VehicleExited
from carpark.domain.report import Report
from carpark.domain.routing import WORK, event_queues, queue_for
from carpark.embedded.metrics import QueuesNow
from carpark.ledger import Ledger
from carpark.plugins import Plugins
from carpark.records import Recorded, forget_memory
from carpark.services import SERVICES
from carpark.settings import Settings
from carpark.telemetry.page import MetricsPage
from generators.build import Plan, local_lanes
from generators.clock import Clock
from generators.lane import Lane
from generators.publisher import Publisher
from generators.service import Run, Watcher
from generators.wire import message_body
from writer.server import WriterServer

GRACE = 30.0
"""Seconds after the last event within which a sink that fails must have come round."""

RETRY_MAX = 2.0
"""Seconds between two attempts at a sink at most: a run does not wait for minutes."""

LATEST = 8
_THREADS = 4
_WAKE_MILLIS = 100
_OVERTAKING = 5.0  # seconds; an exit that is not processed by then was dead-lettered
_GLANCE, _SILENT = 0.05, 1.0
_STOP_MILLIS, _ABORT_MILLIS = 60_000, 1_000


class StubPublisher(Publisher):
    """Puts events on the queues of the in-process broker, in the messages that RabbitMQ would carry.

    Here the cameras choose plates without a look at the records. A plate of a short list may come again within less
    than the second by which an exit may overtake entries: so an event waits until its plate's last exit is processed.
    """

    def __init__(self, broker: StubBroker, partitions: int) -> None:
        self._broker, self._partitions = broker, partitions
        self._changed = threading.Condition()
        self._plates: dict[str, str] = {}
        self._last_exits: dict[str, str] = {}

    def publish(self, events: Sequence[Event]) -> int:
        """Put events on their queues."""
        for event in events:
            self._take_turn(event)
            self._broker.publish(queue_for(event, self._partitions), message_body(event))
        return len(events)

    def processed(self, key: str) -> None:
        """Hear that an event is processed."""
        with self._changed:
            plate = self._plates.pop(key, "")
            if self._last_exits.get(plate) == key:
                del self._last_exits[plate]
                self._changed.notify_all()

    def _take_turn(self, event: Event) -> None:
        plate, key = event.vehicle_plate, f"{event.kind}/{event.id}"
        with self._changed:
            self._changed.wait_for(lambda: plate not in self._last_exits, _OVERTAKING)
            if event.kind == VehicleExited.kind:
                self._plates[key], self._last_exits[plate] = plate, key


@dataclass(frozen=True)
class Snapshot:
    """What a run looks like at one moment."""

    seconds: float
    report: Report
    ready: dict[str, int]
    undelivered: dict[str, int]
    latest: list[StaySummary]
    waiting: list[str]


def check(settings: Settings, plugins: Plugins) -> None:
    """Judge what was typed, before a port is tried and before what an earlier run left goes."""
    plugins.try_out(settings)
    if _needs_writer(settings, plugins):
        Ledger(settings.csv).close()


def _needs_writer(settings: Settings, plugins: Plugins) -> bool:
    return any(found.offer.service == "writer" for found in plugins.in_use(settings, ("sinks",)))


class Embedded:
    """A car park in this process. Enter it, `run` it, `finish` it."""

    def __init__(self, settings: Settings, plan: Plan, plugins: Plugins | None = None) -> None:
        memory = f"memory://{uuid.uuid4()}"
        self._plugins = plugins or Plugins(settings.plugins)
        of_its_own = {
            "broker_url": STUB,
            "redis_url": memory,
            "sink_retry_min": min(settings.sink_retry_min, RETRY_MAX),
            "sink_retry_max": min(settings.sink_retry_max, RETRY_MAX),
        }
        self.settings = settings.model_copy(update=of_its_own)
        self._latest: deque[StaySummary] = deque(maxlen=LATEST)
        self._clock = Clock()
        self.writer: WriterServer | None = None
        with ExitStack() as stack:
            stack.callback(forget_memory, memory)
            registry = self._open_writer(stack)
            self.backend = Backend(self.settings, self._plugins, self._note)
            self.broker = cast(StubBroker, self.backend.broker)  # which STUB is
            self._publisher = StubPublisher(self.broker, settings.partitions)
            self._lanes: list[Lane] = local_lanes(
                self.settings, plan, plugins=self._plugins, clock=self._clock, registry=registry
            )
            self.backend.prometheus.start(self.broker, registry)
            registry.register(RecordsNow(lambda: self.backend.records))
            QueuesNow(registry, self.broker)
            port = SERVICES["run"].port_or(settings.metrics_port)
            self.metrics = MetricsPage(registry, settings.bind, port).start()
            stack.callback(self.metrics.stop)
            self._stack = stack.pop_all()
        self._worker = dramatiq.Worker(self.broker, worker_timeout=_WAKE_MILLIS, worker_threads=_THREADS)
        self._stop_millis = _STOP_MILLIS
        self._started = time.monotonic()

    def _open_writer(self, stack: ExitStack) -> CollectorRegistry:
        """Open the writer, if a sink in use posts to it, and give the registry of all that the run counts."""
        registry, of_the_writer = CollectorRegistry(), CollectorRegistry()
        registry.register(of_the_writer)
        ProcessCollector(registry=registry)
        if _needs_writer(self.settings, self._plugins):
            self.writer = WriterServer(self.settings, of_the_writer, inside=lambda: self.backend.records.inside())
            stack.callback(self.writer.stop)
            self.settings = self.settings.model_copy(update={"writer_url": self.writer.url})
        return registry

    def __enter__(self) -> Self:
        if self.writer:
            self.writer.start()
        self._worker.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._worker.stop(self._stop_millis)
        self._stack.close()

    def run(self, stop: threading.Event, duration: float | None = None, watcher: Watcher | None = None) -> None:
        """Let the cameras work until they are done, the time is up, or a stop is requested."""
        now = self._clock.monotonic()
        for lane in self._lanes:
            lane.schedule.shift(now - lane.schedule.due)
        until = None if duration is None else self._lanes[0].schedule.due + duration
        Run(self._lanes, self._publisher, clock=self._clock, stop=stop, watcher=watcher, until=until).run()

    def finish(self, abort: threading.Event, watcher: Watcher | None = None) -> bool:
        """Wait until everything that was published is processed and every sink has its summaries."""
        watcher = watcher or Watcher()
        deadline, silent_until = None, time.monotonic() + _SILENT
        while not abort.is_set():
            if self._is_idle():
                backlogs = self.backend.records.backlogs()
                if not any(backlog.waiting for backlog in backlogs):
                    return not any(backlog.dead for backlog in backlogs)
                deadline = deadline or time.monotonic() + GRACE
                if time.monotonic() > deadline:
                    return False
            if time.monotonic() > silent_until:
                silent_until = math.inf
                watcher.say(
                    f"finishing what was published; a sink that fails gets {GRACE:.0f} s; Ctrl-C ends it at once"
                )
            watcher.progress(self._lanes)
            abort.wait(_GLANCE)
        self._stop_millis = _ABORT_MILLIS
        return False

    def snapshot(self) -> Snapshot:
        """Look at the run."""
        counts = {queue: self.broker.counts(queue) for queue in event_queues(self.settings.partitions)}
        return Snapshot(
            seconds=time.monotonic() - self._started,
            report=self.report(),
            ready={queue: count["ready"] + count["unacked"] for queue, count in counts.items()},
            undelivered={backlog.sink: backlog.waiting for backlog in self.backend.records.backlogs()},
            latest=list(self._latest),
            waiting=[f"{lane.camera.kind}: {lane.tally.waiting}" for lane in self._lanes if lane.tally.waiting],
        )

    def report(self) -> Report:
        """Count what happened so far."""
        there = self.backend.records.snapshot()
        return Report.of_counts(
            there.counts,
            published=sum(lane.tally.published for lane in self._lanes),
            inside=there.inside,
            undelivered=there.undelivered,
            dead=sum(self.broker.counts(queue)["dead"] for queue in self.broker.names),
        )

    @property
    def not_made(self) -> int:
        """Events that were due before the end and were not made."""
        return sum(lane.tally.not_made for lane in self._lanes)

    @property
    def held_back(self) -> int:
        """Events that the rates would have made and that were not due, because a camera waited for somebody."""
        return sum(int(lane.tally.waited * lane.schedule.rate) for lane in self._lanes if not lane.done)

    def letters(self) -> Iterator[tuple[str, StoredMessage]]:
        """Give what ends with this process unless it is kept: dead letters, and summaries that wait for a sink."""
        for name in map(xq_name, self.broker.names):
            yield from ((name, each) for each in self.broker.messages(name))
        records = self.backend.records
        for backlog in records.backlogs():
            why = f"sink {backlog.sink!r} had not taken it when the run ended: {backlog.error or 'it was not its turn'}"
            for summary, state in records.outbox(backlog.sink).stays():
                if state == "waiting":
                    yield (
                        xq_name(WORK),
                        StoredMessage(summary_message(backlog.sink, summary).encode(), headers_for(why)),
                    )

    def _is_idle(self) -> bool:
        return all(not (count["ready"] or count["unacked"]) for count in map(self.broker.counts, self.broker.names))

    def _note(self, effect: Recorded) -> None:
        self._publisher.processed(effect.key)
        if (summary := effect.summary) is not None:
            self._latest.appendleft(summary)
