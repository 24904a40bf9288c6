"""Summaries on their way to the sinks: each by itself; what fails is tried again, what is given up is kept."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dramatiq.common import compute_backoff
from dramatiq.errors import Retry
from dramatiq.message import Message

from carpark.broker.reading import DELIVER
from carpark.errors import DeliveryError, MessageError, SinkUnavailable, SummaryRefused
from carpark.events import StaySummary, VehicleExited
from carpark.metrics import Meter
from carpark.plugins.base import Sink
from carpark.records import Records, Settled
from carpark.settings import Settings

log = logging.getLogger(__name__)


class SinkBusy(DeliveryError):
    """The sink fails, and somebody else in this process is trying it already."""


class Queue(Protocol):
    """What delivery needs of a broker."""

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Queue a message safely.

        Args:
            message: The message.
            delay: Milliseconds before it is worked on.

        Returns:
            The message as it was sent.

        Raises:
            BrokerConnectionError: It could not be queued.
        """

    def dead_letter(self, message: Message[Any], why: str) -> None:
        """Keep a message as a dead letter.

        Args:
            message: The message.
            why: The reason, one line.

        Raises:
            BrokerConnectionError: It could not be kept.
        """


@dataclass(frozen=True)
class Parcel:
    """A summary with the key under which the records know it as undelivered.

    Args:
        key: ``kind/id`` of the event that finished the stay.
        summary: The stay.
    """

    key: str
    summary: StaySummary


class Outlet:
    """One sink in use. While it fails, only one attempt at a time is made, so that it cannot fill the threads.

    Args:
        name: The sink's name.
        sink: The sink.
        meter: Times each delivery.
    """

    def __init__(self, name: str, sink: Sink, meter: Meter) -> None:
        self.name, self._sink, self._meter = name, sink, meter
        self.failures = 0
        self._attempt = threading.Lock()
        self._state = threading.Lock()

    @property
    def fails(self) -> bool:
        """Whether the last attempt failed."""
        return self.failures > 0

    def offer(self, parcels: Sequence[Parcel]) -> None:
        """Deliver summaries to the sink.

        Args:
            parcels: What is delivered, as one list.

        Raises:
            SinkBusy: The sink fails and is being tried; nothing was offered.
            SummaryRefused: The sink will never take them, or those that the error names.
            SinkUnavailable: The sink failed in any other way.
        """
        if not self.fails:
            return self._offer(parcels)
        if not self._attempt.acquire(blocking=False):
            raise SinkBusy(f"sink {self.name!r} fails and is being tried")
        try:
            return self._offer(parcels)
        finally:
            self._attempt.release()

    def _offer(self, parcels: Sequence[Parcel]) -> None:
        started, failed = time.perf_counter(), True
        try:
            self._sink.deliver([parcel.summary for parcel in parcels])
            failed = False
        except SummaryRefused:
            self._is_well()
            raise
        except Exception as error:
            reason = error if isinstance(error, DeliveryError) else f"{type(error).__name__}: {error}"
            with self._state:
                self.failures += 1
                is_news = self.failures == 1
            if is_news:
                log.warning("sink %s fails: %s; its summaries are kept and tried again", self.name, reason)
            raise SinkUnavailable(f"sink {self.name!r}: {reason}") from error
        finally:
            self._meter.delivery(self.name, time.perf_counter() - started, failed)
        self._is_well()

    def _is_well(self) -> None:
        with self._state:
            failed, self.failures = self.failures, 0
        if failed:
            log.warning("sink %s takes summaries again", self.name)

    def close(self) -> None:
        """Close the sink; what it raises is logged."""
        try:
            self._sink.close()
        except Exception:
            log.exception("sink %s could not be closed", self.name)


