"""What the queues of an embedded run have, as the queue configurator shows it elsewhere."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from carpark.broker import StubBroker
from carpark.rabbitmq.metrics import QueueMetrics


class QueuesNow:
    """Counts what is on the queues when the page is asked for; it is registered before the gauges that it sets."""

    def __init__(self, registry: CollectorRegistry, broker: StubBroker) -> None:
        registry.register(self)
        self._broker, self._metrics = broker, QueueMetrics(registry, broker.names)
        for queue in broker.names:
            self._metrics.declaration(queue, "declared")

    def collect(self) -> Iterable[Metric]:
        """Set the gauges."""
        for queue in self._broker.names:
            self._metrics.counts(queue, {**self._broker.counts(queue)}, consumers=1)
        return ()
