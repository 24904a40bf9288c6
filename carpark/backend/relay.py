"""The relay of the transactional outbox: brings what the records hold for each sink to it, apart from all events.

A sink that fails opens its circuit breaker: it is left alone for longer each time, then one batch tries it. The breaker
is in the records, so it is one for all workers, and a restart neither forgets nor hastens it.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from dramatiq.common import compute_backoff
from dramatiq.errors import Retry
from dramatiq.message import Message

from carpark.backend.meter import Meter
from carpark.backend.waiting import Waiting
from carpark.domain.events import StaySummary
from carpark.domain.routing import DELIVER, WORK
from carpark.errors import DeliveryError, SummaryRefused, one_line
from carpark.failpoints import Failpoint
from carpark.plugins.base import Sink
from carpark.records import Batch, Outbox, Records, Settled, Settlement
from carpark.settings import Settings

log = logging.getLogger(__name__)

GLANCE = 1.0
"""Seconds after which a relay looks for what others have left, unless something wakes it before."""

MARGIN = 5.0
"""Seconds that a lease lasts beyond the longest call of a sink."""

TOGETHER = 3
"""How often a batch is offered as one before its members are offered one by one."""

FEW = 3
"""How many members fail one by one, and none is taken, until it is the sink that is to blame."""

DeadLetter = Callable[[Message[Any], str], None]
"""Keeps a message as a dead letter for a reason, and returns when that is confirmed."""


class Relay:
    """Brings summaries from the outboxes to the sinks in use, each sink in a thread of its own."""

    def __init__(
        self,
        settings: Settings,
        sinks: Mapping[str, Sink],
        records: Callable[[], Records],
        dead_letter: DeadLetter,
        meter: Meter,
        reached: Failpoint = lambda name: None,
    ) -> None:
        self._records, self._sinks, self._stopping = records, sinks, threading.Event()
        self._patience = settings.sink_timeout + MARGIN
        self._relays = [
            SinkRelay(name, sink, settings, dead_letter, meter, reached, self._stopping) for name, sink in sinks.items()
        ]

    def start(self) -> None:
        """Begin to deliver."""
        for relay in self._relays:
            relay.start(self._records().outbox(relay.name))

    def wake(self) -> None:
        """Look for summaries at once: some have just been recorded."""
        for relay in self._relays:
            relay.wake()

    def stop_soon(self) -> None:
        """Take no further batch."""
        self._stopping.set()
        self.wake()

    def stop(self) -> None:
        """End the calls in hand, for as long as a sink may take, and close the sinks; what waits is in the outbox."""
        self.stop_soon()
        deadline = time.monotonic() + self._patience
        for relay in self._relays:
            relay.join(max(0.0, deadline - time.monotonic()))
        for name, sink in self._sinks.items():
            try:
                sink.close()
            except Exception:
                log.exception("sink %s could not be closed", name)


class SinkRelay:
    """The way to one sink: takes a batch, offers it, settles it."""

    def __init__(
        self,
        name: str,
        sink: Sink,
        settings: Settings,
        dead_letter: DeadLetter,
        meter: Meter,
        reached: Failpoint,
        stopping: threading.Event,
    ) -> None:
        self.name, self._sink, self._meter, self._reached, self._stopping = name, sink, meter, reached, stopping
        self._dead_letter, self._retries, self._lease = (
            dead_letter,
            settings.sink_retries,
            settings.sink_timeout + MARGIN,
        )
        self._backoff = (int(settings.sink_retry_min * 1000), int(settings.sink_retry_max * 1000))
        self._fails = False
        self._waiting = Waiting(stopping, f"summaries for sink {name} wait", f"summaries for sink {name} go on")
        self._asked_at = 0.0  # when the present batch was asked for: its lease began no earlier
        self._news = threading.Event()
        # A daemon: a sink that never answers must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name=f"relay to {name}", daemon=True)

    def start(self, outbox: Outbox) -> None:
        """Begin to deliver."""
        self._outbox = outbox
        self._thread.start()

    def wake(self) -> None:
        """Look for summaries at once."""
        self._news.set()

    def join(self, timeout: float) -> None:
        """Wait until the call in hand has ended."""
        if self._thread.is_alive():
            self._thread.join(timeout)

    def turn(self, batch: Batch | None = None) -> Batch | float:
        """Deliver a batch, if there is one."""
        if batch is None:
            self._asked_at = time.monotonic()
            taken = self._outbox.take(self._lease, self._sink.batch)
            if not isinstance(taken, Batch):
                return taken
            batch = taken
        became, reasons = self._offer(batch, self._asked_at + MARGIN / 2)
        if became.delivered != []:
            self._reached("after-sink")
        self._note_health(became)
        with suppress(Retry):
            self._waiting.until_done(lambda: self._bury(batch, reasons))
        became.dead = [id_ for id_ in became.dead if id_ not in reasons]  # at a stop some may not be buried yet
        self._news.clear()
        with suppress(Retry):
            counted, following = self._waiting.until_done(lambda: self._settle(batch, became))
            for outcome, count in zip(Settled, counted, strict=False):
                self._meter.settled(self.name, outcome, count)
            return following
        return 0.0

    def _settle(self, batch: Batch, became: Settlement) -> tuple[tuple[int, int, int], Batch | float]:
        if self._stopping.is_set():
            return self._outbox.settle(batch, became), 0.0
        self._asked_at = time.monotonic()
        return self._outbox.settle_and_take(batch, became, self._lease, self._sink.batch)

    def _work(self) -> None:
        following: Batch | float | None = None
        while isinstance(following, Batch) or not self._stopping.is_set():
            batch = following if isinstance(following, Batch) else None
            if batch is None:
                self._news.clear()
            try:
                following = self._waiting.until_done(partial(self.turn, batch))
            except Retry:
                return
            except Exception:
                log.exception("the relay to sink %s goes on after an error of its own", self.name)
                following = GLANCE
            if isinstance(following, Batch) or not following:
                continue
            # While another relay has a batch in hand, news of this process are in that one's next. While the sink fails
            # none hastens it.
            pause = GLANCE if following < 0 else min(following, GLANCE)
            (self._stopping if self._fails else self._news).wait(pause)

    def _offer(self, batch: Batch, deadline: float) -> tuple[Settlement, dict[str, str]]:
        """Offer a batch; give what became of its members, and why those died that did.

        After the deadline no further call is begun, so that the last one ends before the lease does.
        """
        members = batch.summaries
        if len(members) > 1 and (batch.attempt > TOGETHER or batch.attempt > max(1, self._retries)):
            return self._offer_each(batch, deadline)
        refused, error = self._deliver(members)
        if refused is None:
            return self._offer_each(batch, deadline)
        reasons = {id_: f"sink {self.name!r} refused: {reason}" for id_, reason in refused.items()}
        if not error:
            taken = [each.id for each in members if each.id not in refused] if refused else None
            return Settlement(delivered=taken, dead=list(reasons)), reasons
        if len(members) > 1:
            return Settlement(error=error, delay=self._delay(batch.failures)), {}
        return self._failed_alone(batch, {members[0].id: error}, one_of_many=batch.alone)

    def _offer_each(self, batch: Batch, deadline: float) -> tuple[Settlement, dict[str, str]]:
        """Offer the members of a batch one by one, as far as the lease lasts; the others stay in it."""
        is_last = batch.attempt > self._retries
        delivered: list[str] = []
        dead: dict[str, str] = {}
        failed: dict[str, str] = {}
        for summary in batch.summaries:
            refused, error = self._deliver([summary])
            if error:
                failed[summary.id] = error
            elif refused:
                dead[summary.id] = f"sink {self.name!r} refused: {refused[summary.id]}"
            else:
                delivered.append(summary.id)
            is_sinks_fault = len(failed) >= FEW and not (delivered or dead or is_last)
            if is_sinks_fault or time.monotonic() > deadline or self._stopping.is_set():
                break
        tried = len(delivered) + len(dead) + len(failed)
        if failed and not (delivered or dead or is_last) and tried < len(batch.summaries):
            last = list(failed)
            return Settlement(last=last, error=failed[last[-1]], delay=self._delay(batch.failures)), {}
        became, given_up = self._failed_alone(batch, failed, one_of_many=bool(delivered or dead))
        became.delivered = delivered
        became.dead += dead
        return became, {**dead, **given_up}

    def _failed_alone(
        self, batch: Batch, failed: Mapping[str, str], *, one_of_many: bool
    ) -> tuple[Settlement, dict[str, str]]:
        """Say what becomes of members that failed alone: they wait for themselves, or are given up."""
        became = Settlement(error=next(iter(failed.values()), ""))
        if failed and not one_of_many:
            became.delay = self._delay(batch.failures)
        if batch.attempt > self._retries:
            times = "1 retry" if self._retries == 1 else f"{self._retries} retries"
            after = f"given up after {times}" if self._retries else "no retry is wanted"
            became.dead = list(failed)
            return became, {id_: f"sink {self.name!r}: {error}; {after}" for id_, error in failed.items()}
        if one_of_many or batch.attempt >= TOGETHER:
            became.alone = {id_: self._delay(batch.attempt - 1) for id_ in failed}
        return became, {}

    def _deliver(self, summaries: Sequence[StaySummary]) -> tuple[dict[str, str] | None, str]:
        """Call the sink; give the ids that it refused with the reason, and why it failed otherwise.

        Without ids several were refused as a whole, or by ids of others: what came together by chance shall not be
        refused together.
        """
        started, error = time.perf_counter(), ""
        refused: dict[str, str] | None = {}
        try:
            self._sink.deliver(summaries)
        except SummaryRefused as raised:
            ids = {summary.id for summary in summaries}
            named = set(raised.ids) if set(raised.ids) <= ids else set()
            if len(ids) == 1:
                named = ids
            refused = dict.fromkeys(named, one_line(str(raised))) if named else None
        except BaseException as raised:  # whatever a plugin raises is a failed attempt, the end of a process included
            words = [str(raised)] if isinstance(raised, DeliveryError) else traceback.format_exception_only(raised)
            error = one_line("".join(words))
        self._meter.delivery(self.name, time.perf_counter() - started, bool(error))
        return refused, error

    def _bury(self, batch: Batch, reasons: dict[str, str]) -> None:
        """Keep dead letters of those that are given up, each once: what is confirmed is taken out of the reasons."""
        for summary in batch.summaries:
            if summary.id in reasons:
                self._dead_letter(summary_message(self.name, summary), reasons[summary.id])
                del reasons[summary.id]

    def _delay(self, failures: int) -> float:
        """Say after how many seconds to try again: doubled with each failure, with jitter."""
        low, high = self._backoff
        delay: int = compute_backoff(failures, factor=low, max_backoff=high)[1]
        return delay / 1000

    def _note_health(self, became: Settlement) -> None:
        fails = became.delivered == [] and became.delay > 0
        if fails != self._fails:
            self._fails = fails
            if fails:
                log.warning("sink %s fails: %s; its summaries wait in the outbox", self.name, became.error)
            else:
                log.warning("sink %s has recovered", self.name)


def summary_message(sink: str, summary: StaySummary) -> Message[Any]:
    """Make the message that a summary is a dead letter as, and by which it comes back."""
    name = f"{sink}/{summary.id}"
    return Message(
        queue_name=WORK,
        actor_name=DELIVER,
        args=(),
        kwargs={"sink": sink, "summary": summary.to_dict()},
        options={},
        # AMQP takes 255 bytes, and whoever reads a letter printable characters: an id may be neither.
        message_id=name if name.isascii() else str(uuid.uuid5(uuid.NAMESPACE_URL, name)),
    )
