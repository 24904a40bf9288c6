"""How long an exit takes until its row is in the CSV, counted from when it was due."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.contenders import carpark_worker
from benchmarks.stage import READY, Stage
from carpark.domain.events import parse_time

WARM_SECONDS = 1.0
PATIENCE = 60.0
PERCENTILES = (50.0, 95.0, 99.0, 99.9)


def measure(stage: Stage, rate: float, seconds: float, batch: int = 100) -> dict[str, Any]:
    """Publish at a rate and look at the rows as they come.

    Args:
        stage: The servers.
        rate: Events per second; every other one is an exit, and each exit ends a stay.
        seconds: For how long.
        batch: The backend's ``CARPARK_BATCH``.

    Returns:
        The rate, the number of rows, and milliseconds by percentile; a stall is not hidden, because events stay due.
    """
    with stage.site(batch) as site:
        [worker] = carpark_worker(site)
        worker.wait_for_line(READY)
        camera = site.processes.start(["python", "-m", "benchmarks.camera", str(rate), str(seconds)], env=site.environ)
        delays: list[float] = []
        first: float | None = None
        with site.csv.open("rb") as rows:
            rows.readline()
            rest = b""
            deadline = time.monotonic() + seconds + PATIENCE
            quiet = 0.0
            while time.monotonic() < deadline and not (camera.status is not None and quiet > 2.0):
                chunk = rows.read()
                now = time.time()
                if not chunk:
                    time.sleep(0.001)
                    quiet += 0.001
                    continue
                quiet = 0.0
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    due = parse_time(line.decode().split(",")[3]).timestamp()
                    first = due if first is None else first
                    if due >= first + WARM_SECONDS:
                        delays.append((now - due) * 1000)
        worker.terminate()
    delays.sort()
    found = {f"p{percent:g}": delays[min(len(delays) - 1, int(len(delays) * percent / 100))] for percent in PERCENTILES}
    return {"rate": rate, "batch": batch, "rows": len(delays), **found}
