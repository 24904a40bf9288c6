"""Serial dispatch: the events of a queue are worked on in their order, however many threads, processes and machines.

Each queue of events has a single active consumer, and that one's process a dispatcher for it: the next batch goes to
the worker's threads when the one before it is done. Whoever is the next consumer begins with everything that is not
acknowledged, in its place. So each consumer's run of a queue is in order, and begins before whatever another one may
have left undone: the first effect of each event is in order. What a consumer does that was taken for dead is a repeat.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import dramatiq
from dramatiq.broker import MessageProxy
from dramatiq.errors import Retry
from dramatiq.middleware import Middleware

from carpark.broker.batches import EventBatch
from carpark.broker.reading import EventMessage

RESTARTED_AFTER = 1.0
"""Seconds after which what was left is delivered again."""

HELD_FOR, HELD_LONGEST = 0.002, 0.1
"""Seconds after which a batch that is held is tried again: longer each time, up to the second."""

GIVEN_BACK_EVERY = 60.0
"""Seconds in which a process gives back as many queues as there are, at most."""


class Dispatcher:
    """One queue's messages in this process, in their order, one message or batch at a time in the worker's hands.

    The consumer adds what arrives; events that arrive while the worker is busy are folded into batches. Whatever hands
    a message to the worker asks for it with `take`.
    """

    def __init__(self, most: int) -> None:
        self.is_active = False
        self.count = 0
        self._most = most
        self._waiting: deque[MessageProxy] = deque()
        self._in_hand: MessageProxy | None = None
        self._open: EventBatch | None = None
        self._is_halted = False
        self._begun_at = 0
        self._lock = threading.Lock()

    def add(self, delivery: MessageProxy) -> None:
        """Give a message its place: an event in a batch, anything else alone."""
        with self._lock:
            self.is_active = True
            if self._is_halted:
                return
            self.count += 1
            delivery.number = self.count  # type: ignore[attr-defined]
            if self._most == 1 or not isinstance(delivery._message, EventMessage):
                self._waiting.append(delivery)
            elif self._open is None or not self._open.join(delivery):
                self._open = EventBatch(delivery, self._most)
                self._waiting.append(self._open)

    def add_first(self, parts: Sequence[MessageProxy]) -> None:
        """Put messages before all others: those of a batch that are worked on again, each alone."""
        with self._lock:
            if not self._is_halted:
                self._waiting.extendleft(reversed(parts))

    def take(self) -> MessageProxy | None:
        """Take what the worker shall do now."""
        with self._lock:
            if self._in_hand is None and self._waiting:
                self._in_hand = self._waiting.popleft()
                return self._in_hand
            return None

    def done(self, message: MessageProxy) -> None:
        """Hear that the worker is done with a message."""
        with self._lock:
            if message is self._in_hand:
                self._in_hand = None

    @property
    def is_idle(self) -> bool:
        """Whether the worker has nothing of it in hand."""
        return self._in_hand is None

    @property
    def is_halted(self) -> bool:
        """Whether it hands out nothing."""
        return self._is_halted

    def halt(self, number: float = math.inf) -> None:
        """Hand out nothing more until `restart`: whatever is not in the worker's hand stays in its queue."""
        with self._lock:
            if number > self._begun_at:
                self._waiting.clear()
                self._is_halted = True

    def restart(self) -> None:
        """Begin anew, because everything that is not acknowledged is delivered again.

        What the worker has in hand it finishes first: no queue has more than one of the worker's threads.
        """
        with self._lock:
            self._waiting.clear()
            self._open = None
            self._is_halted = self.is_active = False
            self._begun_at = self.count


class MustWait(Retry):
    """A batch has to wait for another queue: its dispatcher stands still, but no thread of the worker is kept."""


class Dispatchers(Middleware):
    """The dispatchers of a process, one for each queue of events. As a middleware it hands on what is next."""

    def __init__(self, most: int = 1) -> None:
        self._most = most
        self._dispatchers: dict[str, Dispatcher] = {}
        self._worker: dramatiq.Worker | None = None
        self.ending = threading.Event()
        self._given_back_at = -math.inf
        self._lock = threading.Lock()

    def before_worker_boot(self, broker: Any, worker: dramatiq.Worker) -> None:
        """Begin without anything in hand."""
        self._worker = worker
        self._dispatchers.clear()
        self.ending.clear()

    def before_worker_shutdown(self, broker: Any, worker: dramatiq.Worker) -> None:
        """Let go of what waits: Dramatiq waits for its threads before it stops anything else."""
        self.ending.set()

    def of(self, queue_name: str) -> Dispatcher:
        """Give a queue's dispatcher."""
        return self._dispatchers.setdefault(queue_name, Dispatcher(self._most))

    def after_ack(self, broker: Any, message: MessageProxy) -> None:
        """Hand the worker what is next, without waiting for the consumer's thread."""
        dispatcher = self._dispatchers.get(message.queue_name)
        if dispatcher is None or self._worker is None:
            return
        if getattr(message, "is_held", False) and not dispatcher.is_halted:
            times = getattr(message, "held", 0) + 1
            message.held = times  # type: ignore[attr-defined]
            again = threading.Timer(min(HELD_FOR * times, HELD_LONGEST), self._try_again, (dispatcher, message))
            again.daemon = True
            again.start()
            return
        dispatcher.done(message)
        following = dispatcher.take()
        if following is not None:
            self.hand_on(following)

    def _try_again(self, dispatcher: Dispatcher, message: MessageProxy) -> None:
        if dispatcher.is_halted:
            dispatcher.done(message)  # it stays in its queue
        else:
            self.hand_on(message)

    def hand_on(self, message: MessageProxy) -> None:
        """Hand the worker a message now."""
        assert self._worker is not None  # noqa: S101 - a message has come to it
        message.is_held = False  # type: ignore[attr-defined]
        self._worker.consumers[message.queue_name].handle_message(message)

    after_nack = after_ack

    def is_one_too_many(self, processes: int) -> bool:
        """Tell a consumer whether to give its queue back: this process has more than its share of the queues."""
        with self._lock:
            dispatchers, now = (
                list(self._dispatchers.values()),
                time.monotonic(),
            )  # at the start other threads add to them
            kept = sum(dispatcher.is_active and not dispatcher.is_halted for dispatcher in dispatchers)
            share = math.ceil(len(dispatchers) / max(1, processes))
            if kept <= share or now < self._given_back_at + GIVEN_BACK_EVERY / len(dispatchers):
                return False
            self._given_back_at = now
            return True
