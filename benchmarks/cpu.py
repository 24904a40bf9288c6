"""Processor time of process groups: it says what work costs even while other programs keep the machine busy."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def processor_seconds(groups: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Add up what process groups have used so far.

    Args:
        groups: Name to the ids of process groups.

    Returns:
        Name to the seconds of all processes that are in them now, and of the children that these have waited for.
    """
    spent = dict.fromkeys(groups, 0.0)
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        for name, ids in groups.items():
            if int(fields[2]) in ids:
                spent[name] += sum(int(ticks) for ticks in fields[11:15]) / _TICK
    return spent
