"""Reads what the records know: vehicles inside, summaries under way, and ids that were processed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from carpark.domain.events import VehicleEntered, VehicleExited, format_time
from carpark.domain.pairing import ENTRY, EXIT
from carpark.ops.audit.facts import INSIDE, Facts, under_way_to
from carpark.records import Records

_KINDS = {ENTRY: VehicleEntered.kind, EXIT: VehicleExited.kind}
_NUMBERS = {kind: number for number, kind in _KINDS.items()}
_Lookup = tuple[int, str]


def add_inside(records: Records, facts: Facts, since: str) -> None:
    """Read who is inside.

    Args:
        records: The records.
        facts: Takes the vehicles.
        since: Those that entered before this canonical time are left out.
    """
    for plate, entered in records.vehicles():
        if entered >= since:
            facts.add([(plate, INSIDE, "", entered, "", "")])


def add_under_way(records: Records, facts: Facts, sinks: Sequence[str], since: str) -> None:
    """Read the summaries that sinks have not got yet.

    Args:
        records: The records.
        facts: Takes those for the sinks that are audited.
        sinks: Their names, in their order.
        since: Stays that ended before this canonical time are left out.
    """
    for number, name in enumerate(sinks):
        for stay, state in records.outbox(name).stays():
            if stay.exit_date_time >= since:
                times = (stay.entry_date_time, stay.exit_date_time)
                facts.add([(stay.vehicle_plate, under_way_to(number), stay.id, *times, state)])


def seen(records: Records, events: Iterable[_Lookup]) -> list[_Lookup]:
    """Pick the events that the records have processed.

    Args:
        records: The records.
        events: Kind and id of each.

    Returns:
        Those whose ids are remembered.
    """
    known = records.known((_KINDS[kind], id_) for kind, id_ in events)
    return [(_NUMBERS[kind], id_) for kind, id_ in known]


def must_remember(records: Records, retention: float) -> tuple[str, str]:
    """Say of which events the ids are remembered for certain, if they were processed.

    Args:
        records: The records.
        retention: Seconds for which they remember ids.

    Returns:
        The first and the last of the canonical times that such an event has.
    """
    now = records.now()
    return _canonical(now - retention), _canonical(now)


def _canonical(seconds: float) -> str:
    return format_time(datetime.fromtimestamp(max(seconds, 0), UTC))
