"""What a benchmark found: the machine, the tables for people, the ratios that are compared."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import publishing
from benchmarks.contenders import ALONE, BARE, CELERY_AS_IT_COMES, OURS, PLAIN
from benchmarks.stage import Stage

Results = dict[str, Any]

WORSE = 0.8
"""A ratio below this part of the committed one is worse; what is above differs from one quick run to the next."""


def machine(stage: Stage) -> dict[str, Any]:
    """Describe where the figures come from.

    Args:
        stage: The servers.

    Returns:
        Processor, cores, memory, load, and the versions of what matters.
    """
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("model name\t: ")[2].partition("\n")[0]
    memory = Path("/proc/meminfo").read_text(encoding="utf-8").partition("MemTotal:")[2].split()[0]
    return {
        "processor": cpu or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "gigabytes": round(int(memory) / 1024**2, 1),
        "load before": round(os.getloadavg()[0], 1),
        "system": platform.platform(terse=True),
        "Python": platform.python_version(),
        **stage.versions(),
        **{name: version(name) for name in ("dramatiq", "pika", "redis", "pydantic")},
    }


def ratios(results: Results) -> dict[str, float]:
    """Compare with what was measured in the same run: only that says anything on another machine.

    Args:
        results: What the parts measured.

    Returns:
        Name to ratio; more is better.
    """
    found: dict[str, float] = {}
    if rows := results.get("throughput"):
        rates = {row["name"]: row["rates"] for row in rows}
        for other in (BARE, PLAIN, CELERY_AS_IT_COMES, ALONE):
            # Round by round, because the machine may have been busy with something else in one of them.
            found[f"events: carpark / {other}"] = median(
                ours / theirs for ours, theirs in zip(rates[OURS], rates[other], strict=True)
            )
    if rates := results.get("publishing"):
        pairs = zip(rates[publishing.OURS], rates[publishing.BARE], strict=True)
        found["publishing: carpark confirmed / bare pika unconfirmed"] = median(ours / bare for ours, bare in pairs)
    if costs := results.get("records"):
        turns = zip(costs[0]["micros"], costs[-1]["micros"], strict=True)
        found["cost of an event: few inside / most inside"] = median(few / most for few, most in turns)
    return found


def compare(found: dict[str, float], committed: dict[str, float]) -> list[str]:
    """Say which ratios got worse.

    Args:
        found: Those of a run.
        committed: Those that are expected.

    Returns:
        A line for each that did.
    """
    return [
        f"{name}: {found[name]:.2f}, was {value:.2f}"
        for name, value in committed.items()
        if name in found and found[name] < value * WORSE
    ]


def show(results: Results, console: Console) -> None:
    """Print the tables.

    Args:
        results: What the parts measured.
        console: Where to.
    """
    console.print("  ".join(f"{name} {value}" for name, value in results["machine"].items()), style="dim")
    for name, table in _TABLES.items():
        if results.get(name):
            _print(table(results[name]), console)
    if results["ratios"]:
        cells = [[name, f"{value:.2f}"] for name, value in results["ratios"].items()]
        _print(_table("Ratios of this run", ["", ""], cells), console)


def _print(table: Table, console: Console) -> None:
    title, table.title = table.title, None  # as wide as it is, not as the table
    console.print(f"\n[bold]{title}[/bold]", highlight=False)
    console.print(table, highlight=False)


def _throughput(rows: list[dict[str, Any]]) -> Table:
    names = list(rows[0]["micros"])
    cells = [
        [row["name"], f"{median(row['rates']):,.0f}", *(f"{row['micros'][n]:.0f}" for n in names), row["audit"]]
        for row in rows
    ]
    title = "From queues to CSV rows; processor time in µs per event"
    return _table(title, ["", "events/s", *names, "audit"], cells)


def _publishing(rates: dict[str, list[float]]) -> Table:
    return _table("Publishing", ["", "events/s"], [[name, f"{median(each):,.0f}"] for name, each in rates.items()])


def _latency(rows: list[dict[str, Any]]) -> Table:
    names = [name for name in rows[0] if name.startswith("p")]
    cells = [
        [f"{row['rate']:g}", f"{row['batch']}", f"{row['rows']:,}", *(f"{row[name]:.1f}" for name in names)]
        for row in rows
    ]
    return _table("From due time to CSV row, in ms", ["events/s", "batch", "rows", *names], cells)


def _records(rows: list[dict[str, Any]]) -> Table:
    cells = [[f"{row['inside']:,}", f"{median(row['redis']):.0f}", f"{median(row['micros']):.0f}"] for row in rows]
    return _table("Processor time per event, in µs", ["vehicles inside", "Redis", "all"], cells)


def _metrics(rows: list[dict[str, Any]]) -> Table:
    cells = [
        [
            f"batches of {row['batch']} at most" if row["batch"] > 1 else "one by one",
            *(f"{row[name]:.1f}" for name in ("counting", "everything")),
            f"{row['share']:.1%}",
            *(f"{row[name]:.0f}" for name in ("busy", "idle")),
        ]
        for row in rows
    ]
    title = "Metrics: processor time of the workers in µs per event; a scrape in ms"
    return _table(title, ["", "counting", "of", "share", "scrape under load", "idle"], cells)


def _memory(found: dict[str, Any]) -> Table:
    cells = []
    if writer := found.get("writer"):
        cells.append([f"writer, {writer['ids']:,} ids", f"{writer['most']:.0f} MB at most"])
    if backend := found.get("backend"):
        said = f"{backend['megabytes'][-1]:.0f} MB, {backend['growth']:+.1%} in the second half"
        cells.append([f"backend, {backend['minutes']:g} min at {backend['rate']:g}/s", said])
    return _table("Memory", ["", ""], cells)


_TABLES = {
    "throughput": _throughput,
    "publishing": _publishing,
    "latency": _latency,
    "records": _records,
    "metrics": _metrics,
    "memory": _memory,
}


def _table(title: str, names: list[str], cells: list[list[str]]) -> Table:
    table = Table(title=title, box=None, pad_edge=False, header_style="dim", show_header=any(names))
    for place, name in enumerate(names):
        table.add_column(name, justify="left" if place == 0 or name == "audit" else "right")
    for row in cells:
        table.add_row(*row)
    return table
