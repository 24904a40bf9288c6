"""Summaries on their way to the sinks: each by itself; what fails is tried again, what is given up is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from dramatiq.common import compute_backoff
from dramatiq.errors import Retry
from dramatiq.message import Message

from carpark.broker.reading import DELIVER
from carpark.errors import DeliveryError, MessageError, SinkUnavailable, SummaryRefused
from carpark.events import StaySummary, VehicleExited
from carpark.failpoints import Failpoint
from carpark.metrics import Meter
from carpark.outlet import Outlet, Parcel, SinkBusy
from carpark.plugins.base import Sink
from carpark.records import Records, Settled
from carpark.settings import Settings

TOGETHER = 3
"""How many retries a list of summaries is tried as a list; then each goes alone, so that one cannot hold up others. But
what came while its sink failed already stays a list: the sink is the reason, and each alone would be many messages."""


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


class Delivery:
    """Brings summaries to all sinks in use.

    Args:
        settings: The retries of the sinks.
        sinks: Name to sink.
        queue: Where retries and dead letters go.
        meter: Counts what becomes of summaries.
        reached: Is told that summaries have been taken.
        noted: Does what notes an outcome in the records. It may wait for records that are away, so that nothing is
            queued or offered a second time because of them.
    """

    def __init__(
        self,
        settings: Settings,
        sinks: Mapping[str, Sink],
        queue: Queue,
        meter: Meter,
        reached: Failpoint = lambda name: None,
        noted: Callable[[Callable[[], int]], int] = lambda note: note(),
    ) -> None:
        self._outlets = {name: Outlet(name, sink, meter) for name, sink in sinks.items()}
        self._queue, self._meter, self._reached, self._noted = queue, meter, reached, noted
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
        calls = [(self._outlets[name], parcels, self._outlets[name].begin(parcels)) for name, parcels in wanted.items()]
        # Those that fail come last: what is done for them must not keep the others waiting.
        for outlet, parcels, call in sorted(calls, key=lambda each: each[0].fails):
            taken = parcels
            try:
                outlet.wait(call)
            except SummaryRefused as error:
                taken = self._refuse(records, outlet.name, parcels, error)
            except DeliveryError as error:
                if isinstance(error, SinkUnavailable) and self._retries == 0 and len(parcels) == 1:
                    self._bury(records, outlet.name, parcels, f"{error}; no retry is wanted")
                else:
                    self._queue.enqueue(_message(outlet.name, parcels), delay=self._delay(0, outlet))
                    self._settle(records, outlet.name, parcels, Settled.RETRIED)
                continue
            if taken:
                self._reached("after-sink")
                self._settle(records, outlet.name, taken, Settled.DELIVERED)

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
        retry = int(message.options.get("retries", 0)) + 1
        try:
            outlet.offer(parcels)
        except SinkBusy:
            # Nothing was tried, so it does not count as a retry.
            self._queue.enqueue(message.copy(), delay=self._delay(0, outlet))
            return
        except SummaryRefused as error:
            parcels = self._refuse(records, name, parcels, error)
        except SinkUnavailable as error:
            one_may_be_why = retry >= TOGETHER and not _failed_before(outlet, message)
            if len(parcels) > 1 and (one_may_be_why or retry >= self._retries):
                self._part(records, name, parcels, retry)
                return
            if retry >= self._retries:
                self._settle(records, name, parcels, Settled.FAILED)
                times = "1 retry" if retry == 1 else f"{retry} retries"
                raise SinkUnavailable(f"{error}; given up after {times}") from error
            self._settle(records, name, parcels, Settled.RETRIED)
            raise Retry(str(error), delay=self._delay(retry)) from error
        if parcels:
            self._reached("after-sink")
            self._settle(records, name, parcels, Settled.DELIVERED)

    def close(self) -> None:
        """Close the sinks."""
        for outlet in self._outlets.values():
            outlet.close()

    def _part(self, records: Records, name: str, parcels: Sequence[Parcel], retry: int) -> None:
        """Queue each summary of a list again on its own: only what was tried alone is given up."""
        for parcel in parcels:
            message = _message(name, [parcel], max(0, min(retry, self._retries - 1)))
            self._queue.enqueue(message, delay=self._delay(retry))
        self._settle(records, name, parcels, Settled.RETRIED)

    def _refuse(self, records: Records, name: str, parcels: Sequence[Parcel], error: SummaryRefused) -> list[Parcel]:
        """Keep what was refused as a dead letter; give back what the sink took."""
        refused = [p for p in parcels if not error.ids or p.summary.id in error.ids]
        if refused:
            self._bury(records, name, refused, f"sink {name!r} refused: {error}")
        return [p for p in parcels if error.ids and p.summary.id not in error.ids]

    def _bury(self, records: Records, name: str, parcels: Sequence[Parcel], why: str) -> None:
        for parcel in parcels:
            self._queue.dead_letter(_message(name, [parcel]), why)
        self._settle(records, name, parcels, Settled.FAILED)

    def _settle(self, records: Records, name: str, parcels: Sequence[Parcel], outcome: Settled) -> None:
        self._meter.settled(name, outcome, self._noted(lambda: records.settle(name, _keys(parcels), outcome)))

    def _delay(self, retries: int, outlet: Outlet | None = None) -> int:
        """Say after how many milliseconds to try again: doubled with each retry, with jitter.

        What is queued because its sink fails waits as long as a summary does that was tried when the sink began to
        fail: half to all of the time since then.
        """
        low, high = self._backoff
        if outlet is not None:
            low = max(low, min(high, int(outlet.failing * 500)))
        delay: int = compute_backoff(retries, factor=low, max_backoff=high)[1]
        return delay


def _failed_before(outlet: Outlet, message: Message[Any]) -> bool:
    """Whether a sink that fails did so a second before the message was made, and has never been well since."""
    return outlet.failing > time.time() - message.message_timestamp / 1000 + 1


def _keys(parcels: Sequence[Parcel]) -> list[str]:
    return [parcel.key for parcel in parcels]


def _message(sink: str, parcels: Sequence[Parcel], retries: int = 0) -> Message[Any]:
    return Message(
        queue_name=VehicleExited.queue,
        actor_name=DELIVER,
        args=(),
        kwargs={
            "sink": sink,
            "keys": _keys(parcels),
            "summaries": [parcel.summary.to_dict() for parcel in parcels],
        },
        options={"retries": retries},
    )


def _parcels(message: Message[Any]) -> tuple[str, list[Parcel]]:
    sink, keys, summaries = (message.kwargs[name] for name in ("sink", "keys", "summaries"))
    lists = isinstance(keys, list) and isinstance(summaries, list) and len(keys) == len(summaries)
    if not isinstance(sink, str) or not lists or not all(isinstance(key, str) for key in keys):
        raise MessageError(f"kwargs: are not those of {DELIVER}")
    return sink, [Parcel(key, StaySummary.parse(fields)) for key, fields in zip(keys, summaries, strict=True)]
