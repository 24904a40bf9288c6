"""What is done with events, without a framework around it; the contenders do exactly this."""

from __future__ import annotations

from collections.abc import Sequence

from carpark.domain.events import Event
from carpark.plugins import PluginContext, Plugins
from carpark.records import Batch, Settlement, open_records
from carpark.settings import load_settings

SINK, LEASE = "http-csv", 10.0


class Work:
    """Records and sink as the environment names them."""

    def __init__(self) -> None:
        settings = load_settings()
        self._sink = Plugins(()).make_sinks(PluginContext(settings))[SINK]
        self._records = open_records(settings.redis_url, settings.retention, (SINK,))
        self._outbox = self._records.outbox(SINK)

    def do(self, events: Sequence[Event]) -> None:
        """Record events in one step, deliver what is in the outbox in one request, note that it is delivered.

        Args:
            events: One or more.
        """
        if not any(effect.stay for effect in self._records.record(events)):
            return
        most = len(events)  # who is given one event at a time makes one request for each stay
        batch = self._outbox.take(LEASE, most)
        while isinstance(batch, Batch):  # what others record meanwhile, and are told to wait, is in the next one
            self._sink.deliver(batch.summaries)
            batch = self._outbox.settle_and_take(batch, Settlement(delivered=None), LEASE, most)[1]
