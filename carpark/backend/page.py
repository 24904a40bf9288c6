"""The page on which the numbers of all worker processes are summed, shown by a process of its own.

Dramatiq's master runs `serve` beside the workers. It never imports the actors; what it needs it reads anew from the
environment.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from carpark.errors import ConfigurationError, RecordsUnavailable
from carpark.records import Records, connect
from carpark.services import SERVICES
from carpark.settings import load_settings
from carpark.telemetry import folder
from carpark.telemetry.page import MetricsPage

if TYPE_CHECKING:
    from prometheus_client.core import GaugeMetricFamily

PATIENCE = 0.5
"""Seconds that a scrape waits for the records; without an answer it does without their numbers."""


class RecordsNow:
    """What the records say at the moment of a scrape; nothing while they are away. A collector for a registry.

    Args:
        records: Gives the records.
    """

    def __init__(self, records: Callable[[], Records]) -> None:
        self._records = records

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Read the numbers.

        Yields:
            The gauges that could be read.
        """
        from prometheus_client.core import GaugeMetricFamily

        try:
            records = self._records()
            inside, backlogs = records.inside(), records.backlogs()
        except RecordsUnavailable:
            return
        yield GaugeMetricFamily("go_backend_vehicles_inside", "Vehicles inside, read when scraped", inside)
        said = "Summaries that a sink has not taken: waiting, or given up"
        undelivered = GaugeMetricFamily("go_backend_summaries_undelivered", said, labels=["sink"])
        said = "Whether a sink's circuit breaker is open: it fails, and is left alone between two attempts"
        is_open = GaugeMetricFamily("go_backend_sink_open", said, labels=["sink"])
        for backlog in backlogs:
            undelivered.add_metric([backlog.sink], backlog.undelivered)
            is_open.add_metric([backlog.sink], backlog.failing is not None)
        yield from (undelivered, is_open)


def serve() -> int:
    """Show the page until the master ends.

    Returns:
        The exit status.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None  # noqa: S101 - the master called
    assert parent.pid is not None  # noqa: S101
    logging.getLogger("waitress").setLevel(logging.ERROR)
    from prometheus_client import CollectorRegistry
    from prometheus_client.multiprocess import MultiProcessCollector

    try:
        settings = load_settings()
        here, _ = folder.enter(parent.pid)
        if (here / folder.REFUSED).exists():
            return 2
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(here))  # type: ignore[no-untyped-call]
        records = Records(connect(settings.redis_url, attempts=1, timeout=PATIENCE), settings.retention, settings.sinks)
        registry.register(RecordsNow(lambda: records))
        page = MetricsPage(registry, settings.bind, SERVICES["backend"].port_or(settings.metrics_port))
    except ConfigurationError as error:
        # The workers have found the port free; somebody took it since.
        print(f"carpark: {error}", file=sys.stderr)  # noqa: T201 - goes into the master's output
        os.kill(parent.pid, signal.SIGTERM)
        return 2
    with page:
        print(f"backend: metrics at {page.url}", file=sys.stderr)  # noqa: T201
        parent.join()
    return 0
