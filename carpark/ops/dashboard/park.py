"""The car park itself in numbers: whether the business is well, at one look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from carpark.domain.report import Report
from carpark.errors import BrokerUnavailable, RecordsUnavailable
from carpark.ops.dashboard.base import Interface, Queue
from carpark.ops.health import sink_problems
from carpark.records import Backlog, Records
from carpark.records.connection import remedy


@dataclass(frozen=True)
class CarPark:
    report: Report
    sinks: Sequence[tuple[int, Backlog]]
    problems: Sequence[str]


def look(records: Records, broker: Interface) -> CarPark:
    """Look at the car park."""
    try:
        there = records.snapshot()
    except RecordsUnavailable as error:
        raise RecordsUnavailable(f"{str(error).rstrip('.')}; {remedy(error)}") from error
    queues, problems = _of_broker(broker)
    dead = sum(queue.dead for queue in queues)
    report = Report.of_counts(there.counts, inside=there.inside, undelivered=there.undelivered, dead=dead)
    for backlog in there.backlogs:
        problems += [f"{found[0].upper()}{found[1:]}: {advice}." for found, advice in sink_problems(backlog)]
    delivered = [there.counts.get(f"summaries/{backlog.sink}/delivered", 0) for backlog in there.backlogs]
    return CarPark(report, list(zip(delivered, there.backlogs, strict=True)), problems)


def _of_broker(broker: Interface) -> tuple[list[Queue], list[str]]:
    try:
        queues, workers = broker.queues, broker.workers
    except BrokerUnavailable as error:
        return [], [str(error)]
    problems = [] if workers else ["No worker is connected, so nothing is processed: carpark worker starts one."]
    for queue in queues:
        if queue.dead:
            problems.append(f"{queue.name} has {queue.dead:,} dead {'letter' if queue.dead == 1 else 'letters'}.")
    return queues, problems
