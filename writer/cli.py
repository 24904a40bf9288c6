"""The command ``carpark writer``, which is also ``python -m writer``."""

from __future__ import annotations

import logging

import click

from carpark.settings import Settings
from carpark.settings.options import CONTEXT, examples, settings_options


@click.command(
    "writer",
    context_settings=CONTEXT,
    epilog=examples(
        "carpark writer",
        "carpark writer --csv stays.csv --port 0",
        "CARPARK_WRITER_TOKEN=secret CARPARK_DASHBOARD_LOGIN=me:secret carpark writer --bind 0.0.0.0",
        "curl -d @stay.json http://localhost:40000/summaries",
    ),
)
@settings_options(
    *("csv", "writer_token", "redis_url", "bind", "writer_port", "dashboard_port", "dashboard_login"),
    flags={"writer_port": "--port"},
)
def writer(settings: Settings) -> None:
    """Append the summaries of finished stays to a CSV file, each once.

    Takes them by POST /summaries; GET / is a page for people. Ends on SIGTERM or Ctrl-C, with every request that
    was in hand answered.
    """
    from writer.server import serve  # takes a third of a second, which `--help` need not wait for

    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    serve(settings)
