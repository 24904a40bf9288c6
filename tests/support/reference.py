"""What the join must come to, for events of any number of plates: the rule, which knows no records.

The records' tests and the audit thus hold each other: a mistake in the rule of `carpark.domain.pairing` fails the
tests of the records, and one in the records fails the audit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from carpark.domain.events import Event
from carpark.domain.pairing import ENTRY, EXIT, Seen, join


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
    plates: dict[str, list[Seen]] = defaultdict(list)
    for event in events:
        if (event.kind, event.id) in seen:
            account.duplicates += 1
        else:
            seen.add((event.kind, event.id))
            plates[event.vehicle_plate].append((event.time, EXIT if event.kind == "exit" else ENTRY, event.id))
    for plate, its_events in plates.items():
        its = join(its_events)
        account.summaries |= {(exit_[2], plate, entry[0], exit_[0]) for entry, exit_ in its.stays}
        account.abandoned |= {entry[2] for entry in its.abandoned}
        account.unmatched |= {exit_[2] for exit_ in its.unmatched}
        if its.inside:
            account.inside[plate] = its.inside[2]
    return account
