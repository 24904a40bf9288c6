"""The hooks. A plugin implements those that it wants with `carpark.hookimpl`."""

from __future__ import annotations

from collections.abc import Sequence

import pluggy

from carpark.plugins.base import PlatesType, SinkType

PROJECT = "carpark"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def carpark_register_sinks() -> Sequence[SinkType]:
    """Offer summary sinks.

    Called once, when a process loads its plugins: in every worker process, in the embedded run, and by the commands
    that list or check plugins. Nothing is connected or opened here: that is for `SinkType.make`, which is called
    only for the sinks that ``CARPARK_SINKS`` names.

    Returns:
        The sinks on offer. Two of one name, from whichever plugins, end the start with an error that names both.

    Raises:
        Exception: Whatever it raises ends the start with status 2 and a line that names the plugin.
    """
    return ()


@hookspec
def carpark_register_plates() -> Sequence[PlatesType]:
    """Offer plate generators.

    Called once, when a process loads its plugins: in both generators, in the embedded run, and by the commands that
    list or check plugins. The generator that ``CARPARK_PLATES`` names is then made with `PlatesType.make`, once for
    the entries and once for the plates that the entry camera missed.

    Returns:
        The plate generators on offer. Two of one name, from whichever plugins, end the start with an error that
        names both.

    Raises:
        Exception: Whatever it raises ends the start with status 2 and a line that names the plugin.
    """
    return ()
