"""The whole matrix: order, and nothing lost, under load that comes back; ``python -m tests.order``."""

from __future__ import annotations

import re
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from carpark.settings.options import CONTEXT, examples
from tests.order.matrix import Outcome, Run, matrix, run
from tests.support.guard import GUARD
from tests.support.servers import RabbitmqServer

CONSOLE = Console(highlight=False, width=None if sys.stdout.isatty() else 160)


@click.command(
    context_settings=CONTEXT,
    epilog=examples(
        "python -m tests.order                                           # all of it: over an hour",
        "python -m tests.order --list                                    # what there is",
        "python -m tests.order --only 'no fault' --only 2x2 --seeds 5    # a quick look",
        "python -m tests.order --only SIGTERM --only quorum --seeds 1",
        "python -m tests.order --only 'behind' --only 'seed 3'           # one run again",
    ),
)
@click.option("--only", metavar="TEXT", multiple=True, help="Only runs with this in their name; several: all of them")
@click.option("--seeds", metavar="N", type=click.IntRange(1), help="So many of each; default 20, with a fault 3")
@click.option("--outage", metavar="SECONDS", default=90.0, show_default=True, help="How long Redis refuses writes")
@click.option("--list", "listed", is_flag=True, help="Print the names of the runs, and do nothing")
def main(only: tuple[str, ...], seeds: int | None, outage: float, listed: bool) -> None:
    """Let workers find a backlog of vehicles that come back, hit the one at work, and judge what became of it.

    A run is wrong if a stay is lost, there twice or unexpected, or if an event took effect after one that stood behind
    it in its queue. Servers are private ones. Exit status: 0 all is well, 1 a run was wrong, 2 the command was.
    """
    chosen = [each for each in matrix(seeds, outage) if all(_has(str(each), text) for text in only)]
    if not chosen:
        raise click.UsageError(f"no run has all of {', '.join(only)} in its name; --list shows them")
    if listed:
        click.echo("\n".join(map(str, chosen)))
        return
    outcomes = _run_all(chosen)
    CONSOLE.print(_table(outcomes))
    wrong = sum(not outcome.well for outcome in outcomes.values())
    CONSOLE.print(f"{len(outcomes) - wrong} well, {wrong} wrong", style="bold red" if wrong else "bold green")
    sys.exit(1 if wrong else 0)


def _has(name: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(text)}(?!\w)", name) is not None


def _run_all(chosen: Sequence[Run]) -> dict[Run, Outcome]:
    top = Path(tempfile.mkdtemp(prefix="carpark-order-", dir="/tmp"))
    outcomes: dict[Run, Outcome] = {}
    server = RabbitmqServer()
    try:
        for number, each in enumerate(chosen, 1):
            folder = top / str(number)
            try:
                outcome = run(each, server, folder)
            except Exception as error:  # the others go on, and the table is to come
                CONSOLE.print_exception()
                outcome = Outcome(problems=[f"{type(error).__name__}: {error}".partition("\n")[0]])
            outcomes[each] = outcome
            mark = "[green]✓[/]" if outcome.well else "[bold red]✗[/]"
            CONSOLE.print(f"{mark} {outcome.seconds:5.1f} s  {each}: {outcome}", soft_wrap=True)
            if outcome.well:
                shutil.rmtree(folder)
            else:
                CONSOLE.print(f"  logs and files: {folder}", style="yellow", soft_wrap=True)
    finally:
        server.close()
        GUARD.close()
    if not any(top.iterdir()):
        top.rmdir()
    return outcomes


def _table(outcomes: Mapping[Run, Outcome]) -> Table:
    table = Table(box=None, pad_edge=False)
    for head in ("load", "workers", "queues", "fault"):
        table.add_column(head)
    for head in ("runs", "wrong", "lost", "twice", "unexpected", "out of order", "places", "median s"):
        table.add_column(head, justify="right")
    for kind in dict.fromkeys(each.kind for each in outcomes):
        its = [outcome for each, outcome in outcomes.items() if each.kind == kind]
        wrong = sum(not outcome.well for outcome in its)
        numbers = [
            *(sum(getattr(each, name) for each in its) for name in ("lost", "twice", "unexpected", "overtaken")),
            max(each.furthest for each in its),
        ]
        seconds = statistics.median(each.seconds for each in its)
        cells = [*kind, str(len(its)), str(wrong), *(f"{number:,}" for number in numbers), f"{seconds:.1f}"]
        table.add_row(*cells, style="red" if wrong else "")
    return table


if __name__ == "__main__":
    main()
