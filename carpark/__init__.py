"""A car park simulator as a Dramatiq actor system with a plugin architecture.

Start with ``make run``. What others may rely on is what this module names, and `carpark.testing`; where a name comes
from may change. Each is imported when it is first asked for, so that importing this costs nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from carpark.domain.events import StaySummary as StaySummary
    from carpark.domain.events import VehicleEntered as VehicleEntered
    from carpark.domain.events import VehicleExited as VehicleExited
    from carpark.domain.events import canonical_plate as canonical_plate
    from carpark.errors import CarparkError as CarparkError
    from carpark.errors import InvalidSetting as InvalidSetting
    from carpark.errors import SinkUnavailable as SinkUnavailable
    from carpark.errors import SummaryRefused as SummaryRefused
    from carpark.ops.dashboard import mount_dashboard as mount_dashboard
    from carpark.plugins import Finding as Finding
    from carpark.plugins import PlateGenerator as PlateGenerator
    from carpark.plugins import PlatesType as PlatesType
    from carpark.plugins import PluginContext as PluginContext
    from carpark.plugins import ReadBack as ReadBack
    from carpark.plugins import Sink as Sink
    from carpark.plugins import SinkType as SinkType
    from carpark.plugins import hookimpl as hookimpl
    from carpark.settings import Settings as Settings
    from carpark.settings import load_settings as load_settings
else:
    # Not seen by type checkers, which would take any name for one of these.
    _HOMES = {
        "carpark.domain.events": ("StaySummary", "VehicleEntered", "VehicleExited", "canonical_plate"),
        "carpark.errors": ("CarparkError", "InvalidSetting", "SinkUnavailable", "SummaryRefused"),
        "carpark.ops.dashboard": ("mount_dashboard",),
        "carpark.plugins": (
            *("Finding", "PlateGenerator", "PlatesType", "PluginContext", "ReadBack", "Sink", "SinkType", "hookimpl"),
        ),
        "carpark.settings": ("Settings", "load_settings"),
    }
    _HOME = {name: home for home, names in _HOMES.items() for name in names}

    __all__ = sorted(["__version__", *_HOME])

    def __getattr__(name):
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=sys.modules[__name__])
        globals()[name] = found = getattr(import_module(_HOME[name]), name)
        return found

    def __dir__():
        return __all__
