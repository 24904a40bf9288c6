"""The writer's numbers for Prometheus, in a registry that is passed in."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics

# From a duplicate answered out of the index to a disk that stalls.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

OUTCOMES = ("written", "duplicate", "rejected")


class WriterMetrics:
    """What ``GET /metrics`` shows under ``web_backend``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # a series more for each one, which nobody asks for
        self.registry = registry
        self._summaries = Counter(
            "web_backend_summaries_total",
            "Summaries that were posted: written, duplicate (known already), or rejected with their list",
            ["outcome"],
            registry=registry,
        )
        self._seconds = Histogram(
            "web_backend_request_seconds",
            "Seconds from the arrival of a whole request to its answer",
            ["endpoint", "status"],
            buckets=_BUCKETS,
            registry=registry,
        )
        for outcome in OUTCOMES:
            self._summaries.labels(outcome)

    def summaries(self, outcome: str, count: int) -> None:
        """Count posted summaries."""
        self._summaries.labels(outcome).inc(count)

    def request(self, endpoint: str, status: int, seconds: float) -> None:
        """Time an answered request."""
        self._seconds.labels(endpoint, str(status)).observe(seconds)