class Delivery:
    """Brings summaries to all sinks in use.

    Args:
        settings: The retries of the sinks.
        sinks: Name to sink.
        queue: Where retries and dead letters go.
        meter: Counts what becomes of summaries.
    """

    def __init__(self, settings: Settings, sinks: Mapping[str, Sink], queue: Queue, meter: Meter) -> None:
        self._outlets = {name: Outlet(name, sink, meter) for name, sink in sinks.items()}
        self._queue, self._meter = queue, meter
        self._retries = settings.sink_retries
        self._backoff = (int(settings.sink_retry_min * 1000), int(settings.sink_retry_max * 1000))

    def send(self, records: Records, wanted: Mapping[str, Sequence[Parcel]]) -> None:
        """Deliver new summaries; what a sink does not take is queued for it or kept as a dead letter.

        Args:
            records: Where the outcome is noted.
            wanted: Name of a sink to what it shall get.

        Raises:
            BrokerConnectionError: A retry could not be queued; sending again later is safe.
            RecordsUnavailable: The outcome could not be noted; sending again later is safe.
        """
        # Those that fail come last: their timeouts must not keep the others waiting.
        for name in sorted(wanted, key=lambda name: self._outlets[name].fails):
            parcels = list(wanted[name])
            try:
                self._outlets[name].offer(parcels)
            except SummaryRefused as error:
                parcels = self._bury(records, name, parcels, error)
            except DeliveryError:
                delay = self._delay(self._outlets[name].failures)
                self._queue.enqueue(_message(name, parcels), delay=delay)
                self._settle(records, name, parcels, Settled.RETRIED)
                continue
            if parcels:
                self._settle(records, name, parcels, Settled.DELIVERED)

    def send_again(self, records: Records, message: Message[Any]) -> None:
        """Work on a retry.

        Args:
            records: Where the outcome is noted.
            message: The message to `DELIVER`, with its sink, keys and summaries.

        Raises:
            Retry: The sink still fails; Dramatiq queues the message again.
            SinkUnavailable: The sink still fails and the retries are used up.
            MessageError: The message is not one that this backend wrote.
            BrokerConnectionError: It could not be queued again; working on it again later is safe.
            RecordsUnavailable: The outcome could not be noted; working on it again later is safe.
        """
        name, parcels = _parcels(message)
        outlet = self._outlets.get(name)
        if outlet is None:
            raise MessageError(f"sink {name!r} is not in use any more: add it to CARPARK_SINKS and send this again")
        retries = int(message.options.get("retries", 0))
        try:
            outlet.offer(parcels)
        except SinkBusy:
            # Nothing was tried, so it does not count as a retry.
            self._queue.enqueue(message.copy(), delay=self._delay(outlet.failures))
            return
        except SummaryRefused as error:
            parcels = self._bury(records, name, parcels, error)
        except SinkUnavailable as error:
            if retries >= self._retries:
                self._settle(records, name, parcels, Settled.FAILED)
                raise SinkUnavailable(f"{error}; given up after {retries} retries") from error
            self._settle(records, name, parcels, Settled.RETRIED)
            raise Retry(str(error), delay=self._delay(retries + 1)) from error
        if parcels:
            self._settle(records, name, parcels, Settled.DELIVERED)

    def close(self) -> None:
        """Close the sinks."""
        for outlet in self._outlets.values():
            outlet.close()

    def _bury(self, records: Records, name: str, parcels: Sequence[Parcel], error: SummaryRefused) -> list[Parcel]:
        """Keep what was refused as a dead letter; give back what the sink took."""
        refused = [p for p in parcels if not error.ids or p.summary.id in error.ids]
        if refused:
            self._queue.dead_letter(_message(name, refused), f"sink {name!r} refused: {error}")
            self._settle(records, name, refused, Settled.FAILED)
        return [p for p in parcels if error.ids and p.summary.id not in error.ids]

    def _settle(self, records: Records, name: str, parcels: Sequence[Parcel], outcome: Settled) -> None:
        self._meter.settled(name, outcome, records.settle(name, _keys(parcels), outcome))

    def _delay(self, retries: int) -> int:
        """Say after how many milliseconds to try again: doubled with each failure, with jitter."""
        low, high = self._backoff
        delay: int = compute_backoff(min(retries, 32), factor=low, max_backoff=high)[1]
        return delay


def _keys(parcels: Sequence[Parcel]) -> list[str]:
    return [parcel.key for parcel in parcels]


def _message(sink: str, parcels: Sequence[Parcel]) -> Message[Any]:
    return Message(
        queue_name=VehicleExited.queue,
        actor_name=DELIVER,
        args=(),
        kwargs={
            "sink": sink,
            "keys": _keys(parcels),
            "summaries": [parcel.summary.to_dict() for parcel in parcels],
        },
        options={"retries": 0},
    )


def _parcels(message: Message[Any]) -> tuple[str, list[Parcel]]:
    sink, keys, summaries = (message.kwargs[name] for name in ("sink", "keys", "summaries"))
    lists = isinstance(keys, list) and isinstance(summaries, list) and len(keys) == len(summaries)
    if not isinstance(sink, str) or not lists or not all(isinstance(key, str) for key in keys):
        raise MessageError(f"kwargs: are not those of {DELIVER}")
    return sink, [Parcel(key, StaySummary.parse(fields)) for key, fields in zip(keys, summaries, strict=True)]
