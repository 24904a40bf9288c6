"""The long form: every fault alone, overload, then random rounds; ``make faults ROUNDS=20 SEED=7``.

Each verdict goes into the table of docs/explanation/faults.md, with its date, as soon as it is known. Rounds that
went well share a row.
"""

from __future__ import annotations

import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
from rich.console import Console

from carpark.ops.audit import Verdict
from tests.faults.conftest import HostedBroker
from tests.faults.faults import FAULTS, LONG_FAULTS
from tests.faults.overload import Load, fast, sink_is_down, workers_are_away
from tests.faults.page import forget, note
from tests.faults.replicas import NODES_DIE, PRIMARY_DIES, cluster_rig, failover_rig, nodes_die_in_turn, primary_dies
from tests.faults.rig import Rig
from tests.faults.rounds import Round, alone
from tests.support.guard import GUARD
from tests.support.servers import RabbitmqServer, RedisServer

TABLE, HEAD = "faults", ("fault", "took", "the audit's verdict")
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
        if not (well and what.startswith("round ")):
            note(TABLE, HEAD, (what, f"{last.seconds:.0f} s", f"{'' if well else '**failed:** '}{verdict}"))
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


def _on(suite: Suite, act: Act) -> Callable[[str], object]:
    return lambda name: suite.run(name, act)


@click.command()
@click.option("--rounds", default=20, show_default=True, help="Random rounds after the single faults")
@click.option("--seed", help="Of the random rounds; printed, and chosen by chance if it is not given")
@click.option("--only", metavar="TEXT", help="Only faults and rounds whose name has this in it")
def main(rounds: int, seed: str | None, only: str | None) -> None:
    """Run every fault, overload, and random rounds, on a real RabbitMQ and Redis of their own."""
    seed = seed or str(random.SystemRandom().randrange(10**6))
    command = f"make faults ROUNDS={rounds} SEED={seed}"
    CONSOLE.print(f"{command}  (logs of what fails are kept)")
    suite = Suite(Path(tempfile.mkdtemp(prefix="carpark-faults-", dir="/tmp")))
    try:
        acts: dict[str, Callable[[str], object]] = {
            **{name: _on(suite, partial(alone, fault)) for name, fault in {**FAULTS, **LONG_FAULTS}.items()},
            NODES_DIE: lambda name: suite.run_apart(name, cluster_rig, nodes_die_in_turn),
            PRIMARY_DIES: lambda name: suite.run_apart(name, suite.failover_rig, primary_dies),
            "workers away for 60 s at 10 times the rate": _on(suite, _fast(workers_are_away)),
            "sink down for 60 s at 10 times the rate": _on(suite, _fast(sink_is_down)),
        }
        chance = random.Random(seed)
        for number in range(1, rounds + 1):
            each = Round.draw(chance)
            acts[f"round {number} of {rounds}, SEED={seed}: {each}"] = _on(suite, each.run)
        chosen = [name for name in acts if only is None or only in re.sub("^(round .*?): .*", r"\1", name)]
        if any(name.startswith("round ") for name in chosen):
            forget(TABLE, "round")
        for name in chosen:
            acts[name](name)
        if drawn := [result for result in suite.results if result.what.startswith("round ")]:
            well = sum(result.well for result in drawn)
            took = f"{sum(result.seconds for result in drawn):.0f} s"
            verdict = f"{well} of {len(drawn)}: 0 lost, 0 twice, 0 unexpected"
            note(TABLE, HEAD, (f"rounds of up to three faults: `{command}`", took, verdict))
    finally:
        suite.close()
        GUARD.close()
    failed = sum(not result.well for result in suite.results)
    CONSOLE.print(
        f"{len(suite.results) - failed} passed, {failed} failed", style="bold red" if failed else "bold green"
    )
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
