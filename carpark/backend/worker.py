"""``carpark worker``: checks the settings, then becomes ``dramatiq carpark.actors``."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from carpark.backend.servers import CHECKED, check_servers
from carpark.errors import InvalidSetting
from carpark.plugins import Plugins
from carpark.plugins.options import PluginCommand, plugin_options
from carpark.services import METRICS_SETTING, SERVICES
from carpark.settings import Settings
from carpark.settings.options import CONTEXT, SINK_SETTINGS, examples
from carpark.web.ports import listen

_SETTINGS = (
    "broker_url",
    "queue_type",
    "partitions",
    "redis_url",
    "writer_url",
    "writer_token",
    "sinks",
    *SINK_SETTINGS,
    "plugins",
    "retention",
    "batch",
    "bind",
    "metrics_port",
)


@click.command(
    cls=PluginCommand,
    context_settings={**CONTEXT, "ignore_unknown_options": True},
    epilog=examples(
        "carpark worker",
        "carpark worker --processes 2 --threads 4",
        "carpark worker --sinks http-csv,sqlite --processes 1",
        "carpark worker --watch carpark",
    ),
)
@plugin_options(*_SETTINGS)
@click.argument("dramatiq_options", nargs=-1, type=click.UNPROCESSED)
def worker(settings: Settings, plugins: Plugins, dramatiq_options: tuple[str, ...]) -> None:
    """Run the backend: Dramatiq actors on the queues, and the relay to the sinks.

    The settings are checked, then this process becomes `dramatiq carpark.actors` with the further options as they
    are: --processes, --threads, --watch and all others that `dramatiq --help` lists.
    """
    if settings.broker_url.startswith("stub:"):
        raise InvalidSetting(
            "CARPARK_BROKER_URL", settings.broker_url, "RabbitMQ; the in-process broker is for `carpark run`"
        )
    _check_options(dramatiq_options)
    plugins.try_out(settings, ("sinks",))
    check_servers(settings)
    listen(settings.bind, SERVICES["backend"].port_or(settings.metrics_port), METRICS_SETTING).close()
    command = [sys.executable, "-m", "dramatiq", "carpark.actors", *dramatiq_options]
    # Flags are handed on as variables: the actors read nothing else.
    os.execve(sys.executable, command, {**plugins.environ, CHECKED: str(os.getpid())})  # noqa: S606 - no shell is wanted


def _check_options(options: tuple[str, ...]) -> None:
    """Let Dramatiq judge its options before a port is tried."""
    from dramatiq.cli import make_argument_parser  # `--help` need not wait for it

    def refuse(message: str) -> NoReturn:
        raise click.UsageError(f"{message}; for those of Dramatiq: dramatiq --help", click.get_current_context())

    parser = make_argument_parser()
    parser.error = refuse
    parser.parse_args(["carpark.actors", *options])
