"""The backend's numbers, and the page that shows them.

Nothing here imports prometheus_client before it is used: in a worker process of Dramatiq it must be known by then
where the numbers of all of them come together.
"""

from __future__ import annotations

from carpark.metrics.folder import join_master
from carpark.metrics.meter import Meter, observe
from carpark.metrics.middleware import Prometheus
from carpark.metrics.page import RecordsNow

__all__ = ["Meter", "Prometheus", "RecordsNow", "join_master", "observe"]
