"""Plugins: where summaries go and what number plates look like can be swapped."""

from carpark.plugins.base import PlateGenerator, PlatesType, PluginContext, Sink, SinkType
from carpark.plugins.manager import Plugins
from carpark.plugins.spec import hookimpl

__all__ = ["PlateGenerator", "PlatesType", "PluginContext", "Plugins", "Sink", "SinkType", "hookimpl"]
