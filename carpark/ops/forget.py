"""The command ``carpark forget``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, suppress

import click

from carpark.domain.canonical import canonical_plate
from carpark.errors import InvalidSetting, one_line
from carpark.ops.audit import run_folder_of
from carpark.ops.health import summaries
from carpark.plugins import Plugins
from carpark.plugins.options import PluginCommand, plugin_options
from carpark.records import Forgotten, open_records
from carpark.settings import Settings
from carpark.settings.options import CONTEXT, EXIT_OK, examples


@click.command(
    cls=PluginCommand,
    context_settings=CONTEXT,
    epilog=examples(
        "carpark forget 'B-AB 123'",
        "carpark forget 'B-AB 123' --sinks http-csv,jsonl --csv data/summaries.csv --json",
    ),
)
@click.argument("plate")
@plugin_options("redis_url", "retention", "csv", "sinks", "plugins")
@click.option("--json", "as_json", is_flag=True, help="Print what was done, and where the plate still stands, as JSON")
def forget(settings: Settings, plugins: Plugins, plate: str, as_json: bool) -> int:
    """Remove a plate from the records, and say where else it stands.

    Its record goes, and its stays that sinks have not taken; if it was inside, its exit will be unmatched. Counts stay
    as they are, and `carpark verify` names what it misses as forgotten, by a digest of the plate.
    """
    try:
        plate = canonical_plate(plate)
    except ValueError as error:
        raise InvalidSetting("PLATE", plate, str(error).removeprefix("wanted ")) from None
    if settings.redis_url.startswith("memory:"):
        wanted = "Redis; that of another process cannot be reached"
        raise InvalidSetting("CARPARK_REDIS_URL", settings.redis_url, wanted)
    with closing(open_records(settings.redis_url, settings.retention, settings.sinks)) as records:
        done = records.forget(plate)
    elsewhere = list(_elsewhere(plate, settings, plugins))
    if as_json:
        click.echo(json.dumps({"plate": plate, **vars(done), "elsewhere": elsewhere}))
    else:
        click.echo(f"{plate}: {_said(done)}\nwhere else it stands, or may stand (docs/how-to/privacy.md):")
        for each in elsewhere:
            click.echo(f"  {each}")
    return EXIT_OK


def _said(done: Forgotten) -> str:
    if not done.known:
        return "the records know nothing of it, and it counts as forgotten"
    parts = ["forgotten"]
    if done.inside:
        parts.append(f"it was inside since {done.inside}, and its exit will be unmatched")
    if done.summaries:
        parts.append(f"{summaries(done.summaries)} that a sink had not taken went with it")
    return "; ".join(parts)


def _elsewhere(plate: str, settings: Settings, plugins: Plugins) -> Iterator[str]:
    """Say where else a plate stands, which is looked up in files of this machine, and where it may."""
    kept = plugins.read_back(settings)
    for name, back in kept.items():
        try:
            rows = sum(not isinstance(row, str) and row[1] == plate for row in back.rows()) if back.exists else 0
            found = f"{rows:,} {'row' if rows == 1 else 'rows'} with it" if back.exists else "not on this machine"
        except Exception as error:  # a plugin's, too
            found = f"cannot be read: {one_line(str(error) or type(error).__name__)}"
        yield f"sink {name}: {back.place}, {found}"
    others = [name for name in settings.sinks if name not in kept]
    if others:
        yield f"what the {'sink' if len(others) == 1 else 'sinks'} {', '.join(others)} gave it to"
    with suppress(OSError):  # the name of the CSV may be too long to have one
        if (folder := run_folder_of(settings.csv)).is_dir():
            yield f"journals and dead letters of the last `carpark run`: {folder}"
    yield "journals of the generators (--journal), and what `carpark verify --each` wrote"
    yield "events and dead letters in RabbitMQ: carpark dlq list --match PLATE, carpark dlq purge ID"
    yield "Redis' append-only file until it is rewritten (redis-cli BGREWRITEAOF), backups, logs"
