"""The backend: actors on the queues, thin over the records. docs/explanation/architecture.md has the whole way."""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import dramatiq
from dramatiq.broker import Broker, MessageProxy
from dramatiq.errors import Retry
from dramatiq.middleware import CurrentMessage, Middleware

from carpark.backend.gate import Gate
from carpark.backend.meter import Meter
from carpark.backend.prometheus import Prometheus
from carpark.backend.relay import Relay
from carpark.backend.servers import check_servers, is_checked
from carpark.backend.waiting import Waiting
from carpark.broker import RabbitmqBroker, StubBroker, make_broker
from carpark.broker.batches import parts_of
from carpark.broker.failures import Failures
from carpark.broker.reading import Marker, RejectedMessage
from carpark.domain.events import Event, StaySummary, VehicleEntered, VehicleExited
from carpark.domain.routing import DELIVER, WORK, event_of, event_queues, is_event_queue, partition_of, partition_queue
from carpark.errors import CarparkError, ConfigurationError, MessageError
from carpark.failpoints import failpoints
from carpark.plugins import Plugins
from carpark.records import Outcome, Recorded, Records, open_records
from carpark.settings import Settings
from carpark.settings.options import EXIT_USAGE, fail
from carpark.telemetry import folder

log = logging.getLogger(__name__)


class NotRecorded(CarparkError):
    """The records refused an event, whatever is tried: its plate's key is not what it should be."""

    def __init__(self, reason: str, places: Sequence[int]) -> None:
        super().__init__(reason)
        self.places = tuple(places)


