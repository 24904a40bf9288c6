"""The command ``carpark run``."""

from __future__ import annotations

import contextlib
import json
import logging
import shlex
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import click
from rich.console import Console

from carpark.domain.events import format_time
from carpark.embedded.system import Embedded, check
from carpark.embedded.view import View, say
from carpark.errors import CarparkError, ConfigurationError
from carpark.ops.audit import LastRun, Verdict, audit, run_folder, run_folder_of
from carpark.ops.audit.command import progress_bar
from carpark.ops.dashboard import DashboardServer
from carpark.ops.dashboard.server import links_of
from carpark.ops.dashboard.stub import StubInterface
from carpark.plugins import Plugins
from carpark.plugins.options import PluginCommand, plugin_options
from carpark.rabbitmq.topology import with_companions
from carpark.settings import Settings
from carpark.settings.options import CONTEXT, EXIT_FAILED, EXIT_OK, SINK_SETTINGS, examples, seconds
from carpark.web.signals import on_signal
from generators.build import Plan

_SHOW = 10


@click.command(
    cls=PluginCommand,
    context_settings=CONTEXT,
    epilog=examples(
        "carpark run",
        "carpark run --rate 100 --events 300 --seed 7",
        "carpark run --duration 60 --capacity 50 --csv stays.csv",
        "carpark run --events 1000 --rate 500 --json",
    ),
)
@plugin_options(
    "rate",
    "match_ratio",
    "capacity",
    "plates",
    "sinks",
    "plugins",
    "csv",
    "writer_token",
    "writer_port",
    "metrics_port",
    "dashboard_port",
    "dashboard_login",
    "dashboard_links",
    "bind",
    *SINK_SETTINGS,
    "retention",
    "partitions",
)
@click.option("--events", metavar="N", type=click.IntRange(0), help="End after so many events of each camera")
@click.option("--duration", metavar="SECONDS", callback=seconds(0.001), help="End after so long")
@click.option("--seed", metavar="TEXT", help="Make plates, matches, and which vehicle leaves repeatable")
@click.option("--json", "as_json", is_flag=True, help="Print the closing table as JSON, and nothing else, on stdout")
def run(
    settings: Settings,
    plugins: Plugins,
    events: int | None,
    duration: float | None,
    seed: str | None,
    as_json: bool,
) -> int:
    """Run the whole car park in this process: both cameras, broker, backend, records and writer.

    No Docker, no server, no root. It ends when --events or --duration is reached, or on Ctrl-C; either way everything
    that was published is processed first. A second Ctrl-C ends it at once.
    """
    logging.getLogger().setLevel(logging.WARNING)
    console = Console(stderr=as_json)
    check(settings, plugins)
    stop, abort = threading.Event(), threading.Event()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(run_folder(settings.csv))
        last = LastRun.begin(folder, format_time(datetime.now(UTC)), settings, plugins)
        last.save()
        park = stack.enter_context(Embedded(settings, Plan(events, seed, last.journals), plugins))
        where = stack.enter_context(_dashboard(park))
        say(console, f"{_headline(park)}\nmetrics at {park.metrics.url}\n{where}")
        # The second signal stops the waiting, too. The audit, behind it, can be ended as any other program.
        with View(console, park.snapshot) as view, on_signal(stop.set, lambda *_: abort.set()):
            park.run(stop, duration, view)
            done = park.finish(abort, view)
        report = park.report()
        last = replace(last, counts=report.to_dict())
        last.save()
        verdict = None if abort.is_set() else _audit(park, last, plugins, console)
        kept, not_made, held_back = _keep(park, last), park.not_made, park.held_back
    if as_json:
        audited = verdict.to_dict() if isinstance(verdict, Verdict) else None
        click.echo(json.dumps({**report.to_dict(), "not_made": not_made, "held_back": held_back, "audit": audited}))
    else:
        console.print(report.table())
        for text, right in report.sums():
            say(console, f"{text} {'✓' if right else '✗ does not add up'}", "green" if right else "bold red")
    if isinstance(verdict, CarparkError):
        say(console, f"carpark run: not audited: {verdict}", "bold red")
    elif verdict and verdict.ok:
        say(console, f"audit: {verdict.sentence()}", None if verdict.undelivered else "green")
    elif verdict:
        console.print(verdict.table(), highlight=False, soft_wrap=True)
    if kept:
        say(console, kept, "yellow")
    if held_back:
        said = "events less than the rate would make: a camera waited, for room or for somebody to leave"
        say(console, f"{held_back:,} {said}", "yellow")
    if not_made:
        said = f"events were due and not made: this machine is too slow for {settings.rate:g} of each a second"
        say(console, f"carpark run: {not_made:,} {said}", "bold red")
    if not done:
        undone = f"{report.undelivered} summaries are undelivered: a sink fails; see the warnings above"
        undone = "stopped before everything was done" if abort.is_set() else undone
        say(console, f"carpark run: {undone}", "bold red")
    is_right = verdict is None or getattr(verdict, "ok", False)
    return EXIT_OK if done and report.adds_up and not not_made and is_right else EXIT_FAILED


def _keep(park: Embedded, last: LastRun) -> str:
    """Write down what would be gone with the process, and say where it is."""
    csv = park.settings.csv
    try:
        count = last.keep(park.letters())
    except OSError as error:
        return f"dead letters cannot be kept beside {csv}: {error.strerror}"
    if not count:
        return ""
    letters = "1 dead letter is" if count == 1 else f"{count:,} dead letters are"
    if last.folder != run_folder_of(csv):
        return f"{letters} gone: another run uses {run_folder_of(csv)}, or it cannot be written"
    return f"{letters} kept: carpark dlq list --csv {shlex.quote(str(csv))}"


def _audit(park: Embedded, last: LastRun, plugins: Plugins, console: Console) -> Verdict | CarparkError:
    with progress_bar(console) as progress:
        names = (name for queue in park.broker.names for name in with_companions(queue))
        letters = ((name, letter.body) for name in names for letter in park.broker.messages(name))
        settings = park.settings
        try:
            sources = last.sources(plugins.read_back(settings))
            sources = replace(sources, redis_url=settings.redis_url, retention=settings.retention, messages=letters)
            return audit(sources, show=_SHOW, progress=progress)
        except CarparkError as error:  # of a sink that cannot be read back: what the run came to is said all the same
            return error


def _headline(park: Embedded) -> str:
    settings = park.settings
    where = f"{park.writer.url} appends to {settings.csv}" if park.writer else f"sinks: {', '.join(settings.sinks)}"
    return f"car park: {settings.rate:g} entries and {settings.rate:g} exits a second; {where}"


@contextlib.contextmanager
def _dashboard(park: Embedded) -> Iterator[str]:
    """Serve the dashboard while the run lasts, where that is possible: a run is not worth less without it."""
    writer = [("Writer", park.writer.url)] if park.writer else []
    links = links_of(park.settings) if park.settings.dashboard_links else writer
    server: DashboardServer | None = None
    try:
        server = DashboardServer(park.settings, StubInterface(park.broker), park.backend.records, links)
        where = f"dashboard at {server.url}"
    except ConfigurationError as error:
        where = f"no dashboard: {error}"
    if park.writer:
        park.writer.app.config["DASHBOARD_PORT"] = server.port if server else 0
    with server or contextlib.nullcontext():
        yield where
