"""The commands ``carpark generate entry`` and ``carpark generate exit``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from carpark.plugins import Plugins
from carpark.plugins.options import PluginCommand, plugin_options
from carpark.settings import Settings
from carpark.settings.options import CONTEXT, examples, seconds

_COMMON = (
    *("plates", "plugins", "rate", "broker_url", "queue_type", "partitions", "redis_url"),
    *("retention", "bind", "metrics_port"),
)


def _run_options(command: Any) -> Any:
    for option in (
        click.option(
            "--journal",
            metavar="FILE",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Write every event to this file before it is sent; on an existing one, go on where it stops",
        ),
        click.option("--seed", metavar="TEXT", help="Make the plates, and which exits are matched, repeatable"),
        click.option("--duration", metavar="SECONDS", callback=seconds(0.001), help="End after so long"),
        click.option("--events", metavar="N", type=click.IntRange(0), help="End after so many, the journal's included"),
    ):
        command = option(command)
    return command


@click.group(context_settings=CONTEXT)
def generate() -> None:
    """Run one of the two cameras, as a service of its own.

    Any number of each can run at once, on as many machines as there are: they share RabbitMQ and Redis. SIGTERM and
    Ctrl-C finish what is in hand.
    """


@generate.command(
    cls=PluginCommand,
    epilog=examples(
        "carpark generate entry",
        "carpark generate entry --rate 50 --capacity 20000",
        "carpark generate entry --events 1000 --seed 7 --journal data/entries.jsonl",
        "carpark generate entry --metrics-port 0    # a second one on the same machine",
    ),
)
@_run_options
@plugin_options("capacity", *_COMMON)
def entry(settings: Settings, plugins: Plugins, **options: Any) -> None:
    """Run the entry camera: vehicles come in at a steady rate, each with a plate that is not inside.

    When the car park is full they wait at the barrier.
    """
    _run("entry", settings, plugins, **options)


@generate.command(
    cls=PluginCommand,
    name="exit",
    epilog=examples(
        "carpark generate exit",
        "carpark generate exit --rate 50 --match-ratio 0.95",
        "carpark generate exit --events 1000 --seed 7 --journal data/exits.jsonl",
        "carpark generate exit --metrics-port 0    # a second one on the same machine",
    ),
)
@_run_options
@plugin_options("match_ratio", *_COMMON)
def exit_(settings: Settings, plugins: Plugins, **options: Any) -> None:
    """Run the exit camera: vehicles leave at a steady rate, most of them seen entering, the others not.

    While nobody is inside it waits, so that the share of matched exits is kept.
    """
    _run("exit", settings, plugins, **options)


def _run(
    kind: str,
    settings: Settings,
    plugins: Plugins,
    *,
    events: int | None,
    duration: float | None,
    seed: str | None,
    journal: Path | None,
) -> None:
    # Imported here: pika, dramatiq and redis take a third of a second, which --help need not wait for.
    from generators.build import Plan
    from generators.start import run_service

    plan = Plan(events=events, seed=seed, journals={kind: journal} if journal else {})
    run_service(kind, settings, plugins, plan, duration)
