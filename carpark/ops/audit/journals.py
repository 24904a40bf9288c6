"""Reads the generators' journals, and any other file of one event per line."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from carpark.domain.events import VehicleEntered, VehicleExited, load_json
from carpark.domain.pairing import ENTRY, EXIT
from carpark.errors import InvalidSetting, MessageError
from carpark.ops.audit.facts import DOUBTFUL, SURE, Fact, Facts
from carpark.web.ports import cause_of

# A line as the generators write it, which need not be decoded as JSON. What it lets through, the calendar apart, is
# what `VehicleEntered.parse` would leave as it is.
_PLAIN = re.compile(
    rb'\{"id":"(?![=@+-])([ !#-\[\]-~]{1,128})","vehicle_plate":"([A-Z0-9]{1,24})",'
    rb'"(entry|exit)_date_time":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z)"\}\r?\n?'
)
_KINDS = {"entry_date_time": ENTRY, "exit_date_time": EXIT}
_TYPES: tuple[type[VehicleEntered] | type[VehicleExited], ...] = (VehicleEntered, VehicleExited)
_LONGEST_TAIL = 10_000
"""More events than a generator ever has under way: so many without a confirm are no journal's."""


@dataclass
class Published:
    """What the files say."""

    events: int = 0
    rejected: int = 0
    damaged: int = 0
    examples: list[str] = field(default_factory=list)


def read_journal(path: Path, facts: Facts, published: Published, most: int, advance: Callable[[int], None]) -> None:
    """Read a file of events.

    In a journal the events after the last confirm are in doubt, and a last line without its end was never sent. In a
    file without any confirm every event was published.
    """
    tail: deque[Fact] = deque()
    confirmed, is_journal, unsaid, rejected = 0, False, 0, published.rejected
    kind = _Kind()
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                unsaid += len(line)
                if not number % 1000:
                    advance(unsaid)
                    unsaid = 0
                fact = _plain(line) or _fact(line, kind)
                if isinstance(fact, int):
                    is_journal = True
                    facts.add(tail.popleft() for _ in range(min(fact - confirmed, len(tail))))
                    confirmed = fact
                elif isinstance(fact, str):
                    if not (is_journal and not line.endswith(b"\n")):
                        _reject(published, f"{path}, line {number}: {fact}", most)
                elif line.endswith(b"\n") or not is_journal:
                    published.events += 1
                    kind.usual = fact[1]
                    tail.append(fact)
                    if len(tail) > _LONGEST_TAIL:
                        facts.add(tail.popleft() for _ in range(len(tail) - _LONGEST_TAIL // 2))
    except OSError as error:
        raise InvalidSetting("--journal", str(path), f"a file that can be read ({cause_of(error)})") from error
    published.damaged += (published.rejected - rejected) * is_journal
    facts.add((*fact[:5], DOUBTFUL if is_journal else SURE) for fact in tail)


@dataclass
class _Kind:
    """Which kind of events a file has; tells what a line is that has the times of both."""

    usual: int = ENTRY


def _plain(line: bytes) -> Fact | None:
    match = _PLAIN.fullmatch(line)
    if match is None:
        return None
    id_, plate, kind, time = match.groups()
    text = time.decode()
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return None
    return plate.decode(), ENTRY if kind == b"entry" else EXIT, id_.decode(), text, "", SURE


def _fact(line: bytes, kind: _Kind) -> Fact | int | str:
    """Read a line: an event, how many are confirmed, or why it is neither."""
    try:
        fields: Any = load_json(line)
        if isinstance(fields, dict) and type(fields.get("confirmed")) is int:
            return int(fields["confirmed"])
        kinds = [of for name, of in _KINDS.items() if isinstance(fields, dict) and name in fields]
        what = kinds[0] if len(kinds) == 1 else kind.usual
        event = _TYPES[what].parse(fields)
    except MessageError as error:
        return str(error)
    return event.vehicle_plate, what, event.id, event.time, "", SURE


def _reject(published: Published, why: str, most: int) -> None:
    published.rejected += 1
    if len(published.examples) < most:
        published.examples.append(why)
