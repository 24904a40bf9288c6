"""The journal of a generator: every event is on file before it is sent, and so is how far the broker has confirmed."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from carpark.domain.events import PRIVATE, Event, VehicleEntered, VehicleExited, load_json
from carpark.errors import FileInUse, InvalidSetting, MessageError, ServiceError
from carpark.web.ports import cause_of

FLAG = "--journal"
_TOP = '{"confirmed": 0}\n'
"""The first line: without it a file whose events were never confirmed would look like one of published events."""


class Journal:
    """A file of JSON lines: bare events, and after each confirmed window ``{"confirmed": n}``; at the top n is 0.

    ``n`` counts the events of this journal, from its top, that the broker has confirmed. What stands after them was
    perhaps sent and perhaps not. A last line that a crash has torn is removed: its event was never sent. A file that is
    no journal is left as it is.
    """

    def __init__(self, path: Path, event_type: type[VehicleEntered] | type[VehicleExited]) -> None:
        self.path = path
        self._type = event_type
        self.last: str | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(PRIVATE)
            self._file: BinaryIO = path.open("a+b")
        except OSError as error:
            raise InvalidSetting(FLAG, str(path), f"a file that can be read and written ({cause_of(error)})") from None
        try:
            self._lock()
            self.count, self.confirmed, self._tail, end = self._read()
            self._cut(end)
            if not end:
                self._write(_TOP)
        except BaseException:
            self._file.close()
            raise

    def tail(self) -> list[Event]:
        """Give the events that are not known to be confirmed."""
        return list(self._tail)

    def plates(self) -> Iterator[str]:
        """Read the plates of all events from the file."""
        self._file.flush()
        with self.path.open("rb") as lines:
            for line in lines:
                fields = json.loads(line)
                if "vehicle_plate" in fields:
                    yield fields["vehicle_plate"]

    def append(self, events: Sequence[Event]) -> None:
        """Write events down, before they are sent."""
        self._write("".join(event.to_json() + "\n" for event in events))
        self.count += len(events)

    def confirm(self, count: int) -> None:
        """Write down that the broker has further events."""
        self.confirmed += count
        for _ in range(min(count, len(self._tail))):
            self._tail.popleft()
        self._write(f'{{"confirmed": {self.confirmed}}}\n')

    def close(self) -> None:
        """Close the file and let others have it."""
        with contextlib.suppress(OSError):  # what could not be written has been reported
            self._file.close()

    def _write(self, text: str) -> None:
        try:
            self._file.write(text.encode())
            self._file.flush()
        except OSError as error:
            raise ServiceError(f"{FLAG}={str(self.path)!r}: cannot be written: {cause_of(error)}") from None

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileInUse(FLAG, str(self.path)) from None

    def _cut(self, end: int) -> None:
        """Remove a torn last line; only when the rest was found to be a journal, as the file may be anything."""
        if self._file.seek(0, os.SEEK_END) != end:
            self._file.truncate(end)

    def _read(self) -> tuple[int, int, deque[Event], int]:
        count = confirmed = end = 0
        tail: deque[Event] = deque()
        self._file.seek(0)
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                if number == 1 and not _TOP.encode().startswith(line):
                    raise self._invalid(number, "has no end")
                break
            end += len(line)
            found = self._parse(number, line)
            if not isinstance(found, int):
                count += 1
                tail.append(found)
                self.last = max(self.last or "", found.time)
                continue
            if not confirmed <= found <= count:
                raise self._invalid(number, f"says that {found} of {count} events are confirmed")
            for _ in range(found - confirmed):
                tail.popleft()
            confirmed = found
        return count, confirmed, tail, end

    def _parse(self, number: int, line: bytes) -> Event | int:
        try:
            fields = load_json(line)
            if isinstance(fields, dict):
                confirmed = fields.get("confirmed")
                return confirmed if type(confirmed) is int else self._type.parse(fields)
        except MessageError as error:
            raise self._invalid(number, f"is not an {self._type.kind} event ({error})") from None
        raise self._invalid(number, "is not an object")

    def _invalid(self, number: int, reason: str) -> InvalidSetting:
        wanted = f"a journal of the {self._type.kind} generator, or a new file; line {number} {reason}"
        return InvalidSetting(FLAG, str(self.path), wanted)
