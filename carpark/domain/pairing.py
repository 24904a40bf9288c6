"""The rule by which a plate's entries and exits become stays, as plainly as it is said.

Take the events in the order of their times, an entry before an exit at equal times: an entry opens a stay and abandons
the one that is open, an exit closes the open one or is unmatched. That is all, when all events are there.

A running system sees them one by one, in two queues, late and twice; how it comes to the same result is said in
``carpark/records/memory.py``. The audit and the tests hold it against this, so neither uses anything of the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

ENTRY, EXIT = 0, 1
"""The two kinds of events, in the order that they have at equal times."""

Seen = tuple[str, int, str]
"""An event of the plate: its time, its kind, its id."""


@dataclass(slots=True)
class PlateAccount:
    """What became of one plate's events.

    Args:
        stays: Entry and exit of every finished stay.
        inside: The entry that is open.
        abandoned: Entries whose vehicle was seen entering again before it was seen leaving.
        unmatched: Exits of a vehicle that was not inside.
    """

    stays: list[tuple[Seen, Seen]] = field(default_factory=list)
    inside: Seen | None = None
    abandoned: list[Seen] = field(default_factory=list)
    unmatched: list[Seen] = field(default_factory=list)


def join(events: Iterable[Seen]) -> PlateAccount:
    """Join the events of one plate.

    Args:
        events: Each event once, in any order; times are canonical, so they compare as text.

    Returns:
        What must become of them.
    """
    account = PlateAccount()
    entry: Seen | None = None
    for event in sorted(events):
        if event[1] == ENTRY:
            if entry:
                account.abandoned.append(entry)
            entry = event
        elif entry:
            account.stays.append((entry, event))
            entry = None
        else:
            account.unmatched.append(event)
    account.inside = entry
    return account
