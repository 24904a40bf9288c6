"""Writes what the docs take from the code: ``python -m carpark.ops.docs``; with ``--check`` says what is out of date.

A new table is one more line in `GENERATED`; in a page it stands between ``<!-- generated: name -->`` and
``<!-- end: name -->``, and what is outside of these is written by people.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click

from carpark.domain.schemas import MODELS, schema_of
from carpark.errors import CarparkError
from carpark.plugins import Plugins
from carpark.plugins.manager import BUILT_IN, KINDS
from carpark.plugins.reference import hooks, offers
from carpark.settings import Settings
from carpark.settings.fields import Option, options_of
from carpark.settings.options import CONTEXT, EXIT_FAILED, EXIT_OK, examples, run_command

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""


_URL = re.compile(r"[a-z]+://[^\s,;)]*")
"""Stands in the docs as code, or a page would make a link of it."""


@dataclass(frozen=True)
class Generated:
    """Something in the docs that comes from the code."""

    path: str
    make: Callable[[], str]
    table: str = ""

    def render(self, current: str) -> str:
        """Bring the file up to date."""
        if not self.table:
            return self.make()
        start, end = f"<!-- generated: {self.table} -->\n", f"<!-- end: {self.table} -->"
        if current.count(start) != 1 or current.count(end) != 1 or current.index(start) > current.index(end):
            raise CarparkError(f"{self.path}: wanted one line {start.strip()} and after it one {end}")
        before, _, rest = current.partition(start)
        return f"{before}{start}{self.make()}{end}{rest.partition(end)[2]}"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def settings_table(options: Iterable[Option] | None = None) -> str:
    """Write a table of settings."""
    rows = (
        (
            f"`{option.variable}`{' or `…_FILE`' if option.file_variable else ''}",
            f"`{option.flag}`",
            f"`{option.default}`" if option.default else "none",
            _URL.sub(r"`\g<0>`", option.text.wanted),
            option.help,
        )
        for option in (options_of(Settings).values() if options is None else options)
    )
    return markdown_table(("variable", "flag", "default", "value", "meaning"), rows)


def built_in_table() -> str:
    """Write the table of the built-in offers' own settings."""
    plugins = Plugins(lenient=True)
    every = [found for kind in KINDS for found in getattr(plugins, kind).values() if found.origin.source == BUILT_IN]
    own = (options_of(found.offer.settings, found.offer.variables) for found in every)
    return settings_table(option for options in own for option in options.values())


def schema_text(name: str) -> str:
    """Write a JSON Schema."""
    return json.dumps(schema_of(name), indent=2, ensure_ascii=False) + "\n"


GENERATED: tuple[Generated, ...] = (
    Generated("docs/reference/settings.md", settings_table, "settings"),
    Generated("docs/reference/settings.md", built_in_table, "built-in"),
    Generated("docs/reference/hooks.md", hooks, "hooks"),
    Generated("docs/reference/hooks.md", offers, "offers"),
    *(Generated(f"docs/reference/schemas/{name}.json", partial(schema_text, name)) for name in MODELS),
)
"""All that is generated."""


def outdated(root: Path = ROOT) -> dict[Path, str]:
    """Find the files that are not what the code says."""
    wanted: dict[Path, str] = {}
    for each in GENERATED:
        path = root / each.path
        if each.table and not path.is_file():
            raise CarparkError(f"{each.path} is not there; run this in a checkout of the project")
        wanted[path] = each.render(wanted.get(path) or _read(path))
    return {path: text for path, text in wanted.items() if text != _read(path)}


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


@click.command(
    context_settings=CONTEXT, epilog=examples("python -m carpark.ops.docs", "python -m carpark.ops.docs --check")
)
@click.option("--check", is_flag=True, help="Write nothing; status 1 if a file is out of date.")
@click.option("--root", type=click.Path(path_type=Path), default=ROOT, metavar="FOLDER", help="The checkout.")
def docs(check: bool, root: Path) -> int:
    """Write the tables and JSON Schemas in docs/ anew from the code."""
    changed = outdated(root)
    for path, text in changed.items():
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        click.echo(f"{path.relative_to(root)}: {'out of date; run python -m carpark.ops.docs' if check else 'written'}")
    return EXIT_FAILED if check and changed else EXIT_OK


if __name__ == "__main__":
    run_command(docs, name="python -m carpark.ops.docs")
