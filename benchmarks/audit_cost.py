"""What the audit costs: time and memory of ``carpark verify`` on many events; ``python benchmarks/audit_cost.py``."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from carpark.domain.events import format_time

DAY = datetime(2026, 11, 23, tzinfo=UTC)
STAY = timedelta(seconds=30, microseconds=7)


def make_day(folder: Path, count: int) -> list[str]:
    """Write journals and a CSV of so many events, four exits of five matched; give the arguments of ``verify``."""
    chance = random.Random(1)
    entry, exit_, csv = folder / "entry.jsonl", folder / "exit.jsonl", folder / "summaries.csv"
    with entry.open("w") as entries, exit_.open("w") as exits, csv.open("w", newline="") as rows:
        rows.write("id,vehicle_plate,entry_date_time,exit_date_time,duration\r\n")
        for file in (entries, exits):
            file.write('{"confirmed": 0}\n')
        for number in range(count // 2):
            ids = [str(uuid.UUID(int=chance.getrandbits(128), version=4)) for _ in range(2)]
            plate, moment = f"P{number * 7919 % 1_000_003:07}", DAY + timedelta(milliseconds=number)
            entered, left = format_time(moment), format_time(moment + STAY)
            entries.write(f'{{"id":"{ids[0]}","vehicle_plate":"{plate}","entry_date_time":"{entered}"}}\n')
            seen = number % 5 < 4
            exits.write(
                f'{{"id":"{ids[1]}","vehicle_plate":"{plate if seen else "X" + plate}","exit_date_time":"{left}"}}\n'
            )
            if seen:
                rows.write(f"{ids[1]},{plate},{entered},{left},30.000007\r\n")
            if number % 100 == 99:
                for file in (entries, exits):
                    file.write(f'{{"confirmed": {number + 1}}}\n')
    return ["--journal", str(entry), "--journal", str(exit_), "--csv", str(csv)]


@click.command()
@click.option("--events", default=1_000_000, show_default=True)
def main(events: int) -> None:
    """Measure one audit."""
    with tempfile.TemporaryDirectory(prefix="carpark-audit-") as name:
        arguments = make_day(Path(name), events)
        started = time.monotonic()
        process = subprocess.Popen([sys.executable, "-m", "carpark", "verify", *arguments], stdout=subprocess.PIPE)
        said = process.stdout.read().decode() if process.stdout else ""
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
    print(said.splitlines()[-1])
    print(
        f"{events:,} events: {seconds:.1f} s ({used.ru_utime + used.ru_stime:.1f} s of processor time), "
        f"{used.ru_maxrss / 1024:.0f} MiB at most"
    )
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
