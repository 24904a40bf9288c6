"""The command ``carpark verify``."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import click
from click.core import ParameterSource
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from carpark.domain.canonical import canonical_time
from carpark.domain.events import PRIVATE
from carpark.domain.pairing import Seen
from carpark.errors import InvalidSetting
from carpark.ops.audit.auditing import Progress as Hears
from carpark.ops.audit.auditing import Sources, audit
from carpark.ops.audit.facts import KINDS
from carpark.ops.audit.judge import Each
from carpark.ops.audit.lastrun import LastRun
from carpark.plugins import Plugins
from carpark.plugins.base import ReadBack
from carpark.plugins.loading import own_options
from carpark.plugins.options import PluginCommand, plugin_options
from carpark.settings import Settings, load_settings
from carpark.settings.fields import options_of
from carpark.settings.options import CONTEXT, EXIT_FAILED, EXIT_OK, examples
from carpark.settings.values import management_url_of
from carpark.web.ports import cause_of

PATIENCE = 1.0
"""Seconds after which a progress bar is shown."""

_KNOWN_OF_A_RUN = {"redis_url", "broker_url", "since", "retention", "management_url", "partitions"}
"""Options without effect when a run is audited, as are those of its sinks: it has records and queues of its own."""

_FILE = click.Path(dir_okay=False, path_type=Path)


class _Url(click.ParamType[str]):
    """A URL, checked as the setting of that name is."""

    name = "url"

    def __init__(self, setting: str) -> None:
        self._setting = setting

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check it, and refuse what lives in another process."""
        url: str = getattr(load_settings({}, {self._setting: value}), self._setting)
        if url.startswith(("memory:", "stub:")):
            raise click.BadParameter(f"{value} is in another process, which alone can look into it", ctx, param)
        return url


@click.command(
    cls=PluginCommand,
    context_settings=CONTEXT,
    epilog=examples(
        "carpark verify                                    # the last `carpark run`",
        "carpark verify --journal data/entries.jsonl --journal data/exits.jsonl --csv data/summaries.csv",
        "carpark verify --journal day.jsonl --redis-url redis://localhost --broker-url amqp://localhost --show 20",
        "carpark verify --journal day.jsonl --sinks sqlite --each fates.jsonl --json",
    ),
)
@click.option(
    "--journal", "journals", metavar="FILE", type=_FILE, multiple=True,
    help="A generator's journal, or any file with an event per line; all that was published since the records and the "
    "sinks were empty. Without any, the last `carpark run` with this CSV is audited",
)  # fmt: skip
@plugin_options("csv", "sinks", "plugins", "retention", "management_url", "partitions")
@click.option("--redis-url", metavar="URL", type=_Url("redis_url"), help="Look at the records, too")
@click.option("--broker-url", metavar="URL", type=_Url("broker_url"), help="Look into the queues, too")
@click.option("--since", metavar="TIME", help="Leave out stays that ended before this RFC 3339 time")
@click.option(
    "--show", metavar="N", type=click.IntRange(0), default=10, help="Show so many of each finding; default 10"
)
@click.option(
    "--each", "each_file", metavar="FILE", type=_FILE, help="Write down what became of each event, JSON lines"
)
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON, and nothing else, on stdout")
def verify(
    settings: Settings,
    plugins: Plugins,
    journals: tuple[Path, ...],
    redis_url: str | None,
    broker_url: str | None,
    since: str | None,
    show: int,
    each_file: Path | None,
    as_json: bool,
) -> int:
    """Audit a day or a disaster: nothing lost, nothing twice.

    What the journals' events must come to is held against the rows of the sinks in use that can be read back and, if
    they are named, against the records and the queues. Let the workers finish first.

    Without --journal the last `carpark run` is audited, which has records and queues of its own: then only --csv,
    --sinks, --show, --each and --json count, and the others are refused.

    Exit status: 0 all is accounted for, 1 something is lost, there twice, dead, damaged or unexpected, or is
    undelivered by a run that has ended, 2 the command was wrong.
    """
    if journals:
        is_guessed = settings.management_url == management_url_of(settings.broker_url)  # of another broker, perhaps
        sources = Sources(
            *(journals, plugins.read_back(settings), _since(since), redis_url, settings.retention),
            *(broker_url, "" if is_guessed else settings.management_url, settings.partitions),
        )
        _refuse_nothing_to_compare(sources, settings, plugins)
        _refuse_files_of_no_sink(sources, settings, plugins)
    else:
        sources = _last_run(settings, plugins)
    with progress_bar(Console(stderr=True)) as progress, _writing(each_file) as each:
        verdict = audit(sources, show=show, progress=progress, each=each)
    if as_json:
        click.echo(json.dumps(verdict.to_dict()))
    else:
        Console().print(verdict.table())
    is_over = not journals  # then nobody will deliver what is not delivered
    return EXIT_OK if verdict.ok and not (is_over and verdict.undelivered) else EXIT_FAILED


