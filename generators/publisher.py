"""Sends events and returns when they are safe: a broker that goes away is waited for, and nothing is dropped."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence

import pika
import pika.exceptions
from pika import spec

from carpark.domain.events import Event
from carpark.domain.routing import queue_for
from carpark.errors import BrokerUnavailable
from carpark.rabbitmq.connection import NO_AMQP_ERRORS, explain, resolvable
from carpark.rabbitmq.topology import CLASSIC, EXCHANGE, declare_queues
from carpark.settings.values import mask_url
from carpark.web.ports import cause_of
from generators.link import Letter, Link, connection_parameters
from generators.wire import message_body

BACKOFF_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0)
GRACE_SECONDS = 3.0
"""How long a requested stop still waits for the broker."""
_GLANCE_SECONDS = 0.2
_AWAY, _REFUSES = "is away", "refuses"
_BACK = {_AWAY: ("RabbitMQ", "back"), _REFUSES: ("RabbitMQ", "back"), "": ("the queue", "there")}
"""What was waited for, by how the problem begins, and how it is when there is none."""


class Publisher(ABC):
    """Sends events to their queues.

    Attributes:
        holding: Called now and then while the broker is away, so that what is held for the events can be held longer.
        failed: Called with the places of events that were sent and not confirmed, before they are sent again.
    """

    holding: Callable[[], None] = staticmethod(lambda: None)
    failed: Callable[[Collection[int]], None] = staticmethod(lambda places: None)

    @abstractmethod
    def publish(self, events: Sequence[Event]) -> int:
        """Send events and wait until the broker has them all.

        Args:
            events: What to send, in this order. After a lost connection some may be sent twice.

        Returns:
            How many of the leading events are confirmed: all of them, unless a stop was requested meanwhile.

        Raises:
            QueueMismatch: A queue was missing and cannot be declared as the backend declares it.
            BrokerUnavailable: The broker refuses user, password or virtual host.
        """

    def close(self) -> None:  # noqa: B027 - nothing to do is the ordinary case
        """Let go of the connection. May be called again."""


class RabbitmqPublisher(Publisher):
    """Sends to RabbitMQ: persistent, mandatory, with publisher confirms for all events of a call at once.

    Events go through the exchange of the events, the one thing that the user needs a right to. What is missing on their
    way is declared; by a user who may not do that it is waited for.

    Args:
        urls: AMQP URLs separated by ``;``.
        stop: Set when the process shall end: then a broker that is away is waited for only a few seconds more.
        say: Takes a line for people, when the broker goes away and when it is back.
        name: What the connection is called in RabbitMQ.
        queue_type: How RabbitMQ keeps the queues, classic or quorum: a missing one is declared so.
        partitions: How many queues there are for the events of a kind.
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
        self._parameters = connection_parameters(urls, name)
        self._shown = ";".join(mask_url(url) for url in urls.split(";"))
        self._queue_type, self._partitions = queue_type, partitions
        self._stop = stop
        self._say = say
        self._link: Link | None = None
        self._connected_once = False
        self._problem: str | None = None  # how it begins
        self._since = 0.0
        self._deadline: float | None = None

    def publish(self, events: Sequence[Event]) -> int:
        """Send events and wait until RabbitMQ has them all; see `Publisher.publish`.

        Args:
            events: What to send, in this order.

        Returns:
            How many of the leading events are confirmed.

        Raises:
            QueueMismatch: A queue was missing and cannot be declared as the backend declares it.
            BrokerUnavailable: RabbitMQ refuses user, password or virtual host.
        """
        letters = [(queue_for(event, self._partitions), message_body(event)) for event in events]
        left = dict(enumerate(letters))
        pauses = self._pauses()
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
        self._back()
        return len(events)

    def close(self) -> None:
        """Close the connection."""
        if self._link is not None:
            self._link.close()
            self._link = None

    def _send(self, left: dict[int, Letter]) -> str:
        """Send what is left, take out what is confirmed, and tell what went wrong (nothing: try again at once)."""
        link = self._open()
        if link is None:
            return _away("it does not answer")
        if link.is_closed():
            return self._lost(link)
        places = list(left)
        link.send([left[place] for place in places])
        while not link.wait(_GLANCE_SECONDS):
            if link.blocked:
                self._wait_for(_away("it has blocked its publishers: out of memory or disk"), len(left))
                self.holding()
            if self._give_up():
                break
        confirmed, missing = link.outcome()
        for place in confirmed:
            del left[places[place]]
        if link.is_closed():
            is_missing = _is_answer(link.reason, spec.NOT_FOUND)
            problem = self._lost(link)
            return self._declare({queue for queue, _ in left.values()}) if is_missing else problem
        if missing:
            return self._declare(missing)
        if left:
            # It said no. A channel that was opened while a quorum queue had no leader goes on saying so: RabbitMQ looks
            # for the new leader only in a new one.
            self.close()
            return _away("it does not take messages")
        return ""

    def _open(self) -> Link | None:
        link = self._link = self._link or Link(resolvable(self._parameters))
        while not link.wait_open(_GLANCE_SECONDS):
            if self._give_up():
                self.close()
                return None
        self._connected_once = self._connected_once or not link.is_closed()
        return link

    def _lost(self, link: Link) -> str:
        self.close()
        causes = [_cause(error) for error in getattr(link.reason, "exceptions", [link.reason])]
        refused = (
            pika.exceptions.AuthenticationError,
            pika.exceptions.ProbableAuthenticationError,
            pika.exceptions.ProbableAccessDeniedError,
        )
        for cause in causes:
            # Waiting for a password to become right helps nobody; later on it may be a broker that is starting.
            if isinstance(cause, refused) and not self._connected_once:
                raise BrokerUnavailable(
                    f"RabbitMQ at {self._shown} refuses user, password or virtual host ({cause_of(cause)}); "
                    "check CARPARK_BROKER_URL",
                    refuses=True,
                )
        if link.reason is not None and _is_answer(link.reason, spec.ACCESS_REFUSED):
            return f"{_REFUSES} ({explain(link.reason)[0]})"
        return _away(cause_of(causes[-1]) if causes[-1] else "connection lost")

    def _declare(self, queues: set[str]) -> str:
        names = f"queue {', '.join(sorted(queues))}"
        try:
            with pika.BlockingConnection(resolvable(self._parameters)) as connection:
                for queue in sorted(queues):
                    declare_queues(connection.channel(), (queue,), self._queue_type)
        except (pika.exceptions.AMQPError, *NO_AMQP_ERRORS) as error:
            if _is_answer(error, spec.ACCESS_REFUSED):
                return f"has no {names} behind {EXCHANGE}, and this user may not declare it: start `carpark queues`"
            return _away(f"{names} is missing and cannot be declared: {cause_of(error)}")
        self._say(f"{names} was missing, or not bound to {EXCHANGE}; declared it")
        return ""

    def _wait_for(self, problem: str, count: int) -> None:
        """Say what is waited for, once until it is something else."""
        beginning = next(each for each in _BACK if problem.startswith(each))
        if self._problem != beginning:
            self._problem = beginning
            self._since = self._since or time.monotonic()
            events = "1 event is" if count == 1 else f"{count} events are"
            self._say(f"RabbitMQ at {self._shown} {problem}; {events} kept and sent when it is {_BACK[beginning][1]}")

    def _back(self) -> None:
        if self._problem is not None:
            who, now = _BACK[self._problem]
            self._say(f"{who} is {now} after {time.monotonic() - self._since:.1f} s")
            self._problem, self._since = None, 0.0

    def _give_up(self) -> bool:
        if not self._stop.is_set():
            return False
        if self._deadline is None:
            self._deadline = time.monotonic() + GRACE_SECONDS
        return time.monotonic() >= self._deadline

    @staticmethod
    def _pauses() -> Iterator[float]:
        yield from BACKOFF_SECONDS
        while True:
            yield BACKOFF_SECONDS[-1]


def _away(why_: str) -> str:
    return f"{_AWAY} ({why_})"


def _is_answer(error: BaseException | None, code: int) -> bool:
    return isinstance(error, pika.exceptions.ChannelClosedByBroker) and error.reply_code == code


def _cause(error: BaseException | None) -> BaseException | None:
    while isinstance(inner := getattr(error, "exception", None), BaseException):
        error = inner
    return error
