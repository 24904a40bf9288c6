"""JSON Schemas of the events and the summary, made of the models that check them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from carpark.domain.events import StaySummary, VehicleEntered, VehicleExited

DIALECT = "https://json-schema.org/draft/2020-12/schema"

MODELS: dict[str, type[BaseModel]] = {
    "vehicle_entry": VehicleEntered,
    "vehicle_exit": VehicleExited,
    "stay_summary": StaySummary,
}
"""The name of each schema, which for an event is that of its queue, and the model that it is made of."""

_COMMENT = (
    "Made by `python -m carpark.ops.docs`. What a schema cannot say is in the descriptions: "
    "a plate is counted after it is brought to its canonical form, and a day has to be in the calendar."
)


def schema_of(name: str) -> dict[str, Any]:
    """Make the JSON Schema of an event or of the summary.

    Args:
        name: A key of `MODELS`.

    Returns:
        The schema: what our side takes, and so also what it sends.
    """
    made = MODELS[name].model_json_schema()
    for title in made["properties"].values():
        title.pop("title")
    return {
        "$schema": DIALECT,
        "$id": f"urn:carpark:{name}",
        "$comment": _COMMENT,
        "title": made["title"],
        "description": made["description"],
        "type": "object",
        "required": made["required"],
        "properties": made["properties"],
        "additionalProperties": True,
    }
