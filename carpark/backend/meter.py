"""What the backend counts and times, under ``go_backend``.

A worker process of Dramatiq must not import prometheus_client before it has booted, because only then it is known
where the numbers of all worker processes come together. So a meter is silent until it is started.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from carpark.domain.routing import event_of
from carpark.records import Outcome, Recorded, Settled
from carpark.telemetry.histograms import observe

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""Seconds: from an idle system to one that has minutes to catch up."""

LATE_BUCKETS = (3_600, 21_600, 86_400, 172_800, 604_800)
"""An hour to a week: an event may be late by days, and an alert asks for half of the default retention."""

REJECTED, ABANDONED = "rejected", "abandoned"

OUTCOMES = {
    "entry": (Outcome.RECORDED, Outcome.MATCHED, Outcome.DUPLICATE, REJECTED, ABANDONED),
    "exit": (Outcome.MATCHED, Outcome.UNMATCHED, Outcome.DUPLICATE, REJECTED),
}
"""What can become of an event, per kind; each is shown from the start, or its first increase would go unseen."""


class Meter:
    """The numbers of one process. Methods take what became of many events at once; before `start` they do nothing."""

    def __init__(self, sinks: Sequence[str]) -> None:
        self._sinks = tuple(sinks)
        self._on = False

    def start(self, registry: CollectorRegistry) -> None:
        """Begin to count."""
        from prometheus_client import Counter, Histogram

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"go_backend_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, label: str, *more: float) -> Histogram:
            return Histogram(f"go_backend_{name}", text, [label], buckets=(*BUCKETS, *more), registry=registry)

        text = "Events by what became of them; each once, and abandoned beside it for the entry that one supersedes"
        events = counter("events_total", text, "event", "outcome")
        text = "Time from taking an event up to having recorded it, its summary in the outbox of each sink"
        processing = histogram("event_processing_seconds", text, "event")
        text = "Time from the sending of an event to its effect in the records; bare events do not say when that was"
        latency = histogram("event_latency_seconds", text, "event", *LATE_BUCKETS)
        text = "Summaries by sink and outcome: delivered, retried (waits for a retry), failed (dead-lettered)"
        summaries = counter("summaries_total", text, "sink", "outcome")
        text = "Time of one delivery to a sink, of one summary or of a list, whether the sink took it or not"
        delivery = histogram("summary_delivery_seconds", text, "sink")
        text = "Deliveries to a sink that it did not take, the retries among them"
        failures = counter("delivery_failures_total", text, "sink")
        # Looked up once: finding a child by its labels costs as much as counting.
        self._events = {(kind, out): events.labels(kind, out) for kind in OUTCOMES for out in OUTCOMES[kind]}
        self._processing = {kind: processing.labels(kind) for kind in OUTCOMES}
        self._latency = {kind: latency.labels(kind) for kind in OUTCOMES}
        self._summaries = {(sink, out): summaries.labels(sink, out) for sink in self._sinks for out in Settled}
        self._delivery = {sink: delivery.labels(sink) for sink in self._sinks}
        self._failures = {sink: failures.labels(sink) for sink in self._sinks}
        self._on = True

    def recorded(self, kind: str, effects: Sequence[Recorded], sent: Sequence[float | None]) -> None:
        """Count events that have just been recorded, and how long they took to get there."""
        if not self._on:
            return
        now = time.time()
        tally: dict[str, int] = {}
        for effect in effects:
            if effect.outcome is not None:
                tally[effect.outcome] = tally.get(effect.outcome, 0) + 1
            if effect.abandoned:
                tally[ABANDONED] = tally.get(ABANDONED, 0) + 1
        for outcome, count in tally.items():
            self._events[kind, outcome].inc(count)
        observe(self._latency[kind], [max(0.0, now - at) for at in sent if at is not None])

    def processed(self, kind: str, count: int, seconds: float) -> None:
        """Time events that were worked on together: each of them took as long as all of them."""
        if self._on:
            observe(self._processing[kind], [seconds], count)

    def rejected(self, queue: str, count: int = 1) -> None:
        """Count messages that were not events."""
        if self._on:
            self._events[event_of(queue).kind, REJECTED].inc(count)

    def delivery(self, sink: str, seconds: float, failed: bool) -> None:
        """Time one delivery to a sink, of one summary or of many."""
        if self._on:
            self._delivery[sink].observe(seconds)
            if failed:
                self._failures[sink].inc()

    def settled(self, sink: str, outcome: Settled, count: int) -> None:
        """Count what became of summaries at a sink."""
        if self._on and count:
            self._summaries[sink, outcome].inc(count)
