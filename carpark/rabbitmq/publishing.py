"""One connection to RabbitMQ in a thread of its own: it answers heartbeats and collects confirms while others sleep."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import pika
from pika.adapters.select_connection import IOLoop, SelectConnection

from carpark.rabbitmq.connection import is_refusal
from carpark.rabbitmq.topology import EXCHANGE

_CLOSE_TIMEOUT = 2.0

PERSISTENT = pika.BasicProperties(content_type="application/json", delivery_mode=2)


class Outgoing(NamedTuple):
    """A message to be published."""

    queue: str
    body: bytes
    properties: pika.BasicProperties = PERSISTENT
    exchange: str = EXCHANGE


class ConfirmingPublisher:
    """A connection with one channel in confirm mode (publisher confirms); once it is closed it stays closed."""

    def __init__(self, parameters: Sequence[pika.URLParameters]) -> None:
        self.reason: BaseException | None = None
        self.blocked = False
        self._changed = threading.Condition()
        self._open = False
        self._closed = False
        self._workflow: Any = None
        self._connection: Any = None
        self._channel: Any = None
        self._tag = 0
        self._outstanding: dict[int, int] = {}
        self._keys: list[str] = []
        self._confirmed: set[int] = set()
        self._returned: set[str] = set()
        self._parameters = parameters
        self._loop = IOLoop()
        self._thread = threading.Thread(target=self._run, name="rabbitmq", daemon=True)
        self._thread.start()

    def is_closed(self) -> bool:
        """Tell whether the connection was lost or closed; `reason` says why."""
        return self._closed

    def wait_open(self, timeout: float) -> bool:
        """Wait until the connection is there, or has failed."""
        with self._changed:
            return self._changed.wait_for(lambda: self._open or self._closed, timeout)

    def send(self, messages: Sequence[Outgoing]) -> None:
        """Begin to send messages; `wait` and `outcome` say what became of them."""
        with self._changed:
            self._confirmed.clear()
            self._returned.clear()
            self._keys = [message.queue for message in messages]
            # Counted before they are on their way, so that `wait` cannot find nothing outstanding.
            self._outstanding = {self._tag + 1 + place: place for place in range(len(messages))}
            if self._closed:
                return
            self._loop.add_callback_threadsafe(partial(self._publish, messages))

    def wait(self, timeout: float) -> bool:
        """Wait until every message is settled or the connection is closed."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closed or not self._outstanding, timeout)

    def outcome(self) -> tuple[set[int], set[str]]:
        """Tell what became of the messages."""
        with self._changed:
            lost = {place for place in self._confirmed if self._keys[place] in self._returned}
            return self._confirmed - lost, set(self._returned)

    def close(self) -> None:
        """Close the connection and end the thread."""
        with self._changed:
            if not self._closed:
                self._loop.add_callback_threadsafe(self._close)
        self._thread.join(_CLOSE_TIMEOUT + 1)

    # What follows runs in the thread.

    def _run(self) -> None:
        try:
            self._workflow = SelectConnection.create_connection(
                self._parameters, on_done=self._connected, custom_ioloop=self._loop
            )
            self._loop.start()
        except Exception as error:  # whatever pika raises, the other thread must not wait for ever
            self._finish(error)
        finally:
            self._finish(self.reason)
            with contextlib.suppress(Exception):
                self._loop.close()

    def _connected(self, result: Any) -> None:
        if isinstance(result, BaseException):
            self._finish(result)
            return
        self._connection = result
        result.add_on_close_callback(lambda _, reason: self._finish(reason))
        result.add_on_connection_blocked_callback(lambda *_: setattr(self, "blocked", True))
        result.add_on_connection_unblocked_callback(lambda *_: setattr(self, "blocked", False))
        result.channel(on_open_callback=self._channel_open)

    def _channel_open(self, channel: Any) -> None:
        self._channel = channel
        channel.add_on_close_callback(self._channel_closed)
        channel.add_on_return_callback(lambda _, method, *__: self._returned.add(method.routing_key))
        channel.confirm_delivery(self._settled, callback=lambda _: self._ready())

    def _ready(self) -> None:
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def _publish(self, messages: Sequence[Outgoing]) -> None:
        try:
            for queue, body, properties, exchange in messages:
                self._channel.basic_publish(exchange, queue, body, properties, mandatory=True)
                self._tag += 1
        except Exception as error:  # the channel closed a moment ago
            self._finish(error)

    def _settled(self, frame: Any) -> None:
        method = frame.method
        with self._changed:
            tags = [method.delivery_tag]
            if method.multiple:
                tags = [tag for tag in self._outstanding if tag <= method.delivery_tag]
            for tag in tags:
                place = self._outstanding.pop(tag, None)
                if place is not None and isinstance(method, pika.spec.Basic.Ack):
                    self._confirmed.add(place)
            if not self._outstanding:
                self._changed.notify_all()

    def _channel_closed(self, _: Any, reason: BaseException) -> None:
        self.reason = self.reason or reason
        self._close()

    def _close(self) -> None:
        self._loop.call_later(_CLOSE_TIMEOUT, lambda: self._finish(self.reason))
        if self._connection is None:
            self._workflow.abort()
        elif self._connection.is_open:
            self._connection.close()

    def _finish(self, reason: BaseException | None) -> None:
        with self._changed:
            if self._closed:
                return
            self.reason = self.reason or (reason and _reason_of(reason))
            self._closed = True
            self._loop.stop()
            self._changed.notify_all()


def _reason_of(error: BaseException) -> BaseException:
    """Say why no node of a cluster could be connected to: that one refuses comes first, it is there."""
    every: list[BaseException] = [getattr(each, "exception", each) for each in getattr(error, "exceptions", [error])]
    return next(filter(is_refusal, every), every[-1])
