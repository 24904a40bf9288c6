"""The backend without its metrics, for `benchmarks/metrics_cost.py` to compare: `dramatiq benchmarks.uncounted`."""

from __future__ import annotations

from carpark.actors import backend, broker

broker.middleware.remove(backend.prometheus)
