"""Histograms of prometheus_client, filled with many values at once."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any


def observe(child: Any, values: Sequence[float], weight: int = 1) -> None:
    """Put many values into a histogram at the price of the buckets that they fall into, not of each value."""
    if values:
        bounds = child._upper_bounds
        child._sum.inc(sum(values) * weight)
        places: dict[int, int] = {}
        for value in values:
            place = bisect_left(bounds, value)
            places[place] = places.get(place, 0) + weight
        for place, count in places.items():
            child._buckets[place].inc(count)
