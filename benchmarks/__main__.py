"""`python -m benchmarks`: measure, print tables, keep the figures as JSON, compare ratios with the committed ones."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import latency, memory, metrics_cost, publishing, throughput
from benchmarks.report import Results, compare, machine, ratios, show
from benchmarks.stage import Stage

HERE = Path(__file__).parent
COMMITTED = HERE / "ratios.json"
QUICK_PARTS = ("throughput", "publishing", "latency", "records")
PARTS = (*QUICK_PARTS, "metrics")
MORE = ("memory",)

EXAMPLES = """examples:
  make bench                               all of it, three rounds
  make bench QUICK=1                       in two to three minutes, one round
  make bench ARGS="publishing latency"     some of it
  make bench ARGS="memory"                 the writer with a million ids, the backend for ten minutes
  make bench-check                         a quick run; status 1 when a ratio got worse
  make bench-check ARGS="--read FILE"      the same with the figures of an earlier run
"""


def main() -> None:
    """Measure what was asked for."""
    options = _options()
    console = Console(width=None if sys.stdout.isatty() else 140)
    if options.read:
        results: Results = json.loads(options.read.read_text(encoding="utf-8"))
    else:
        results = _measure(options.parts or list(QUICK_PARTS if options.quick else PARTS), options.quick, console)
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    show(results, console)
    if not options.read:
        console.print(f"\nbench: {results['seconds']:.0f} s; figures in {options.json}")
    if options.commit:
        kept = {name: round(value, 2) for name, value in results["ratios"].items()}
        COMMITTED.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
        console.print(f"bench: {COMMITTED.name} has the ratios of this run")
    if options.check:
        _check(results, console)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="What carpark costs, beside what others cost on the same machine in the same run.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "parts", nargs="*", choices=[*PARTS, *MORE, []], help="what to measure; all but memory, and metrics if --quick"
    )
    parser.add_argument("--quick", action="store_true", help="fewer events, one round")
    parser.add_argument("--json", type=Path, default=Path("data/bench.json"), help="file for the figures")
    parser.add_argument("--read", type=Path, metavar="FILE", help="do not measure; take the figures of this file")
    parser.add_argument("--check", action="store_true", help="compare the ratios with the committed ones")
    parser.add_argument("--commit", action="store_true", help="make the ratios of this run the committed ones")
    return parser.parse_args()


def _measure(parts: list[str], quick: bool, console: Console) -> Results:
    began = time.monotonic()
    with Stage() as stage:
        results: Results = {"quick": quick, "machine": machine(stage)}
        for part in parts:
            started = time.monotonic()
            console.print(f"bench: {part} ...", style="dim", highlight=False, end=" ")
            results[part] = _MEASURES[part](stage, quick)
            console.print(f"{time.monotonic() - started:.0f} s", style="dim", highlight=False)
    return {**results, "ratios": ratios(results), "seconds": time.monotonic() - began}


def _throughput(stage: Stage, quick: bool) -> list[dict[str, Any]]:
    return throughput.measure(stage, *((10_000, 1_500, 1) if quick else (40_000, 5_000, 3)))


def _publishing(stage: Stage, quick: bool) -> dict[str, Any]:
    return publishing.measure(stage, *((10_000, 1) if quick else (30_000, 5)))


def _latency(stage: Stage, quick: bool) -> list[dict[str, Any]]:
    seconds = 5 if quick else 20
    rows = [latency.measure(stage, rate, seconds) for rate in (100, 500, 2000)]
    slowly = 10 if quick else 80  # so few events make no good percentile otherwise
    return rows + [latency.measure(stage, 5, slowly, batch) for batch in (100, 1)]


def _records(stage: Stage, quick: bool) -> list[dict[str, Any]]:
    if quick:
        return throughput.measure_inside(stage, (10_000, 100_000), 10_000, 1)
    return throughput.measure_inside(stage, (10_000, 100_000, 1_000_000), 20_000, 3)


def _metrics(stage: Stage, quick: bool) -> list[dict[str, Any]]:
    return metrics_cost.measure(stage, 10_000 if quick else 40_000)


def _memory(stage: Stage, quick: bool) -> dict[str, Any]:
    writer = memory.writer(stage, 100_000 if quick else 1_000_000)
    return {"writer": writer, "backend": memory.backend(stage, 200, 0.5 if quick else 10)}


_MEASURES = {
    "throughput": _throughput,
    "publishing": _publishing,
    "latency": _latency,
    "records": _records,
    "metrics": _metrics,
    "memory": _memory,
}


def _check(results: Results, console: Console) -> None:
    committed = json.loads(COMMITTED.read_text(encoding="utf-8"))
    if worse := compare(results["ratios"], committed):
        for line in worse:
            console.print(f"bench-check: worse: {line}", style="red", highlight=False)
        sys.exit(1)
    console.print("bench-check: no ratio got worse", style="green")


if __name__ == "__main__":
    main()
