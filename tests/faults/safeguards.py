"""Takes one safeguard at a time out of a copy of the source, and sees to it that a fault notices.

``python -m tests.faults.safeguards``; the table goes into docs/explanation/faults.md. A suite that passes without a
safeguard would prove nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click

from tests.faults.page import note
from tests.support.processes import ROOT

HEAD = ("safeguard", "where", "fault that notices", "without it")
COPIED = ("carpark", "generators", "writer", "tests", "docs")


@dataclass(frozen=True)
class Safeguard:
    """A safeguard, how to take it out, and the fault that must notice.

    Args:
        what: What it is, in words.
        path: The file that has it.
        changes: What is replaced there, each of which occurs once.
        fault: The fault's name, or a part of it.
    """

    what: str
    path: str
    changes: tuple[tuple[str, str], ...]
    fault: str


SAFEGUARDS = (
    Safeguard(
        "confirms of what the cameras publish",
        "carpark/rabbitmq/publishing.py",
        (
            (
                "                self._tag += 1\n",
                "                self._tag += 1\n            self._count_all_as_confirmed()\n",
            ),
            (
                "    def _settled(self, frame: Any)",
                "    def _count_all_as_confirmed(self) -> None:\n"
                "        with self._changed:\n"
                "            self._confirmed.update(self._outstanding.values())\n"
                "            self._outstanding.clear()\n"
                "            self._changed.notify_all()\n\n"
                "    def _settled(self, frame: Any)",
            ),
        ),
        "connection cut in the middle of a publish",
    ),
    Safeguard(
        "confirms of the backend's dead letters",
        "carpark/broker/rabbitmq.py",
        (("confirm_delivery=True", "confirm_delivery=False"),),
        "connection cut in the middle of a dead letter's publish",
    ),
    Safeguard(
        "the transactional outbox: a summary leaves it when its sink has it, and not before",
        "carpark/records/outbox.lua",
        (
            ("    redis.call('RPUSH', BATCH, unpack(waiting))\n", ""),
            ("  local members = redis.call('LRANGE', BATCH, 0, -1)\n", "  local members = {}\n"),
        ),
        "writer answers 500",
    ),
    Safeguard(
        "the atomic step: it knows the ids that it has processed",
        "carpark/records/join.lua",
        (("  if is_seen(kind, id) then\n", "  if false then\n"),),
        "each message delivered twice",
    ),
    Safeguard(
        "idempotent writes: the writer knows the ids that it has written",
        "carpark/ledger/ledger.py",
        (("if digest in entries or self._has(digest, line.id):", "if False:"),),
        "writer answers after the client's timeout",
    ),
    Safeguard(
        "late acknowledgement: after the effect",
        "carpark/broker/consumer.py",
        (
            (
                "        self._acknowledgements.delivered(method.delivery_tag)\n",
                "        self.channel.basic_ack(method.delivery_tag)\n",
            ),
            ("            parts[0].acknowledgements.settle(part.tag for part in parts)\n", "            pass\n"),
        ),
        "worker SIGKILL before the record",
    ),
)
"""Every safeguard that the guarantees rest on."""


def take_out(safeguard: Safeguard, folder: Path) -> None:
    """Take a safeguard out of a copy of the source.

    Args:
        safeguard: What goes.
        folder: The copy.

    Raises:
        AssertionError: The source is not as it was when this was written.
    """
    path = folder / safeguard.path
    text = path.read_text(encoding="utf-8")
    for old, new in safeguard.changes:
        assert text.count(old) == 1, f"{safeguard.path}: {old!r} occurs {text.count(old)} times"
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


def notice(safeguard: Safeguard) -> tuple[bool, str]:
    """Run the fault without the safeguard.

    Args:
        safeguard: What is taken out.

    Returns:
        Whether the fault failed, and what it said.

    Raises:
        ClickException: The fault could not be tried, because a server did not start or the like.
    """
    with tempfile.TemporaryDirectory(prefix="carpark-safeguards-", dir="/tmp") as name:
        folder = Path(name)
        for each in COPIED:
            shutil.copytree(ROOT / each, folder / each, ignore=shutil.ignore_patterns("__pycache__"))
        take_out(safeguard, folder)
        done = subprocess.run(
            [sys.executable, "-m", "tests.faults", "--rounds", "0", "--only", safeguard.fault],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": name, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "400"},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith(("✓", "✗"))]
    if len(lines) != 1:
        raise click.ClickException(f"{safeguard.fault} could not be tried:\n{done.stderr[-2000:]}")
    return lines[0].startswith("✗"), lines[0]


@click.command()
@click.option("--only", metavar="TEXT", help="Only safeguards that have this in their words")
def main(only: str | None) -> None:
    """Take each safeguard out once, and see that a fault notices."""
    missed = 0
    for safeguard in SAFEGUARDS:
        if only is not None and only not in safeguard.what:
            continue
        started = time.monotonic()
        noticed, said = notice(safeguard)
        missed += not noticed
        print(
            f"{'noticed' if noticed else 'NOT NOTICED'}, {time.monotonic() - started:.0f} s: {safeguard.what}\n  {said}"
        )
        fails = "fails" if noticed else "**does not fail**"
        note("safeguards", HEAD, (safeguard.what, f"`{safeguard.path}`", safeguard.fault, fails))
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
