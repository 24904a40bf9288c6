"""What the queue configurator counts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge

from carpark.rabbitmq.topology import EXCHANGE


class QueueMetrics:
    """What ``/metrics`` shows under ``queue_configurator``."""

    def __init__(self, registry: CollectorRegistry, queues: Iterable[str]) -> None:
        self._declarations = Counter(
            "queue_configurator_declarations_total",
            "Times that a queue with its companions, or the exchange, was declared: at the start and when it was gone",
            ["queue", "outcome"],
            registry=registry,
        )
        self._messages = Gauge(
            "queue_configurator_queue_messages",
            "Messages of a queue: ready, unacked (in a consumer's hand), delayed (in its .DQ), dead",
            ["queue", "state"],
            registry=registry,
        )
        self._consumers = Gauge(
            "queue_configurator_queue_consumers", "Consumers of a queue", ["queue"], registry=registry
        )
        for queue in (*queues, EXCHANGE):
            for outcome in ("declared", "failed"):
                self._declarations.labels(queue, outcome)

    def declaration(self, queue: str, outcome: str) -> None:
        """Count a declaration."""
        self._declarations.labels(queue, outcome).inc()

    def counts(self, queue: str, messages: dict[str, int | None], consumers: int) -> None:
        """Show how a queue is."""
        self._consumers.labels(queue).set(consumers)
        for state, count in messages.items():
            if count is not None:
                self._messages.labels(queue, state).set(count)
            else:
                with contextlib.suppress(KeyError):
                    self._messages.remove(queue, state)

    def forget(self) -> None:
        """Show no counts: nobody knows them while RabbitMQ is away."""
        self._messages.clear()
        self._consumers.clear()
