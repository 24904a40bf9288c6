"""The ledger as each of those who keep one opens it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from carpark.domain.events import StaySummary
from carpark.ledger import CSV_LINES, JSON_LINES, Ledger, LineFormat
from tests.support.summaries import stay


@dataclass(frozen=True)
class Keeper:
    """Who keeps a ledger: what a test calls it, what its lines are, and how it is shared (see `Ledger`)."""

    name: str
    form: LineFormat
    shared: float | None = None

    def open(self, path: Path) -> Ledger:
        """Open the ledger."""
        return Ledger(path, self.form, "CARPARK_FILE", self.shared)

    def write(self, path: Path, *ids: str) -> tuple[int, int]:
        """Open it, write summaries with these ids, close it."""
        with self.open(path) as ledger:
            return self.append(ledger, *ids)

    def append(self, ledger: Ledger, *ids: str) -> tuple[int, int]:
        """Append summaries with these ids."""
        return ledger.append([self.form.line(stay(id_)) for id_ in ids])

    def lines(self, *stays: str | StaySummary) -> bytes:
        """Say what stands in the file for these summaries, or summaries with these ids."""
        found = (stay(each) if isinstance(each, str) else each for each in stays)
        return b"".join(self.form.write(each) + self.form.line_end for each in found)

    def content(self, *ids: str) -> bytes:
        """Say what a file with these ids is."""
        return self.header + self.lines(*ids)

    @property
    def header(self) -> bytes:
        """What a new file has in it."""
        return self.form.header + self.form.line_end if self.form.header else b""

    def ids(self, path: Path) -> list[str]:
        """Read the ids of the file, in its order; it has nothing but whole summaries."""
        rows = list(self.form.read(path))
        assert not [row for row in rows if isinstance(row, str)]
        assert path.read_bytes().endswith(b"\n") or not rows
        return [row[0] for row in rows]


WRITER = Keeper("writer", CSV_LINES)
CSV = Keeper("csv", CSV_LINES, 1)
JSONL = Keeper("jsonl", JSON_LINES, 1)
KEEPERS = {keeper.name: keeper for keeper in (WRITER, CSV, JSONL)}


APPENDER = """
import json, sys
from pathlib import Path
from tests.support.ledgers import KEEPERS
keeper = KEEPERS[sys.argv[2]]
ledger = keeper.open(Path(sys.argv[1]))
print("ready", flush=True)
for text in sys.stdin:
    print(json.dumps(keeper.append(ledger, *json.loads(text))), flush=True)
"""
"""A process that appends each list of ids that it reads, and says what came of it."""


def as_line(*ids: str) -> str:
    """Write a list of ids as the process reads it."""
    return json.dumps(ids) + "\n"
