"""Plugins: where summaries go and what number plates look like can be swapped."""

from carpark.plugins.base import PlateGenerator, PlatesType, PluginContext, ReadBack, Sink, SinkType
from carpark.plugins.findings import Finding
from carpark.plugins.manager import Plugins
from carpark.plugins.spec import hookimpl

__all__ = [
    "Finding",
    "PlateGenerator",
    "PlatesType",
    "PluginContext",
    "Plugins",
    "ReadBack",
    "Sink",
    "SinkType",
    "hookimpl",
]
