"""One sink in use, kept apart from the others: it is called in threads of its own, so that nobody waits for it long."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue

from carpark.errors import DeliveryError, SinkUnavailable, SummaryRefused
from carpark.events import StaySummary
from carpark.metrics import Meter
from carpark.plugins.base import Sink

log = logging.getLogger(__name__)

PATIENCE = 0.5
"""Seconds that a sink which is well may take before its summaries are queued for it, and nobody waits any more."""

LITTLE_PATIENCE = 0.1
"""The same for a sink that fails."""


class SinkBusy(DeliveryError):
    """The sink has not answered yet, or it fails and is being tried already: the outcome is not known."""


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
        self._state = threading.Lock()
        self._failing_since: float | None = None
        self._attempt = threading.Lock()
        self._calls: SimpleQueue[tuple[Future[None], Sequence[Parcel]] | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []

    @property
    def fails(self) -> bool:
        """Whether the last attempt failed, or has taken too long until now."""
        return self._failing_since is not None

    @property
    def failing(self) -> float:
        """For how many seconds it has failed."""
        since = self._failing_since
        return 0.0 if since is None else time.monotonic() - since

    def offer(self, parcels: Sequence[Parcel]) -> None:
        """Deliver summaries to the sink, however long it takes.

        Args:
            parcels: What is delivered, as one list.

        Raises:
            SinkBusy: The sink fails and is being tried; nothing was offered.
            SummaryRefused: The sink will never take them, or those that the error names.
            SinkUnavailable: The sink failed in any other way.
        """
        if not self.fails:
            return self._deliver(parcels)
        if not self._attempt.acquire(blocking=False):
            raise SinkBusy(f"sink {self.name!r} fails and is being tried")
        try:
            return self._deliver(parcels)
        finally:
            self._attempt.release()

    def begin(self, parcels: Sequence[Parcel]) -> Future[None]:
        """Begin to deliver summaries to the sink.

        Args:
            parcels: What is delivered, as one list.

        Returns:
            What `wait` waits for.
        """
        call: Future[None] = Future()
        self._calls.put((call, parcels))
        if not self._idle.acquire(blocking=False):
            # A daemon: a sink that never answers must not keep the process from ending.
            thread = threading.Thread(target=self._work, name=f"sink {self.name}", daemon=True)
            self._threads.append(thread)
            thread.start()
        return call

    def wait(self, call: Future[None]) -> None:
        """Wait for a delivery that was begun, but not for long.

        Args:
            call: What `begin` returned.

        Raises:
            SinkBusy: It is not done yet, or was not tried because the sink fails and is being tried.
            SummaryRefused: The sink will never take the summaries, or those that the error names.
            SinkUnavailable: The sink failed in any other way.
        """
        patience = LITTLE_PATIENCE if self.fails else PATIENCE
        try:
            call.result(patience)
        except TimeoutError:
            # If it ends well after all it says so itself, and the retry finds that the sink has the summaries.
            self._note_failure(f"no answer within {patience:g} s")
            raise SinkBusy(f"sink {self.name!r} has not answered yet") from None

    def close(self) -> None:
        """Close the sink; what it raises is logged."""
        for _ in self._threads:
            self._calls.put(None)
        try:
            self._sink.close()
        except Exception:
            log.exception("sink %s could not be closed", self.name)

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            call, parcels = item
            try:
                self.offer(parcels)
            except DeliveryError as error:
                call.set_exception(error)
            else:
                call.set_result(None)
            self._idle.release()

    def _deliver(self, parcels: Sequence[Parcel]) -> None:
        started, failed = time.perf_counter(), True
        try:
            self._hand_over([parcel.summary for parcel in parcels])
            failed = False
        except SummaryRefused:
            self._is_well()
            raise
        except Exception as error:
            reason = error if isinstance(error, DeliveryError) else f"{type(error).__name__}: {error}"
            self._note_failure(reason)
            raise SinkUnavailable(f"sink {self.name!r}: {reason}") from error
        finally:
            self._meter.delivery(self.name, time.perf_counter() - started, failed)
        self._is_well()

    def _hand_over(self, summaries: Sequence[StaySummary]) -> None:
        try:
            self._sink.deliver(summaries)
        except SummaryRefused as error:
            ids = [summary.id for summary in summaries]
            if error.ids and set(error.ids) <= set(ids):
                raise
            # Refused as a whole, or by ids of others: what came together by chance shall not be refused together.
            refused = ids if len(ids) == 1 else [summary.id for summary in summaries if self._is_refused(summary)]
            if refused:
                raise SummaryRefused(str(error), tuple(refused)) from error

    def _is_refused(self, summary: StaySummary) -> bool:
        try:
            self._sink.deliver([summary])
        except SummaryRefused:
            return True
        return False

    def _note_failure(self, reason: object) -> None:
        with self._state:
            is_news = self._failing_since is None
            if is_news:
                self._failing_since = time.monotonic()
        if is_news:
            log.warning("sink %s fails: %s; its summaries are kept and tried again", self.name, reason)

    def _is_well(self) -> None:
        with self._state:
            failed, self._failing_since = self._failing_since, None
        if failed is not None:
            log.warning("sink %s takes summaries again", self.name)
