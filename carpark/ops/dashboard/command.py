"""The command ``carpark dashboard``."""

from __future__ import annotations

import contextlib
import logging
from functools import partial

import click

from carpark.ops.dashboard.server import DashboardServer
from carpark.rabbitmq import rights
from carpark.records import open_records
from carpark.records.connection import require
from carpark.settings import Settings
from carpark.settings.options import CONTEXT, examples, settings_options
from carpark.settings.values import mask_url


@click.command(
    "dashboard",
    context_settings=CONTEXT,
    epilog=examples(
        "carpark dashboard",
        "carpark dashboard --port 0",
        "CARPARK_DASHBOARD_LOGIN=me:secret carpark dashboard --bind 0.0.0.0",
        "carpark dashboard --dashboard-links Grafana=http://localhost:3000",
    ),
)
@settings_options(
    *("broker_url", "partitions", "management_url", "redis_url", "sinks", "writer_url"),
    *("bind", "dashboard_port", "dashboard_login", "dashboard_links"),
    flags={"dashboard_port": "--port"},
)
def dashboard(settings: Settings) -> None:
    """Show queues, workers, messages and the car park in a browser; requeue, mend or delete dead letters.

    Looking changes no queue. Ends on SIGTERM or Ctrl-C, with what was in hand done.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("pika").setLevel(logging.CRITICAL)  # what goes wrong is said on the page, in one line
    server = DashboardServer(settings)
    rights.require(settings.broker_url, "carpark dashboard")
    require(settings.redis_url, partial(_look, settings))
    shown = ";".join(mask_url(url) for url in settings.broker_url.split(";"))
    server.run_until_signal(f"dashboard: {server.url} shows {shown}")


def _look(settings: Settings) -> None:
    """Ask once for what the pages show, so that a refusal is found at the start; it says itself what is missing."""
    with contextlib.closing(open_records(settings.redis_url, 1, settings.sinks, attempts=1)) as records:
        records.snapshot()
