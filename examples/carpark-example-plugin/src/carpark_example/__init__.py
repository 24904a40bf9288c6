"""A carpark plugin: the sink ``json-folder`` and the plate generator ``netherlands``."""

from __future__ import annotations

from collections.abc import Sequence

from carpark import PlatesType, SinkType, hookimpl
from carpark_example.plates import make_plates
from carpark_example.sink import JsonFolderSettings, check, make_sink, read_back


@hookimpl
def carpark_register_sinks() -> Sequence[SinkType]:
    """Offer ``json-folder``."""
    return [
        SinkType(
            "json-folder",
            make_sink,
            "writes a JSON file per stay into the folder CARPARK_EXAMPLE_FOLDER",
            JsonFolderSettings,
            "EXAMPLE_",  # else the variable would be CARPARK_JSON_FOLDER_FOLDER
            check=check,
            read_back=read_back,
        )
    ]


@hookimpl
def carpark_register_plates() -> Sequence[PlatesType]:
    """Offer ``netherlands``."""
    return [PlatesType("netherlands", make_plates, "the Netherlands, passenger cars since 2019: G-123-BD")]
