"""The car park itself in numbers: whether the business is well, at one look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from carpark.dashboard.base import Interface, Queue
from carpark.errors import BrokerUnavailable
from carpark.records import Records
from carpark.report import Report


@dataclass(frozen=True)
class SinkCounts:
    """What became of the summaries at one sink.

    Args:
        name: The sink's name.
        delivered: Summaries that it has.
        open: Summaries that it has not got: on their way, waiting for a retry, or given up.
        retried: Summaries that it did not take at the first try.
        failed: Summaries that were given up, and perhaps delivered later from the dead letters.
    """

    name: str
    delivered: int
    open: int
    retried: int
    failed: int


@dataclass(frozen=True)
class CarPark:
    """How the car park is.

    Args:
        report: What happened to all events so far.
        sinks: What happened to the summaries.
        problems: What is not well, a sentence each; none is well.
    """

    report: Report
    sinks: Sequence[SinkCounts]
    problems: Sequence[str]


def look(records: Records, sinks: Sequence[str], broker: Interface) -> CarPark:
    """Look at the car park.

    Args:
        records: Where its counts are.
        sinks: The sinks in use.
        broker: Its queues and workers.

    Returns:
        How it is; a broker that cannot be asked is one of its problems.

    Raises:
        RecordsUnavailable: Redis is not there.
    """
    counts = records.counts()
    queues, problems = _of_broker(broker)
    dead, delayed = (sum(getattr(queue, name) for queue in queues) for name in ("jobs_dead", "jobs_delayed"))
    report = Report.of_counts(counts, inside=records.inside(), undelivered=records.undelivered(), dead=dead)
    each = [_sink(name, counts) for name in _names(sinks, counts)]
    if dead or delayed:  # else what a sink has not got is on its way
        problems += [
            f"Sink {sink.name} has not got {sink.open:,} of {report.summaries:,} summaries."
            for sink in each
            if sink.open and (sink.failed or sink.retried)
        ]
    return CarPark(report, each, problems)


def _of_broker(broker: Interface) -> tuple[list[Queue], list[str]]:
    try:
        queues, workers = broker.queues, broker.workers
    except BrokerUnavailable as error:
        return [], [str(error)]
    problems = [] if workers else ["No worker is connected, so nothing is processed: carpark worker starts one."]
    problems += [
        f"{queue.name} has {queue.jobs_dead:,} dead {'letter' if queue.jobs_dead == 1 else 'letters'}."
        for queue in queues
        if queue.jobs_dead
    ]
    return queues, problems


def _names(sinks: Sequence[str], counts: Mapping[str, int]) -> list[str]:
    counted = sorted(name.split("/")[1] for name in counts if name.count("/") == 2 and name.startswith("summaries/"))
    return list(dict.fromkeys([*sinks, *counted]))


def _sink(name: str, counts: Mapping[str, int]) -> SinkCounts:
    delivered, retried, failed = (
        counts.get(f"summaries/{name}/{outcome}", 0) for outcome in ("delivered", "retried", "failed")
    )
    return SinkCounts(name, delivered, max(0, counts.get("summaries", 0) - delivered), retried, failed)
