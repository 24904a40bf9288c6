"""The measured tables of docs/explanation/faults.md: each row is written as soon as it is known, with its date."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from carpark.ops.docs import markdown_table
from tests.support.processes import ROOT

PAGE = ROOT / "docs/explanation/faults.md"


def note(mark: str, head: Sequence[str], cells: Sequence[str]) -> None:
    """Write a row, in the place of the one with the same first cell if there is one.

    Args:
        mark: The table's name in the page's markers.
        head: The columns' names, without the last one, which is the date.
        cells: The row, without its date.
    """
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    before, rows, after = _read(mark)
    row = [cell.replace("|", "/") for cell in (*cells, now)]
    places = [place for place, old in enumerate(rows) if old[0] == row[0]]
    if places:
        rows[places[0]] = row
    else:
        rows.append(row)
    _write(before + markdown_table((*head, "measured (UTC)"), rows) + after)


def forget(mark: str, start: str) -> None:
    """Take rows out.

    Args:
        mark: The table's name in the page's markers.
        start: How their first cells begin.
    """
    _, rows, _ = _read(mark)
    gone = tuple(f"| {row[0]} |" for row in rows if row[0].startswith(start))
    lines = PAGE.read_text(encoding="utf-8").splitlines(keepends=True)
    _write("".join(line for line in lines if not (gone and line.startswith(gone))))


def _read(mark: str) -> tuple[str, list[list[str]], str]:
    start, end = f"<!-- measured: {mark} -->\n", f"<!-- end: {mark} -->"
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(start)
    table, _, after = rest.partition(end)
    lines = [line for line in table.splitlines() if line.startswith("|")][2:]
    return before + start, [line.strip("| ").split(" | ") for line in lines], end + after


def _write(text: str) -> None:
    PAGE.write_text(text, encoding="utf-8")
