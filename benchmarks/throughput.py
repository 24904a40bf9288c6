"""From full queues to rows on disk, by everybody who works on the events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.contenders import CONTENDERS, OURS, Contender
from benchmarks.load import Load, fill, judge, watch
from benchmarks.records_cost import CarPark
from benchmarks.stage import Stage
from carpark.records.connection import connect


def measure(stage: Stage, size: int, slow_size: int, rounds: int) -> list[dict[str, Any]]:
    """Let all of them work on the same events, in turns.

    Args:
        stage: The servers.
        size: How many events.
        slow_size: How many for those that are slow.
        rounds: How often.

    Returns:
        A row for each, with the rate of each round and the processor time of the last.
    """
    rows: list[dict[str, Any]] = [{"name": contender.name, "rates": []} for contender in CONTENDERS]
    for _ in range(rounds):
        for row, contender in zip(rows, CONTENDERS, strict=True):
            rate, micros, verdict = _run(stage, contender, slow_size if contender.slow else size)
            row["rates"].append(rate)
            row |= {"micros": micros, "audit": verdict}
    return rows


def measure_inside(stage: Stage, sizes: Sequence[int], size: int, rounds: int) -> list[dict[str, Any]]:
    """Let carpark work while many vehicles are inside that do nothing.

    Args:
        stage: The servers.
        sizes: How many vehicles; each number has its turn in each round.
        size: How many events.
        rounds: How often.

    Returns:
        A row for each number, with microseconds of processor time per event in each round: of Redis, and of all that
        take part.
    """
    rows: list[dict[str, Any]] = [{"inside": inside, "redis": [], "micros": []} for inside in sizes]
    for _ in range(rounds):
        for row in rows:
            micros = _run_inside(stage, row["inside"], size)
            row["redis"].append(micros["Redis"])
            row["micros"].append(sum(micros.values()))
    return rows


def _run_inside(stage: Stage, inside: int, size: int) -> dict[str, float]:
    load = Load(size)
    with stage.site() as site, connect(site.redis_url) as client:
        CarPark(client).fill(inside)
        [ours] = [contender for contender in CONTENDERS if contender.name == OURS]
        fill(site, [ours.letter(event) for event in load.events], ours.declare)
        return watch(site, load, ours.start(site), inside).micros


def _run(stage: Stage, contender: Contender, size: int) -> tuple[float, dict[str, float], str]:
    load = Load(size)
    with stage.site(contender.batch) as site:
        fill(site, [contender.letter(event) for event in load.events], contender.declare)
        workers = contender.start(site)
        measured = watch(site, load, workers)
        verdict = judge(site, load)
        for worker in workers:
            worker.terminate()
    return measured.rate, measured.micros, verdict
