"""What stays in memory: the writer with many ids, the backend over a long time."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import requests

from benchmarks.contenders import carpark_worker
from benchmarks.stage import READY, Stage
from carpark.domain.events import StaySummary

LIST = 2000


def writer(stage: Stage, ids: int) -> dict[str, Any]:
    """Give the writer so many summaries.

    Args:
        stage: The servers.
        ids: How many.

    Returns:
        Megabytes: resident at the start, at the end, and the most there ever were.
    """
    with stage.site() as site:
        [pid] = site.groups["writer"]
        start = _megabytes(pid, "VmRSS")
        with requests.Session() as session:
            for _ in range(0, ids, LIST):
                stays = [
                    StaySummary.of_stay(
                        str(uuid.uuid4()), "QBF0427", "2026-11-23T18:00:00.000000Z", "2026-11-23T19:00:00.000001Z"
                    ).to_dict()
                    for _ in range(LIST)
                ]
                session.post(f"{site.writer_url}/summaries", json=stays, timeout=60).raise_for_status()
        return {"ids": ids, "start": start, "end": _megabytes(pid, "VmRSS"), "most": _megabytes(pid, "VmHWM")}


def backend(stage: Stage, rate: float, minutes: float, samples: int = 20) -> dict[str, Any]:
    """Let the backend work for a long time.

    Args:
        stage: The servers.
        rate: Events per second.
        minutes: For how long.
        samples: How often to look, evenly.

    Returns:
        Megabytes of all its processes over time, and by how much the last quarter is above the second.
    """
    with stage.site() as site:
        [worker] = carpark_worker(site)
        worker.wait_for_line(READY)
        seconds = minutes * 60
        site.processes.start(["python", "-m", "benchmarks.camera", str(rate), str(seconds)], env=site.environ)
        sizes = []
        for _ in range(samples):
            time.sleep(seconds / samples)
            sizes.append(sum(_megabytes(pid, "VmRSS") for pid in _group(worker.pid)))
    quarter = samples // 4
    second, last = sizes[quarter : 2 * quarter], sizes[-quarter:]
    growth = sum(last) / len(last) / (sum(second) / len(second)) - 1
    return {"rate": rate, "minutes": minutes, "megabytes": sizes, "growth": growth}


def _group(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == pid:
            found.append(int(path.parent.name))
    return found


def _megabytes(pid: int, what: str) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:  # it has ended meanwhile
        return 0.0
    return float(status.partition(f"{what}:")[2].split()[0]) / 1024
