"""The writer killed, out of disk, or under load: real processes."""

from __future__ import annotations

import http.client
import json
import random
import re
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import requests

from carpark.ledger import Ledger
from tests.support.helpers import eventually, is_listening
from tests.support.processes import Processes
from tests.support.summaries import ids_in, posted, summary
from tests.support.writer_service import Service


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "summaries.csv"


@pytest.fixture
def service(processes: Processes, path: Path) -> Service:
    return Service(processes, path)


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


def has_at_least(acknowledged: list[set[str]], count: int) -> bool:
    return sum(len(ids) for ids in acknowledged) >= count


def has_grown(path: Path, size: int, deadline: float) -> bool:
    return path.stat().st_size > size or time.monotonic() > deadline


def post_all(url: str, ids: list[str], acknowledged: set[str], stop: threading.Event) -> None:
    """Post lists of ids until the server is gone."""
    with requests.Session() as session:
        session.trust_env = False
        for start in range(0, len(ids), 7):
            batch = ids[start : start + 7]
            try:
                answer = session.post(f"{url}/summaries", json=[posted(id_) for id_ in batch], timeout=10)
            except requests.RequestException:
                return
            assert answer.status_code == 201
            acknowledged.update(batch)
            if stop.is_set():
                return


@pytest.mark.slow
def test_sigkill_under_load_loses_nothing_and_doubles_nothing(service: Service) -> None:
    chance = random.Random(11)
    acknowledged: set[str] = set()
    clients = 5
    for round_ in range(5):
        process, url = service.start()
        stop = threading.Event()
        lists = [[f"{round_}-{client}-{number}" for number in range(5000)] for client in range(clients)]
        mine: list[set[str]] = [set() for _ in range(clients)]
        threads = [
            threading.Thread(target=post_all, args=(url, ids, mine[number], stop)) for number, ids in enumerate(lists)
        ]
        for thread in threads:
            thread.start()
        enough = chance.randrange(50, 600)
        eventually(partial(has_at_least, mine, enough), 30)
        process.kill()
        stop.set()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
        acknowledged.update(*mine)
        # What was under way when it died is sent again, as the sink does.
        process, url = service.start()
        for client, ids in enumerate(lists):
            post_all(url, ids[: len(mine[client]) + 14], acknowledged, threading.Event())
        process.terminate()
        found = ids_in(service.path)
        assert len(found) == len(set(found))
        assert acknowledged == set(found)


@pytest.mark.slow
def test_sigkill_in_the_middle_of_a_write_leaves_whole_lines_in_the_end(service: Service) -> None:
    """One big list, killed at some moment of its writing: what is there is whole, and sending it again completes it."""
    ids = [f"{number:06}" for number in range(20_000)]
    body = json.dumps([posted(id_) for id_ in ids]).encode()
    for delay in (0.0, 0.3, 0.6):
        process, url = service.start()
        size = service.path.stat().st_size

        def send(url: str = url) -> None:
            try:
                requests.post(f"{url}/summaries", data=body, timeout=30)
            except requests.RequestException:
                return

        thread = threading.Thread(target=send)
        thread.start()
        # Either it has begun to write, or it is still reading: both are moments to die.
        eventually(partial(has_grown, service.path, size, time.monotonic() + delay), 30, interval=0.001)
        process.kill()
        thread.join(30)
    process, url = service.start()
    answer = requests.post(f"{url}/summaries", data=body, timeout=60).json()
    assert answer["written"] + answer["duplicates"] == len(ids)
    assert ids_in(service.path) == ids


def test_sigterm_answers_the_requests_in_hand(service: Service, session: requests.Session) -> None:
    process, url = service.start()
    ids = [f"{number}" for number in range(5_000)]
    body = json.dumps([posted(id_) for id_ in ids]).encode()
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    connection.putrequest("POST", "/summaries")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders()
    connection.send(body[:-1000])  # it is still arriving when the signal comes
    eventually(lambda: session.get(f"{url}/healthz", timeout=10).ok)
    process.signal(signal.SIGTERM)
    eventually(lambda: not is_listening(int(url.rsplit(":", 1)[1])))
    connection.send(body[-1000:])
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())) == (201, {"written": len(ids), "duplicates": 0})
    connection.close()
    assert process.wait() == 0
    assert ids_in(service.path) == ids


# -- full disk


def test_a_full_disk_is_507_and_it_goes_on_when_there_is_space(
    service: Service, session: requests.Session, path: Path
) -> None:
    """A limit on the size of files stands in for the disk; it holds for the index too."""
    with Ledger(path) as file:
        file.append([summary(f"old-{number}") for number in range(600)])
    process, url = service.start()
    soft = path.stat().st_size + 1000
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))
    written, refused = [], []
    for number in range(12):
        batch = [posted(f"{number}-{k}") for k in range(4)]
        answer = session.post(f"{url}/summaries", json=batch, timeout=10)
        if answer.status_code == 201:
            written += [one["id"] for one in batch]
        else:
            assert answer.status_code == 507
            assert answer.json()["error"].startswith("nothing of this was written (")
            refused += batch
            content = path.read_bytes()
            assert content.endswith(b"\r\n")
            assert len(content) <= soft
    assert written
    assert refused
    assert session.get(f"{url}/", timeout=10).status_code == 200
    assert session.get(f"{url}/healthz", timeout=10).status_code == 200
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    answer = session.post(f"{url}/summaries", json=refused, timeout=10)
    assert answer.json() == {"written": len(refused), "duplicates": 0}
    everything = [*(f"old-{number}" for number in range(600)), *written, *(one["id"] for one in refused)]
    assert ids_in(path) == everything
    process.terminate()
    process, url = service.start()
    answer = session.post(f"{url}/summaries", json=[posted(id_) for id_ in everything], timeout=10)
    assert answer.json() == {"written": 0, "duplicates": len(everything)}


# -- size


def resident_mib(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", text)
    assert found
    return int(found.group(1)) / 1024


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of a process from /proc")
def test_memory_stays_far_below_the_size_of_the_ids(service: Service, session: requests.Session) -> None:
    """The same with a million ids takes minutes and is written down in docs/reference/writer.md."""
    process, url = service.start()
    for start in range(0, 100_000, 5000):
        batch = [posted(f"{number:0100x}") for number in range(start, start + 5000)]
        assert session.post(f"{url}/summaries", json=batch, timeout=60).json()["written"] == 5000
    assert session.get(f"{url}/", timeout=10).status_code == 200
    assert resident_mib(process.pid) < 100
    process.kill()
    service.path.with_name(service.path.name + ".index.sqlite").unlink()
    process, url = service.start()
    assert session.get(f"{url}/healthz", timeout=10).json()["rows"] == 100_000
    assert resident_mib(process.pid) < 80


def test_many_clients_at_once_are_all_answered(service: Service, session: requests.Session) -> None:
    _, url = service.start()
    failures: list[object] = []

    def client(number: int) -> None:
        with requests.Session() as mine:
            mine.trust_env = False
            for k in range(10):
                answer = mine.post(f"{url}/summaries", json=[posted(f"{number}-{k}"), posted(f"all-{k}")], timeout=30)
                if answer.status_code != 201:
                    failures.append(answer.text)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    found = ids_in(service.path)
    assert len(found) == len(set(found)) == 310
    text = session.get(f"{url}/metrics", timeout=10).text
    assert 'web_backend_summaries_total{outcome="written"} 310.0' in text
    assert 'web_backend_summaries_total{outcome="duplicate"} 290.0' in text
