"""The longest list that the writer takes, in the memory that its container has."""

from __future__ import annotations

from pathlib import Path

import requests

from tests.deploy.files import compose, mebibytes
from tests.support.cgroup import image, peak
from tests.support.processes import Processes
from tests.support.writer_service import Service
from writer.app import MAX_BODY

SHORTEST = (
    '{"id":"%x","vehicle_plate":"A","entry_date_time":"2026-01-01T00:00:00Z",'
    '"exit_date_time":"2026-01-01T00:00:00Z","duration":0}'
)


def longest_list(first: int) -> bytes:
    """Make a list of nearly 8 MiB of the shortest summaries, whose ids count up from a number."""
    count = MAX_BODY // (len(SHORTEST % first) + 1) - 1
    return f"[{','.join(SHORTEST % number for number in range(first, first + count))}]".encode()


def test_the_longest_list_fits_into_the_containers_memory(processes: Processes, tmp_path: Path, redis_url: str) -> None:
    process, url = Service(processes, tmp_path / "summaries.csv").start(CARPARK_REDIS_URL=redis_url, **image())
    assert requests.get(url, timeout=30).status_code == 200
    for first in (0x100000, 0x200000, 0x300000):
        body = longest_list(first)
        assert MAX_BODY - 1000 < len(body) <= MAX_BODY
        assert requests.post(f"{url}/summaries", data=body, timeout=100).json()["written"] > 60_000
    # A body that arrives is in a file in /tmp, and that is memory too.
    assert peak(process.pid) + MAX_BODY < mebibytes(compose()["services"]["writer"]["mem_limit"]) * 2**20
