"""The queue configurator: declares the queues with their companions, and keeps them declared."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import click
from pika import exceptions, spec
from pika.adapters.blocking_connection import BlockingConnection
from prometheus_client import CollectorRegistry, ProcessCollector

from carpark.domain.routing import event_queues, is_event_queue, partition_of
from carpark.errors import BrokerUnavailable, ExchangeMismatch, InvalidSetting, QueueMismatch
from carpark.rabbitmq.connection import look, open_connection, ours
from carpark.rabbitmq.management import ManagementApi
from carpark.rabbitmq.metrics import QueueMetrics
from carpark.rabbitmq.migration import Migration
from carpark.rabbitmq.outage import Outage, backoff
from carpark.rabbitmq.topology import EXCHANGE, all_queues, declare_exchange, declare_queue, with_companions
from carpark.services import SERVICES
from carpark.settings import Settings
from carpark.settings.model import MOST_PARTITIONS
from carpark.settings.options import CONTEXT, examples, seconds, settings_options
from carpark.settings.values import mask_urls
from carpark.telemetry.page import MetricsPage
from carpark.web.signals import on_signal

INTERVAL = 2.0
"""Seconds between two looks at the queues."""

ASK_AGAIN_SECONDS = 30.0
"""How long a management API that did not answer is left alone."""

_CLOSE_SECONDS = 1.0

Answer = TypeVar("Answer")


class QueueConfigurator:
    """Declares the queues, counts what is in them, and declares again what vanished."""

    def __init__(
        self,
        settings: Settings,
        metrics: QueueMetrics,
        say: Callable[[str], None],
        interval: float = INTERVAL,
        timeout: float = 5.0,
    ) -> None:
        if settings.broker_url.startswith("stub:"):
            wanted = "RabbitMQ, amqp://user:password@host:port; the in-process broker declares its own queues"
            raise InvalidSetting("CARPARK_BROKER_URL", settings.broker_url, wanted)
        self._url, self._timeout, self._interval = settings.broker_url, timeout, interval
        self._metrics, self._say, self._queue_type = metrics, say, settings.queue_type
        self._partitions, self._queues = settings.partitions, all_queues(settings.partitions)
        self._management = ManagementApi.of(settings, timeout)
        self._ask_management_at = 0.0
        self._management_answers = True
        self._connection: BlockingConnection | None = None
        self._declared: set[str] = set()
        self._answers: dict[str, spec.Queue.DeclareOk | None] = {}

    def declare(self) -> list[str]:
        """Connect where that is needed, and declare what is missing."""
        missing: list[str] = []
        names = (*self._queues, EXCHANGE)
        for place, name in enumerate(names):
            try:
                if not self._declared:
                    self.check_partitions()
                with ours(self._url):
                    found = self._declare_exchange(missing) if name == EXCHANGE else self._declare_family(name)
            except (BrokerUnavailable, QueueMismatch, ExchangeMismatch):
                for each in names[place:]:
                    self._metrics.declaration(each, "failed")
                raise
            if found or name not in self._declared:
                self._metrics.declaration(name, "declared")
            self._declared.add(name)
            missing += found
        return missing

    def count(self) -> None:
        """Show in the metrics how many messages and consumers `declare` found; the messages in hand are asked for."""
        totals = self._asked(self._management.queues) or {}
        for queue in filter(is_event_queue, totals.keys() - self._queues):  # a camera may have another number
            ready, consumers = self._look(queue)
            self._metrics.counts(queue, {"ready": ready}, consumers)
        for queue in self._queues:
            names = with_companions(queue)
            own, delayed, dead = map(self._answers.__getitem__, names)
            unacked, held, seen = (totals[name].unacked if name in totals else None for name in names)
            messages = {
                "ready": own.message_count if own else None,
                "unacked": unacked,
                "delayed": (delayed.message_count if delayed else 0) + (held or 0),
                "dead": dead.message_count + (seen or 0) if dead else None,
            }
            self._metrics.counts(queue, messages, own.consumer_count if own else 0)

    def watch(self) -> None:
        """Keep the queues declared, for ever; a RabbitMQ that goes away is waited for."""
        outage, pauses, started = Outage(lambda line: self._say(f"queues: {line}")), backoff(), False
        while True:
            try:
                missing = self.declare()
                self.count()
                outage.end()
                self._say_missing(missing, started)
                pauses, started = backoff(), True
                with ours(self._url):
                    self._open().sleep(self._interval)  # answers heartbeats, and notices a lost connection at once
            except BrokerUnavailable as error:
                if error.refuses and not started:
                    raise
                self.close()
                self._metrics.forget()
                outage.begin(f"{error}; waiting for it")
                time.sleep(next(pauses))

    def close(self) -> None:
        """Let go of the connection, within a second even when RabbitMQ does not answer."""
        connection, self._connection = self._connection, None
        self._management.close()
        if connection is None:
            return

        def close() -> None:
            with contextlib.suppress(Exception):  # it may be in the middle of anything, or be gone
                connection.close()

        closing = threading.Thread(target=close, name="close", daemon=True)
        closing.start()
        closing.join(_CLOSE_SECONDS)

    def check_partitions(self) -> None:
        """Leave no messages behind in queues that the setting leaves out; tell of those that others may overtake."""
        names: Iterable[str] = event_queues(MOST_PARTITIONS)
        with contextlib.suppress(BrokerUnavailable):  # then each is looked for, of which RabbitMQ's log has a line
            names = set(self._management.queues()).intersection(names)
        with ours(self._url):
            found = sorted((queue for queue in names if look(self._open(), queue)), key=partition_of)
        there = partition_of(found[-1]) + 1 if found else self._partitions
        if there > self._partitions:
            beyond = (queue for queue in found if partition_of(queue) >= self._partitions)
            if left := self._left_in(name for queue in beyond for name in with_companions(queue)):
                wanted = (
                    f"{there} as before: stop the cameras, let the workers drain the queues, requeue or purge dead "
                    f"letters (carpark dlq), stop the workers, then change it; not yet empty: {left}"
                )
                raise InvalidSetting("CARPARK_PARTITIONS", str(self._partitions), wanted)
        elif there < self._partitions and (left := self._left_in(found)):
            self._say(
                f"queues: {self._partitions} partitions instead of {there}: drain before the number changes, or what "
                f"comes now may overtake what is left in {left}"
            )

    def _left_in(self, names: Iterable[str]) -> str:
        left = []
        for name in names:
            messages, consumers = self._look(name)
            left += [f"{name} ({messages} message{'s' * (messages > 1)})"] * bool(messages)
            left += [f"{name} (a worker)"] * bool(consumers)
        return ", ".join(left)

    def _look(self, name: str) -> tuple[int, int]:
        with ours(self._url):
            found = look(self._open(), name)
        return (found.message_count, found.consumer_count) if found else (0, 0)

    def _declare_family(self, queue: str) -> list[str]:
        missing, connection = [], self._open()
        for name in with_companions(queue):
            is_missing = look(connection, name) is None
            with connection.channel() as channel:  # one that is there is declared too: this compares arguments
                self._answers[name] = found = declare_queue(channel, name, self._queue_type, bind=False)
            missing += [name] * (is_missing and found is not None)
        return missing

    def _declare_exchange(self, new: Sequence[str]) -> list[str]:
        """Declare the exchange, and bind it to the queues of events, of which some are new and were not bound.

        AMQP does not tell whether a binding is there: each is made again, which changes nothing. The management API
        tells.
        """
        bound = self._asked(lambda: self._management.bound(EXCHANGE)) if EXCHANGE in self._declared else None
        missing, connection, queues = [], self._open(), event_queues(self._partitions)
        try:
            with connection.channel() as channel:
                channel.exchange_declare(EXCHANGE, passive=True)
        except exceptions.ChannelClosedByBroker as error:
            if error.reply_code != spec.NOT_FOUND:
                raise
            missing.append(EXCHANGE)
        else:
            known = set(self._queues) if bound is None else {*bound, *new}
            missing += [f"{EXCHANGE}'s binding to {queue}" for queue in queues if queue not in known]
        with connection.channel() as channel:
            declare_exchange(channel)
            for queue in queues:
                channel.queue_bind(queue, EXCHANGE, queue)
        return missing

    def _open(self) -> BlockingConnection:
        if self._connection is None or not self._connection.is_open:
            self._connection = open_connection(self._url, "carpark queues", self._timeout)
        return self._connection

    def _asked(self, question: Callable[[], Answer]) -> Answer | None:
        """Ask the management API; it is left alone for a while when it does not answer."""
        if time.monotonic() < self._ask_management_at:
            return None
        try:
            answer = question()
        except BrokerUnavailable as error:
            self._ask_management_at = time.monotonic() + ASK_AGAIN_SECONDS
            if self._management_answers:
                self._say(f"queues: unacknowledged messages are not counted. {error}")
            self._management_answers = False
            return None
        if not self._management_answers:
            self._say("queues: RabbitMQ's management API answers; unacknowledged messages are counted")
        self._management_answers = True
        return answer

    def _say_missing(self, missing: list[str], started: bool) -> None:
        if started:
            for name in missing:
                self._say(f"queues: {name} was gone; declared it again")
        else:
            self._say(self.declared(missing))

    def declared(self, missing: list[str]) -> str:
        """Say in a line what is declared."""
        new = f"new are {', '.join(missing)}" if missing else "all were there already"
        names = f"{', '.join(self._queues)} are declared with their companions, and the exchange {EXCHANGE}"
        return f"queues: {names}, at {mask_urls(self._url)}; {new}"


class _Ended(BaseException):
    """A signal asked this process to end."""


def _end() -> None:
    raise _Ended


@click.command(
    "queues",
    context_settings=CONTEXT,
    epilog=examples(
        "carpark queues",
        "carpark queues --once",
        "carpark queues --migrate",
        "carpark queues --broker-url amqp://guest:guest@localhost:5672 --metrics-port 0",
    ),
)
@settings_options("broker_url", "queue_type", "partitions", "management_url", "redis_url", "bind", "metrics_port")
@click.option(
    "--interval", default="2", metavar="SECONDS", callback=seconds(0.1, 3600), help="Time between two looks; default 2"
)
@click.option("--once", is_flag=True, help="Declare and end; status 1 when RabbitMQ cannot be reached")
@click.option(
    "--migrate", is_flag=True, help="Give queues of before the arguments of now, with their messages, and end"
)
def queues(settings: Settings, interval: float, once: bool, migrate: bool) -> None:
    """Declare the queues of the events, their exchange, and the backend's own queue; keep them declared.

    What vanishes is declared again. A RabbitMQ that goes away is waited for. Metrics are on port 9203, or the one that
    CARPARK_METRICS_PORT names. Ends on SIGTERM or Ctrl-C.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    configurator = QueueConfigurator(settings, QueueMetrics(registry, all_queues(settings.partitions)), _say, interval)
    with contextlib.closing(configurator):
        if migrate:
            configurator.check_partitions()  # before what is missing is declared, and then was there all along
            configurator.close()  # what is moved may take longer than RabbitMQ waits for a heartbeat
            Migration(settings, _say).run()
        if once or migrate:
            _say(configurator.declared(configurator.declare()))
            return
        port = SERVICES["queues"].port_or(settings.metrics_port)
        with MetricsPage(registry, settings.bind, port) as page, contextlib.suppress(_Ended), on_signal(_end):
            _say(f"queues: metrics at {page.url}")
            configurator.watch()


def _say(line: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody reads it: no reason not to keep the queues
        click.echo(line)
