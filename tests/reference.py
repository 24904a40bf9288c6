"""What the join must come to: the plate's events in the order of their times, an entry before an exit at equal times.

Written from the contract's words alone and as plainly as they are, to hold the records against. Nothing of the records
is used here, nor may it be.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from carpark.events import Event


@dataclass
class Account:
    """What became of events.

    Args:
        summaries: (id of the exit, plate, time of entry, time of exit) of every finished stay.
        inside: Plate to the id of the entry that is open.
        abandoned: Ids of entries whose vehicle was seen entering again before it was seen leaving.
        unmatched: Ids of exits of vehicles that were not inside.
        duplicates: How many events had been there before.
    """

    summaries: set[tuple[str, str, str, str]] = field(default_factory=set)
    inside: dict[str, str] = field(default_factory=dict)
    abandoned: set[str] = field(default_factory=set)
    unmatched: set[str] = field(default_factory=set)
    duplicates: int = 0


def account_for(events: Iterable[Event]) -> Account:
    """Join the events of any number of plates.

    Args:
        events: The events in the order in which they are processed: that decides which of two with one id counts, and
            nothing else.

    Returns:
        What must become of them.
    """
    account = Account()
    seen: set[tuple[str, str]] = set()
    plates: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        if (event.kind, event.id) in seen:
            account.duplicates += 1
        else:
            seen.add((event.kind, event.id))
            plates[event.vehicle_plate].append(event)
    for plate, its_events in plates.items():
        _join(account, plate, sorted(its_events, key=lambda event: (event.time, event.kind == "exit")))
    return account


def _join(account: Account, plate: str, events: list[Event]) -> None:
    """Join the events of one plate, which are in the order of their times."""
    entry: Event | None = None
    for event in events:
        if event.kind == "entry":
            if entry:
                account.abandoned.add(entry.id)
            entry = event
        elif entry:
            account.summaries.add((event.id, plate, entry.time, event.time))
            entry = None
        else:
            account.unmatched.add(event.id)
    if entry:
        account.inside[plate] = entry.id
