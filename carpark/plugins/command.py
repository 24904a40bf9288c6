"""``carpark plugins``: what can be swapped, and where it came from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from carpark.plugins import Plugins
from carpark.plugins.manager import Found, Origin, raise_all
from carpark.settings import Settings
from carpark.settings.options import CONTEXT, examples, settings_options

_WIDE = 120


@dataclass(frozen=True)
class Row:
    """A sink or a plate generator on offer.

    Args:
        name: What the settings call it.
        kind: ``sink`` or ``plates``.
        plugin: The plugin that offers it.
        version: The version of the distribution that the plugin is part of, or empty.
        source: ``built in``, ``installed`` or ``CARPARK_PLUGINS``.
        distribution: The name of that distribution, or the module's file.
        in_use: Whether ``CARPARK_SINKS`` or ``CARPARK_PLATES`` names it.
        help: What it does.
    """

    name: str
    kind: str
    plugin: str
    version: str
    source: str
    distribution: str
    in_use: bool
    help: str


def rows(plugins: Plugins, settings: Settings) -> Iterator[Row]:
    """List what is on offer.

    Args:
        plugins: The plugins of the process.
        settings: Say what is in use.

    Yields:
        Sinks, then plate generators.
    """
    for sink in plugins.sinks.values():
        yield _row("sink", sink, settings.sinks)
    for plates in plugins.plates.values():
        yield _row("plates", plates, (settings.plates,))


def _row(kind: str, found: Found[Any], used: tuple[str, ...]) -> Row:
    offer, origin = found.offer, found.origin
    return Row(
        name=offer.name,
        kind=kind,
        plugin=found.plugin,
        version=origin.version,
        source=origin.source,
        distribution=origin.distribution,
        in_use=offer.name in used,
        help=offer.help,
    )


@click.command(
    "plugins",
    context_settings=CONTEXT,
    epilog=examples(
        "carpark plugins",
        "carpark plugins --json",
        "CARPARK_PLUGINS=my_module carpark plugins",
    ),
)
@settings_options("sinks", "plates", "plugins")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array instead of a table.")
def plugins(settings: Settings, as_json: bool) -> None:
    """List the summary sinks and plate generators: where each came from, and whether it is in use.

    A plugin that is broken, and a name in CARPARK_SINKS or CARPARK_PLATES that nothing offers, is said after the list,
    with exit status 2.
    """
    found = Plugins(settings.plugins, lenient=True)
    listed = list(rows(found, settings))
    if as_json:
        click.echo(json.dumps([asdict(row) for row in listed], indent=2))
    else:
        _print_table(listed)
    raise_all([*found.broken, *found.unknown(settings)])


def _print_table(listed: list[Row]) -> None:
    from rich.console import Console  # only this needs it, and every command imports this module
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console = Console(width=10_000)  # a file and a pipe have no width to fit: a line each
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    for column in ("name", "kind", "in use", "version"):
        table.add_column(column, no_wrap=True)
    table.add_column("from", overflow="fold", max_width=15 if console.width < _WIDE else None)
    table.add_column("what it does", overflow="fold")
    for row in listed:
        origin = str(Origin(row.source, row.version, Path(row.distribution).name))  # of a module, the file alone
        cells = (row.name, row.kind, "yes" if row.in_use else "", row.version, origin, row.help)
        table.add_row(*map(Text, cells), style="bold" if row.in_use else "")
    with console.capture() as printed:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in printed.get().splitlines()))
