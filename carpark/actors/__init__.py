"""The actors, for ``dramatiq carpark.actors``.

Importing this module is what starts a backend: it reads the settings from the environment, sets Dramatiq's global
broker and declares the actors. It connects to nothing; the worker does. Wrong settings end the process with a line
each and status 2.
"""

from __future__ import annotations

import sys

import dramatiq

from carpark.backend.processing import Backend
from carpark.backend.servers import is_checked
from carpark.domain.events import VehicleEntered, VehicleExited
from carpark.domain.routing import DELIVER
from carpark.errors import ConfigurationError
from carpark.plugins.loading import load
from carpark.plugins.options import warn_of_unknown_variables
from carpark.telemetry.folder import join_master

__all__ = ["backend", "broker", "deliver_summaries", "vehicle_entry", "vehicle_exit"]


def _start() -> Backend:
    try:
        is_first = join_master()  # before a plugin can import prometheus_client
        settings, plugins = load(kinds=("sinks",))
        if is_first and not is_checked():
            warn_of_unknown_variables(plugins)
        return Backend(settings, plugins)
    except ConfigurationError as error:
        for each in error.findings:
            print(f"carpark: {each}", file=sys.stderr)  # noqa: T201 - logging is not set up yet
        raise SystemExit(2) from None


backend = _start()
broker = backend.broker
dramatiq.set_broker(broker)

vehicle_entry = backend.actors[VehicleEntered.queue]
vehicle_exit = backend.actors[VehicleExited.queue]
deliver_summaries = backend.actors[DELIVER]