class Backend:
    """What a worker process works with: the broker with its actors, the records, the sinks.

    Making it connects to nothing; a worker that boots opens it.
    """

    def __init__(self, settings: Settings, plugins: Plugins, watch: Callable[[Recorded], None] | None = None) -> None:
        self._watch = watch
        self._settings = settings
        self._stopping = threading.Event()
        self._records: Records | None = None
        self._waiting = Waiting(self._stopping, "events wait for the records", "the records are back")
        self._sinks = plugins.make_sinks(plugins.context(settings))
        self.meter = Meter(tuple(self._sinks))
        self.prometheus = Prometheus(settings, self.meter)
        self.broker: RabbitmqBroker | StubBroker = make_broker(
            settings.broker_url,
            [_Lifecycle(self), Failures(), CurrentMessage(), self.prometheus],
            queue_type=settings.queue_type,
            batch=settings.batch,
        )
        self._gates = [self._gate(number) for number in range(settings.partitions)]
        self._reached = failpoints()
        self._relay = Relay(
            settings, self._sinks, lambda: self.records, self.broker.dead_letter, self.meter, self._reached
        )
        self.actors = self._declare_actors()

    def _declare_actors(self) -> dict[str, dramatiq.Actor[..., None]]:
        options: dict[str, Any] = {"throws": (MessageError, NotRecorded)}

        def declare(function: Callable[..., None], name: str, queue: str) -> dramatiq.Actor[..., None]:
            return dramatiq.actor(broker=self.broker, actor_name=name, queue_name=queue, **options)(function)

        queues = event_queues(self._settings.partitions)
        return {
            **{queue: declare(self._processing(queue), queue, queue) for queue in queues},
            DELIVER: declare(self.take_back, DELIVER, WORK),
        }

    def _gate(self, partition: int) -> Gate:
        entries, exits = (partition_queue(each.queue, partition) for each in (VehicleEntered, VehicleExited))
        mark = partial(self.broker.publish_marker, entries)
        return Gate(mark, lambda: self.broker.dispatchers.of(exits).count, partition=partition)

    def _processing(self, queue: str) -> Callable[..., None]:
        partition = partition_of(queue)
        return lambda *events: self.process(*events, partition=partition)

    @property
    def records(self) -> Records:
        """The records; opened when they are first asked for."""
        if self._records is None:
            self._records = open_records(self._settings.redis_url, self._settings.retention, tuple(self._sinks))
        return self._records

    def process(self, *events: Event | Marker, partition: int = 0) -> None:
        """Record events; the summaries that they yield are in the outbox of each sink then."""
        if isinstance(marker := events[0], Marker):
            self._waiting.until_done(lambda: self.records.reach(marker.id, partition))
            return
        self._process(cast("Sequence[Event]", events), partition)  # a marker goes alone

    def _process(self, events: Sequence[Event], partition: int) -> None:
        started = time.perf_counter()
        self._reached("before-record")
        recorded = self._waiting.until_done(lambda: self._record(events, partition))
        if any(effect.outcome is Outcome.MATCHED for effect in recorded):
            self._reached("after-record")
            self._relay.wake()
        self.meter.recorded(events[0].kind, recorded, _sent_at(recorded))
        refused = [place for place, effect in enumerate(recorded) if effect.error]
        self.meter.processed(events[0].kind, len(events) - len(refused), time.perf_counter() - started)
        self._reached("before-ack")
        if self._watch is not None:
            for effect in recorded:
                if not effect.error:
                    self._watch(effect)
        if refused:
            raise NotRecorded(recorded[refused[0]].error, refused)

    def _record(self, events: Sequence[Event], partition: int) -> list[Recorded]:
        if events[0].kind == VehicleExited.kind:
            message = CurrentMessage.get_current_message()
            last = parts_of(message)[-1].number if message else 0
            if not getattr(message, "held", 0):
                self._relay.wake()  # as a rule its question comes to the records right behind the step
            return self._gates[partition].record(self.records, events, last)
        return self.records.record_entries(events, partition)

    def take_back(self, sink: str, summary: StaySummary) -> None:
        """Have a summary that was given up, and whose dead letter was sent again, wait for its sink like a new one."""
        if self._waiting.until_done(lambda: self.records.outbox(sink).put_back(summary)):
            self._relay.wake()
        else:
            log.warning("%s: summary %s is not held as given up for sink %s: no effect", WORK, summary.id, sink)

    def reject(self, queue: str) -> None:
        """Count a message that was not an event."""
        try:
            self._waiting.until_done(lambda: self.records.reject(event_of(queue).kind, partition_of(queue)))
        except Retry as error:
            log.error("a rejected message of %s was not counted: %s", queue, error)
        else:
            self.meter.rejected(queue)

    def start(self) -> None:
        """Begin to deliver what the records hold for the sinks."""
        # The first of a worker's processes checks for all: what is wrong is said once, and ends them all.
        is_first = isinstance(self.broker, RabbitmqBroker) and folder.enter(folder.master_pid() or os.getpid())[1]
        if is_first and not is_checked():
            check_servers(self._settings)
        self._relay.start()

    def stop(self) -> None:
        """Stop waiting for servers: the process is about to end."""
        self._stopping.set()
        self._relay.stop_soon()

    def close(self) -> None:
        """Let go of sinks and records."""
        self._relay.stop()
        if self._records is not None:
            self._records.close()


class _Lifecycle(Middleware):
    """Ties the backend to the worker that runs it."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def after_process_boot(self, broker: Broker) -> None:
        gc.freeze()  # what is imported stays; to look through it again and again stops all events for 20 ms each time

    def before_worker_boot(self, broker: Broker, worker: dramatiq.Worker) -> None:
        try:
            self._backend.start()
        except ConfigurationError as error:
            fail(EXIT_USAGE, *(f"carpark: {each}" for each in error.findings))

    def before_worker_shutdown(self, broker: Broker, worker: dramatiq.Worker) -> None:
        self._backend.stop()

    def after_worker_shutdown(self, broker: Broker, worker: dramatiq.Worker) -> None:
        self._backend.close()

    def after_nack(self, broker: Broker, message: MessageProxy) -> None:
        if isinstance(message._message, RejectedMessage) and is_event_queue(message.actor_name):
            self._backend.reject(message.actor_name)


def _sent_at(recorded: Sequence[Recorded]) -> list[float | None]:
    """Say of the events that were recorded when they were sent, as far as they say it."""
    message = CurrentMessage.get_current_message()
    if message is None:
        return []
    parts = parts_of(message)
    return [getattr(part, "sent_at", None) for part, effect in zip(parts, recorded, strict=True) if not effect.error]
