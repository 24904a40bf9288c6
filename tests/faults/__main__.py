"""The long form: every fault alone, overload, then random rounds; ``make faults ROUNDS=20 SEED=7``.

The table of faults and verdicts goes into docs/operating.md, with the date and the command.
"""

from __future__ import annotations

import os
import platform
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click
from rich.console import Console

from carpark.audit import Verdict
from carpark.docs import markdown_table
from tests.faults.conftest import HostedBroker
from tests.faults.faults import FAULTS, LONG_FAULTS
from tests.faults.overload import Load, fast, sink_is_down, workers_are_away
from tests.faults.replicas import NODES_DIE, PRIMARY_DIES, cluster_rig, failover_rig, nodes_die_in_turn, primary_dies
from tests.faults.rig import RATE, Rig
from tests.faults.rounds import Round, alone
from tests.guard import GUARD
from tests.processes import ROOT
from tests.servers import RabbitmqServer, RedisServer

PAGE = ROOT / "docs" / "operating.md"
START, END = "<!-- measured: faults -->\n", "<!-- end: faults -->"
CONSOLE = Console(highlight=False, soft_wrap=True)

Act = Callable[[Rig], Verdict | Load]


@dataclass(frozen=True)
class Result:
    """What one fault, or one round, came to.

    Args:
        what: The fault.
        seconds: How long it took, with the load before and after and the verdict.
        events: How many events had been published by then.
        verdict: In words.
        well: Whether all is accounted for.
    """

    what: str
    seconds: float
    events: int
    verdict: str
    well: bool


class Suite:
    """Runs faults one after another on one system; one that is in ruins is replaced.

    Args:
        folder: Where logs and files go.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = RabbitmqServer()
        self._rig: Rig | None = None
        self.results: list[Result] = []

    def run(self, what: str, act: Act) -> None:
        """Let something happen, and note what it came to."""
        if not self._judge(what, act, self._rig or self._start()):
            self._end(keep=True)

    def run_apart(self, what: str, system: Callable[[Path], AbstractContextManager[Rig]], act: Act) -> None:
        """Let something happen to a system of its own, and note what it came to."""
        if self._rig:
            self._end(keep=False)
        with system(self._folder / str(len(self.results))) as rig:
            self._judge(what, act, rig)

    @contextmanager
    def failover_rig(self, folder: Path) -> Iterator[Rig]:
        """Give a system whose Redis has a replica and Sentinels, on this suite's RabbitMQ."""
        broker = HostedBroker(self._server)
        with closing(broker), failover_rig(folder, broker) as rig:
            yield rig

    def _judge(self, what: str, act: Act, rig: Rig) -> bool:
        started, events = time.monotonic(), 0
        try:
            done = act(rig)
        except Exception as error:
            reason = f" ({error.__cause__})" if error.__cause__ else ""
            verdict, well = f"{str(error).partition(chr(10))[0][:200]}{reason[:200]}", False
            CONSOLE.print(str(error), markup=False)
            CONSOLE.print(f"logs and files: {rig.folder}", style="yellow")
        else:
            found = done.verdict if isinstance(done, Load) else done
            assert found is not None
            events, well = found.published, True
            verdict = f"{found.lost} lost, {found.duplicated} twice, {found.unexpected} unexpected"
            if isinstance(done, Load):
                largest = ", ".join(f"{name} {mib:.0f}" for name, mib in sorted(done.mib.items()))
                verdict += f"; most waiting {done.backlog:,}; most MiB: {largest}"
        self.results.append(Result(what, time.monotonic() - started, events, verdict, well))
        last = self.results[-1]
        mark = "[green]✓[/]" if well else "[bold red]✗[/]"
        CONSOLE.print(f"{mark} {last.seconds:5.1f} s  {what}: {verdict}")
        return well

    def close(self) -> None:
        """End everything."""
        if self._rig:
            self._end(keep=False)
        self._server.close()

    def _start(self) -> Rig:
        store = RedisServer(appendonly=True)
        store.start()
        folder = self._folder / str(len(self.results))
        self._rig = Rig(HostedBroker(self._server), store, folder)
        return self._rig.__enter__()

    def _end(self, *, keep: bool) -> None:
        rig, self._rig = self._rig, None
        assert rig is not None
        try:
            rig.close()
        except AssertionError as error:
            CONSOLE.print(str(error), style="yellow", markup=False)
        rig.redis.close()
        rig.rabbitmq.close()  # type: ignore[attr-defined]
        if not keep:
            shutil.rmtree(rig.folder, ignore_errors=True)


def _fast(overload: Callable[[Rig, float], Load]) -> Act:
    def act(rig: Rig) -> Load:
        with fast(rig):
            return overload(rig, 60)

    return act


def page_text(results: list[Result], command: str, seconds: float) -> str:
    """Write what the docs show."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    cores, failed = os.cpu_count(), sum(not result.well for result in results)
    head = (
        f"Last measured {now} with `{command}` in {seconds / 60:.0f} minutes on {cores} cores "
        f"({platform.machine()}, Python {platform.python_version()}), {RATE} entries and {RATE} exits a second "
        f"all the time: {len(results) - failed} of {len(results)} passed.\n\n"
    )
    rows = [
        (r.what, f"{r.seconds:.0f} s", f"{r.events:,}", f"{'' if r.well else '**failed** '}{r.verdict}")
        for r in results
    ]
    return head + markdown_table(("fault", "took", "events so far", "the audit's verdict"), rows)


@click.command()
@click.option("--rounds", default=20, show_default=True, help="Random rounds after the single faults")
@click.option("--seed", help="Of the random rounds; printed, and chosen by chance if it is not given")
@click.option("--only", metavar="TEXT", help="Only faults whose name has this in it; nothing is written into the docs")
def main(rounds: int, seed: str | None, only: str | None) -> None:
    """Run every fault, overload, and random rounds, on a real RabbitMQ and Redis of their own."""
    seed = seed or str(random.SystemRandom().randrange(10**6))
    command = f"make faults ROUNDS={rounds} SEED={seed}"
    CONSOLE.print(f"{command}  (logs of what fails are kept)")
    started = time.monotonic()
    suite = Suite(Path(tempfile.mkdtemp(prefix="carpark-faults-", dir="/tmp")))
    try:
        for name, fault in {**FAULTS, **LONG_FAULTS}.items():
            if only is None or only in name:
                suite.run(name, partial(alone, fault))
        replicas = {NODES_DIE: (cluster_rig, nodes_die_in_turn), PRIMARY_DIES: (suite.failover_rig, primary_dies)}
        for name, (system, act) in replicas.items():
            if only is None or only in name:
                suite.run_apart(name, system, act)
        if only is None:
            suite.run("workers away for 60 s at 10 times the rate", _fast(workers_are_away))
            suite.run("sink down for 60 s at 10 times the rate", _fast(sink_is_down))
            chance = random.Random(seed)
            for number in range(1, rounds + 1):
                drawn = Round.draw(chance)
                suite.run(f"round {number}: {drawn}", drawn.run)
    finally:
        suite.close()
        GUARD.close()
    if only is None:
        text = page_text(suite.results, command, time.monotonic() - started)
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
        PAGE.write_text(f"{before}{START}{text}{END}{rest.partition(END)[2]}", encoding="utf-8")
    failed = sum(not result.well for result in suite.results)
    CONSOLE.print(
        f"{len(suite.results) - failed} passed, {failed} failed", style="bold red" if failed else "bold green"
    )
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
