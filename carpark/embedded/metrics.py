"""The numbers of an embedded run: those of all services on one page."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import Metric

from carpark.backend.page import RecordsNow
from carpark.backend.processing import Backend
from carpark.broker import StubBroker
from carpark.rabbitmq.metrics import QueueMetrics
from carpark.services import SERVICES
from carpark.settings import Settings
from carpark.telemetry.page import MetricsPage


class EmbeddedMetrics:
    """What the services of a run count, under the names that they have as processes of their own.

    Attributes:
        registry: Where all of it comes together.
        writer: The registry of the writer, whose own page shows that alone.
    """

    def __init__(self) -> None:
        self.registry, self.writer = CollectorRegistry(), CollectorRegistry()
        self.registry.register(self.writer)
        ProcessCollector(registry=self.registry)

    def watch(self, backend: Backend, broker: StubBroker) -> None:
        """Begin to count in the backend and on the queues.

        Args:
            backend: The backend, with its actors.
            broker: Its broker.
        """
        backend.prometheus.start(broker, self.registry)
        self.registry.register(RecordsNow(lambda: backend.records))
        queues = _QueuesNow(broker)
        self.registry.register(queues)
        queues.metrics = QueueMetrics(self.registry, broker.names)
        for queue in broker.names:
            queues.metrics.declaration(queue, "declared")

    def show(self, settings: Settings) -> MetricsPage:
        """Open the page.

        Args:
            settings: Of these, ``bind`` and ``metrics_port`` are used.

        Returns:
            The page, to be stopped.

        Raises:
            ConfigurationError: The port or the address cannot be used.
        """
        return MetricsPage(self.registry, settings.bind, SERVICES["run"].port_or(settings.metrics_port)).start()


class _QueuesNow:
    """Counts what is on the queues when the page is asked for; stands before the gauges that it sets."""

    def __init__(self, broker: StubBroker) -> None:
        self._broker = broker
        self.metrics: QueueMetrics | None = None

    def collect(self) -> Iterator[Metric]:
        if self.metrics is not None:
            for queue in self._broker.names:
                self.metrics.counts(queue, {**self._broker.counts(queue)}, consumers=1)
        return iter(())
