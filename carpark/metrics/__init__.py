"""The backend's numbers. Nothing here imports prometheus_client before it is used: see `carpark.metrics.meter`."""

from __future__ import annotations

from carpark.metrics.meter import Meter

__all__ = ["Meter"]
