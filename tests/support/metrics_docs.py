"""Reads the tables of docs/reference/metrics.md."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.support.processes import ROOT

PAGE = (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(\w+)` \| (counter|gauge|histogram) \|([^|]*)\| (\w+) \| [^|]+ \|$", re.MULTILINE)


@dataclass(frozen=True)
class Row:
    """What the page says of a metric."""

    kind: str
    labels: frozenset[str]
    unit: str


def documented() -> dict[str, Row]:
    """Read the tables.

    Returns:
        A metric's name to its row.
    """
    return {
        name: Row(kind, frozenset(re.findall(r"`(\w+)`", labels)), unit)
        for name, kind, labels, unit in ROW.findall(PAGE)
    }
