"""What is done with events, without a framework around it; the contenders do exactly this."""

from __future__ import annotations

from collections.abc import Sequence

from carpark.events import Event
from carpark.plugins import PluginContext, Plugins
from carpark.records import Records, Settled, connect
from carpark.settings import load_settings

SINK = "http-csv"


class Work:
    """Records and sink as the environment names them."""

    def __init__(self) -> None:
        settings = load_settings()
        self._sink = Plugins(()).make_sinks(PluginContext(settings))[SINK]
        self._records = Records(connect(settings.redis_url), settings.retention, (SINK,))

    def do(self, events: Sequence[Event]) -> None:
        """Record events in one step, deliver their summaries in one request, note that they are delivered.

        Args:
            events: One or more.
        """
        done = [effect for effect in self._records.record(events) if effect.summary is not None]
        if done:
            self._sink.deliver([effect.summary for effect in done if effect.summary is not None])
            self._records.settle(SINK, [effect.key for effect in done], Settled.DELIVERED)