@contextmanager
def progress_bar(console: Console) -> Iterator[Hears]:
    """Show a progress bar in a terminal, once the work has taken longer than `PATIENCE`."""
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
        console=console, transient=True,
    )  # fmt: skip
    started, task = time.monotonic(), bar.add_task("")

    def hear(text: str, done: int, total: int) -> None:
        bar.update(task, description=text, completed=done, total=total)
        if console.is_terminal and not bar.live.is_started and time.monotonic() - started > PATIENCE:
            bar.start()

    try:
        yield hear
    finally:
        if bar.live.is_started:
            bar.stop()


@contextmanager
def _writing(path: Path | None) -> Iterator[Each | None]:
    if path is None:
        yield None
        return
    try:
        path.touch(PRIVATE)
        with path.open("w", encoding="utf-8") as file:
            yield _writer(file)
    except OSError as error:
        raise InvalidSetting("--each", str(path), f"a file that can be written ({cause_of(error)})") from error


def _writer(file: TextIO) -> Each:
    def write(plate: str, event: Seen, became: str) -> None:
        moment, kind, id_ = event
        fields = {"event": KINDS[kind], "id": id_, "vehicle_plate": plate, "time": moment}
        file.write(json.dumps({**fields, "became": became}, ensure_ascii=False) + "\n")

    return write


def _since(text: str | None) -> str:
    try:
        return canonical_time(text) if text else ""
    except ValueError as error:
        raise InvalidSetting("--since", text or "", str(error).removeprefix("wanted ")) from None


def _refuse_nothing_to_compare(sources: Sources, settings: Settings, plugins: Plugins) -> None:
    if not sources.sinks and not sources.redis_url:
        can = ", ".join(name for name, found in plugins.sinks.items() if found.offer.read_back)
        wanted = f"a sink that can be read back ({can})"
        raise InvalidSetting("CARPARK_SINKS", ",".join(settings.sinks), wanted)
    for name, back in sources.sinks.items():
        if not back.exists:
            raise InvalidSetting(f"the file of the sink {name}", back.place, "a file that is there and may be read")


def _refuse_files_of_no_sink(sources: Sources, settings: Settings, plugins: Plugins) -> None:
    """Refuse a file that was named to be audited and that no sink in use keeps: another would be audited for it."""
    offers = [found.offer for found in plugins.in_use(settings, ("sinks",))]
    used = {each.argument for offer in offers for each in options_of(offer.settings, offer.variables).values()}
    if str(settings.csv) in (back.place for back in sources.sinks.values()):
        used.add("csv")
    files = {"csv", *own_options(plugins, ("sinks",))}
    for name, flag in _given().items():
        if name in files - used:
            names = ", ".join(sources.sinks) or "none"
            said = f"{flag} is of no sink that would be audited ({names}); name the one that keeps it in --sinks"
            raise click.UsageError(said, click.get_current_context())


def _given() -> dict[str, str]:
    """Find the options that stand on the command line: name to flag."""
    context = click.get_current_context()
    return {
        option.name: option.opts[0]
        for option in context.command.get_params(context)
        if option.name and context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE
    }


def _last_run(settings: Settings, plugins: Plugins) -> Sources:
    context, given = click.get_current_context(), _given()
    for name, flag in given.items():
        if name in _KNOWN_OF_A_RUN or name in own_options(plugins, ("sinks",)):
            raise click.UsageError(
                f"{flag} goes with --journal, which names what was published; without that the last "
                "`carpark run` is audited, with records, queues and files of its own",
                context,
            )
    sources = LastRun.load(settings.csv).sources()
    if "sinks" in given:  # the environment's are those of the next run
        sources = replace(sources, sinks={name: _of_the_run(name, sources) for name in plugins.read_back(settings)})
        _refuse_nothing_to_compare(sources, settings, plugins)
    return sources


def _of_the_run(sink: str, sources: Sources) -> ReadBack:
    if sink not in sources.sinks:
        known = ", ".join(sources.sinks) or "it has none"
        raise InvalidSetting("--sinks", sink, f"a sink of the last `carpark run` that can be read back: {known}")
    return sources.sinks[sink]
