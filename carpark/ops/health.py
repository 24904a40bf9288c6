"""What is not well with a sink, in words for people."""

from __future__ import annotations

from carpark.domain.routing import WORK
from carpark.records import Backlog


def span(seconds: float) -> str:
    """Say a time for people."""
    number, unit = seconds, "s"
    for following, size in (("min", 60), ("h", 60), ("days", 24)):
        if number < size:
            break
        number, unit = number / size, following
    return f"{int(number):,} {'day' if unit == 'days' and int(number) == 1 else unit}"


def summaries(count: int) -> str:
    """Say how many summaries."""
    return f"{count:,} {'summary' if count == 1 else 'summaries'}"


def sink_problems(backlog: Backlog) -> list[tuple[str, str]]:
    """Say what is not well with a sink."""
    sink, found = backlog.sink, []
    waiting = f"{summaries(backlog.waiting)} not yet delivered to sink {sink}, the oldest for {span(backlog.age)}"
    again = f"next attempt in {span(backlog.next_attempt)}" if backlog.next_attempt >= 1 else "next attempt now"
    if backlog.is_stranded:
        advice = (
            f"start one with {sink} in CARPARK_SINKS, or make dead letters of them with `carpark dlq give-up {sink}`"
        )
        found.append((f"{waiting}, and no worker asks for it: none has it, or its call hangs", advice))
    elif backlog.failing is not None:
        said = f"sink {sink} has failed for {span(backlog.failing)} ({backlog.error}); {waiting}, {again}"
        found.append((said, "repair what it writes to; nothing is lost meanwhile"))
    elif backlog.alone:
        said = f"sink {sink} takes others and not these: {summaries(backlog.alone)}, each tried again alone, {again}"
        found.append((said, f"its log says why{f', last: {backlog.error}' if backlog.error else ''}"))
    if backlog.dead:
        advice = f"see why with `carpark dlq list --queue {WORK} --match {sink}`, then requeue them"
        found.append((f"{summaries(backlog.dead)} given up for sink {sink}", advice))
    return found
