"""``carpark plugins``: what can be swapped, and where it came from."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from carpark.plugins import Plugins
from carpark.plugins.manager import KINDS, Origin
from carpark.settings import Settings
from carpark.settings.fields import together
from carpark.settings.options import CONTEXT, examples, settings_options

_WIDE = 120


def rows(plugins: Plugins, settings: Settings) -> list[dict[str, Any]]:
    """List what is on offer.

    Args:
        plugins: The plugins of the process.
        settings: Say what is in use.

    Returns:
        Sinks, then plate generators: what each is and does, and where it came from.
    """
    used = {(kind, found.offer.name) for kind in KINDS for found in plugins.in_use(settings, (kind,))}
    return [
        {
            "name": found.offer.name,
            "kind": {"sinks": "sink"}.get(kind, kind),
            "plugin": found.plugin,
            **asdict(found.origin),
            "in_use": (kind, found.offer.name) in used,
            "help": found.offer.help,
        }
        for kind in KINDS
        for found in getattr(plugins, kind).values()
    ]


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
    listed = rows(found, settings)
    if as_json:
        click.echo(json.dumps(listed, indent=2))
    else:
        _print_table(listed)
    if wrong := [*found.broken, *found.unknown(settings)]:
        raise together(wrong)


def _print_table(listed: list[dict[str, Any]]) -> None:
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
        origin = str(Origin(row["source"], row["version"], Path(row["distribution"]).name))  # of a module, the file
        cells = (row["name"], row["kind"], "yes" if row["in_use"] else "", row["version"], origin, row["help"])
        table.add_row(*map(Text, cells), style="bold" if row["in_use"] else "")
    with console.capture() as printed:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in printed.get().splitlines()))
