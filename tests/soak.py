"""What takes longer than `make test` may, one part after another; ``make soak ROUNDS=20 SEED=7``.

A part that fails keeps none of the others from running. Each can be run alone, by the command that is printed.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from functools import partial

import click

from carpark.settings.options import CONTEXT, examples
from carpark.web.signals import on_signal
from tests.support.processes import ROOT

LIMIT = 45 * 60.0
"""Seconds that all of it may take."""


def parts(rounds: int, seed: str | None) -> dict[str, list[str]]:
    """Give each part's name and what Python is to run for it.

    Args:
        rounds: Random rounds of faults.
        seed: Draws them; by chance if it is not given.
    """
    drawn = ["--rounds", str(rounds), *(["--seed", seed] if seed else [])]
    return {
        "tests marked soak": ["-m", "pytest", "-m", "soak", "--numprocesses", "auto"],
        "faults": ["-m", "tests.faults", *drawn],
        "order": ["-m", "tests.order", "--seeds", "1"],
        "integration tests on RabbitMQ 4": ["-m", "tests.support.rabbitmq4", "tests/integration", "-n", "auto"],
    }


@click.command(
    context_settings=CONTEXT,
    epilog=examples(
        "python -m tests.soak                        # all of it",
        "python -m tests.soak --rounds 50 --seed 7   # more random rounds, the same ones again",
        "python -m tests.soak --only order           # one part",
    ),
)
@click.option("--rounds", default=20, show_default=True, help="Random rounds of faults")
@click.option("--seed", help="Of the random rounds; printed, and chosen by chance if it is not given")
@click.option("--only", metavar="TEXT", help="Only parts whose name has this in it")
def main(rounds: int, seed: str | None, only: str | None) -> None:
    """Run what takes minutes, on a real RabbitMQ and Redis of its own, in 45 minutes at most.

    Exit status: 0 all is well, 1 a part failed or did not end in time, 2 the command was wrong.
    """
    every = parts(rounds, seed)
    chosen = {name: arguments for name, arguments in every.items() if only is None or only in name}
    if not chosen:
        raise click.UsageError(f"no part has {only!r} in its name; there are: {', '.join(every)}")
    started, failed = time.monotonic(), []
    for number, (name, arguments) in enumerate(chosen.items(), 1):
        click.secho(f"soak: {number} of {len(chosen)}, {name}: python {shlex.join(arguments)}", bold=True)
        began = time.monotonic()
        with on_signal(partial(sys.exit, 1)):  # SIGTERM, too, takes the part along
            how = _run(arguments, started + LIMIT - began)
        failed += [name] if how else []
        click.secho(f"soak: {name}: {how or 'well'} after {(time.monotonic() - began) / 60:.1f} minutes", bold=True)
    if failed:
        click.secho(f"soak: failed: {', '.join(failed)}", fg="red", bold=True, err=True)
        sys.exit(1)


def _run(arguments: list[str], seconds: float) -> str:
    """Say what went wrong, or nothing."""
    if seconds <= 0:
        return "not begun in time,"
    try:
        status = subprocess.run([sys.executable, *arguments], cwd=ROOT, timeout=seconds, check=False).returncode
    except subprocess.TimeoutExpired:
        return f"stopped, because {LIMIT / 60:g} minutes were over,"
    return f"failed with status {status}" if status else ""


if __name__ == "__main__":
    main()
