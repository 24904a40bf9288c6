"""The metrics of a camera, under its own namespace."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from carpark.domain.events import VehicleExited
from carpark.services import SERVICES
from carpark.telemetry.histograms import observe

WAIT_REASONS = {"entry": ("full", "no_plate"), "exit": ("nobody", "no_plate")}
"""Why a camera may see nobody, as `generators.cameras.Wait` has it."""

PUBLISH_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class CameraMetrics:
    """The numbers of one camera."""

    def __init__(self, kind: str, registry: CollectorRegistry) -> None:
        namespace = SERVICES[kind].prefix
        self._exits = kind == VehicleExited.kind
        labels = ["outcome", "plate"] if self._exits else ["outcome"]
        self._events = Counter(
            f"{namespace}_events_total",
            "Events: published = confirmed by the broker; failed = sent and not confirmed, so sent again",
            labels,
            registry=registry,
        )
        self._seconds = Histogram(
            f"{namespace}_publish_seconds",
            "Time from sending an event to the broker's confirm",
            registry=registry,
            buckets=PUBLISH_BUCKETS,
        )
        self._waiting = Counter(
            f"{namespace}_waiting_seconds_total",
            "Time in which the camera saw nobody, by reason",
            ["reason"],
            registry=registry,
        )
        self._late = Gauge(
            f"{namespace}_late_seconds", "How late the latest event was against its due time", registry=registry
        )
        for outcome in ("published", "failed"):
            for matched in (True, False):
                self._counter(outcome, matched)
        for reason in WAIT_REASONS[kind]:
            self._waiting.labels(reason)

    def published(self, matched: Sequence[bool | None], seconds: float) -> None:
        """Count events that were confirmed together."""
        for found in (True, False):
            if count := matched.count(found):
                self._counter("published", found).inc(count)
        observe(self._seconds, [seconds], len(matched))

    def failed(self, matched: bool | None) -> None:
        """Count an event that was sent and not confirmed."""
        if matched is not None:
            self._counter("failed", matched).inc()

    def waited(self, reason: str, seconds: float) -> None:
        """Count time without an event."""
        self._waiting.labels(reason).inc(seconds)

    def late(self, seconds: float) -> None:
        """Note how late an event is."""
        self._late.set(seconds)

    def _counter(self, outcome: str, matched: bool) -> Counter:
        if self._exits:
            return self._events.labels(outcome, "matched" if matched else "unmatched")
        return self._events.labels(outcome)
