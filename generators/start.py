"""Runs one camera as a service of its own, until it is done or a signal ends it."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from contextlib import ExitStack
from types import FrameType

from prometheus_client import CollectorRegistry

from carpark.domain.events import format_time
from carpark.errors import InvalidSetting
from carpark.plugins import Plugins
from carpark.rabbitmq import rights
from carpark.records.connection import require
from carpark.services import SERVICES
from carpark.settings import Settings
from carpark.settings.fields import options_of
from carpark.telemetry.page import MetricsPage
from carpark.web.signals import on_signal
from generators.build import Plan, make_lane
from generators.clock import Clock
from generators.publisher import RabbitmqPublisher
from generators.redis_lot import RedisLot
from generators.report import Console
from generators.service import Run


def run_service(kind: str, settings: Settings, plugins: Plugins, plan: Plan, duration: float | None = None) -> None:
    """Run a generator."""
    _refuse_in_process(settings)
    # The publisher says in one line what pika would say in twenty.
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    service, clock, stop = SERVICES[kind], Clock(), threading.Event()
    console = Console(sys.stdout, clock)
    registry = CollectorRegistry()
    with ExitStack() as stack:
        lot = RedisLot.connect(settings.redis_url, clock, capacity=settings.capacity, retention=settings.retention)
        stack.callback(lot.close)
        lane = make_lane(kind, settings, plan, plugins=plugins, lot=lot, clock=clock, registry=registry)
        stack.callback(lane.close)
        page = stack.enter_context(MetricsPage(registry, settings.bind, service.port_or(settings.metrics_port)))
        stack.enter_context(on_signal(stop.set, _interrupt))
        name = f"carpark {service.title}"
        publisher = RabbitmqPublisher(
            settings.broker_url, stop, console.say, name, settings.queue_type, settings.partitions
        )
        stack.callback(publisher.close)
        rights.require(settings.broker_url, name, rights.rights_of(settings.partitions)[rights.CAMERAS])
        require(settings.redis_url, lambda: lot.rights()[1])
        console.say(f"{service.title}: {settings.rate:g} events/s; metrics at {page.url}")
        if lane.journal and (last := lane.journal.last or "") > format_time(clock.now()):
            console.say(f"{service.title}: the clock is behind the journal's last event: times go on from {last}")
        stack.callback(console.end, [lane])
        until = None if duration is None else clock.monotonic() + duration
        Run([lane], publisher, clock=clock, stop=stop, watcher=console, until=until).run()


def _interrupt(number: int, _: FrameType | None) -> None:
    """Let a second Ctrl-C end what the first signal asked to end; who sends SIGTERM twice means the first."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt


def _refuse_in_process(settings: Settings) -> None:
    for name, scheme, wanted in (
        ("broker_url", "stub", "RabbitMQ, amqp://host:port"),
        ("redis_url", "memory", "Redis, redis://host:port/0"),
    ):
        value: str = getattr(settings, name)
        if value.startswith(f"{scheme}:"):
            wanted = f"{wanted}: a service of its own shares it with the others; `carpark run` has all in one process"
            raise InvalidSetting(options_of(Settings)[name].variable, value, wanted)
