"""Sends events and returns when they are safe: a broker that goes away is waited for, and nothing is dropped."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence

from pika import spec
from pika.exceptions import AMQPConnectionError

from carpark.domain.events import Event
from carpark.domain.routing import queue_for
from carpark.errors import BrokerUnavailable
from carpark.rabbitmq.connection import connected, connection_parameters, explain, resolvable, unavailable
from carpark.rabbitmq.outage import RABBITMQ, Outage, backoff
from carpark.rabbitmq.publishing import ConfirmingPublisher, Outgoing
from carpark.rabbitmq.topology import CLASSIC, EXCHANGE, declare_queues
from carpark.settings.values import mask_urls
from generators.wire import message_body

BACKOFF_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0)
GRACE_SECONDS = 3.0
"""How long a requested stop still waits for the broker."""
_GLANCE_SECONDS = 0.2
_AWAY, _REFUSES = "is away", "refuses"
_MISSING = "has no "


class Publisher(ABC):
    """Sends events to their queues."""

    holding: Callable[[], None] = staticmethod(lambda: None)
    failed: Callable[[Collection[int]], None] = staticmethod(lambda places: None)

    @abstractmethod
    def publish(self, events: Sequence[Event]) -> int:
        """Send events and wait until the broker has them all."""

    def close(self) -> None:  # noqa: B027 - nothing to do is the ordinary case
        """Let go of the connection. May be called again."""


class RabbitmqPublisher(Publisher):
    """Sends to RabbitMQ: persistent, mandatory, with publisher confirms for all events of a call at once.

    Events go through the exchange of the events, the one thing that the user needs a right to. What is missing on their
    way is declared; by a user who may not do that it is waited for.
    """

    def __init__(
        self,
        urls: str,
        stop: threading.Event,
        say: Callable[[str], None],
        name: str = "carpark",
        queue_type: str = CLASSIC,
        partitions: int = 1,
    ) -> None:
        self._urls, self._name, self._parameters = urls, name, connection_parameters(urls, name)
        self._queue_type, self._partitions = queue_type, partitions
        self._stop = stop
        self._say, self._outage = say, Outage(say, was_there=True)
        self._publisher: ConfirmingPublisher | None = None
        self._connected_once = False
        self._deadline: float | None = None

    def publish(self, events: Sequence[Event]) -> int:
        """Send events and wait until RabbitMQ has them all; see `Publisher.publish`."""
        messages = [Outgoing(queue_for(event, self._partitions), message_body(event)) for event in events]
        left = dict(enumerate(messages))
        pauses = backoff(*BACKOFF_SECONDS)
        while left:
            problem = self._send(left)
            if not left:
                break
            self.failed(left.keys())
            if self._give_up():
                return min(left)
            if problem:
                self._wait_for(problem, len(left))
                self.holding()
                self._stop.wait(next(pauses)) if not self._stop.is_set() else time.sleep(_GLANCE_SECONDS)
        self._outage.end()
        return len(events)

    def close(self) -> None:
        """Close the connection."""
        if self._publisher is not None:
            self._publisher.close()
            self._publisher = None

    def _send(self, left: dict[int, Outgoing]) -> str:
        """Send what is left, take out what is confirmed, and tell what went wrong (nothing: try again at once)."""
        publisher = self._open()
        if publisher is None:
            return _away("it does not answer")
        if publisher.is_closed():
            return self._lost(publisher)
        places = list(left)
        publisher.send([left[place] for place in places])
        while not publisher.wait(_GLANCE_SECONDS):
            if publisher.blocked:
                self._wait_for(_away("it has blocked its publishers: out of memory or disk"), len(left))
                self.holding()
            if self._give_up():
                break
        confirmed, missing = publisher.outcome()
        for place in confirmed:
            del left[places[place]]
        if publisher.is_closed():
            is_missing = getattr(publisher.reason, "reply_code", None) == spec.NOT_FOUND
            problem = self._lost(publisher)
            return self._declare({message.queue for message in left.values()}) if is_missing else problem
        if missing:
            return self._declare(missing)
        if left:
            # It said no. A channel that was opened while a quorum queue had no leader goes on saying so: RabbitMQ looks
            # for the new leader only in a new one.
            self.close()
            return _away("it does not take messages")
        return ""

    def _open(self) -> ConfirmingPublisher | None:
        publisher = self._publisher = self._publisher or ConfirmingPublisher(resolvable(self._parameters))
        while not publisher.wait_open(_GLANCE_SECONDS):
            if self._give_up():
                self.close()
                return None
        self._connected_once = self._connected_once or not publisher.is_closed()
        return publisher

    def _lost(self, publisher: ConfirmingPublisher) -> str:
        self.close()
        reason = publisher.reason or AMQPConnectionError("connection lost")
        error = unavailable(self._urls, reason)
        # Waiting for a password to become right helps nobody; later on it may be a broker that is starting.
        if error.refuses and not self._connected_once:
            raise error
        return f"{_REFUSES if error.refuses else _AWAY} ({explain(reason)[0]})"

    def _declare(self, queues: set[str]) -> str:
        names = f"queue {', '.join(sorted(queues))}"
        try:
            with connected(self._urls, self._name) as connection:
                declare_queues(connection.channel(), sorted(queues), self._queue_type)
        except BrokerUnavailable as error:
            if error.refuses:
                return f"{_MISSING}{names} behind {EXCHANGE}, and this user may not declare it: start `carpark queues`"
            return _away(f"{names} is missing and cannot be declared: {explain(error.__cause__ or error)[0]}")
        self._say(f"{names} was missing, or not bound to {EXCHANGE}; declared it")
        return ""

    def _wait_for(self, problem: str, count: int) -> None:
        """Say what is waited for, once until it is something else."""
        events = "1 event is" if count == 1 else f"{count} events are"
        what, now = ("the queue", "there") if problem.startswith(_MISSING) else (RABBITMQ, "back")
        line = f"RabbitMQ at {mask_urls(self._urls)} {problem}; {events} kept and sent when it is {now}"
        self._outage.begin(line, problem.partition(" (")[0], what)

    def _give_up(self) -> bool:
        if not self._stop.is_set():
            return False
        if self._deadline is None:
            self._deadline = time.monotonic() + GRACE_SECONDS
        return time.monotonic() >= self._deadline


def _away(why_: str) -> str:
    return f"{_AWAY} ({why_})"
