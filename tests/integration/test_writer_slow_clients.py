"""The writer as a process against clients that are slow or send too much: its own deadlines, its container's memory."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from tests.integration.test_writer_memory import longest_list
from tests.support.cgroup import MemoryGroup, container, image, peak
from tests.support.helpers import eventually
from tests.support.processes import Processes
from tests.support.slow import SlowClients, raise_file_limit
from tests.support.summaries import posted
from tests.support.writer_service import READY, Service
from writer.app import MAX_BODY

HEAD = b"POST /summaries HTTP/1.1\r\nHost: localhost\r\n"
TOKEN = {"Authorization": "Bearer s3cret"}
WITH_TOKEN = HEAD + b"Authorization: Bearer s3cret\r\n"
LENGTH = b"Content-Length: 8388608\r\n\r\n"


def repeated(unit: bytes, begin: bytes = b"[", end: bytes = b"]") -> bytes:
    """Make a list of as many as fit."""
    return begin + b",".join([unit] * ((MAX_BODY - len(begin + end) + 1) // (len(unit) + 1))) + end


BOMBS = {
    "objects": repeated(b"{}"),
    "lists": repeated(b"[]"),
    "numbers": repeated(b"0"),
    "texts": repeated(b'""'),
    "a list in a list": repeated(b"[]", b"[[", b"]]"),
    "a list in an object": repeated(b"{}", b'{"id":[', b"]}"),
    "many fields": b"{" + b",".join(b'"%06x":0' % number for number in range(MAX_BODY // 11 - 1)) + b"}",
    "deep": b"[" * MAX_BODY,
    "deep, again and again": repeated(b"[" * 200 + b"]" * 200),
    "deep objects": b'{"a":' * (MAX_BODY // 5),
    "a text": b'["' + "\N{GRINNING FACE}".encode() * (MAX_BODY // 4 - 1) + b'"]',
    "a text of escapes": b'"' + rb"\ud83d\ude00" * (MAX_BODY // 12 - 1) + b'"',
    "a number": b"[" + b"1" * (MAX_BODY - 2) + b"]",
}


def session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    return session


def files_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.mark.slow
@pytest.mark.parametrize("begin", [b"", HEAD, WITH_TOKEN + LENGTH], ids=["nothing", "a head", "a body"])
def test_more_slow_clients_than_it_has_connections_keep_it_from_nothing(
    processes: Processes, tmp_path: Path, begin: bytes
) -> None:
    raise_file_limit()
    process, url = Service(processes, tmp_path / "summaries.csv").start(CARPARK_WRITER_TOKEN="s3cret")
    port, drip = int(url.rpartition(":")[2]), b"X-A: b\r\n" if begin else b""
    longest, number = 0.0, 0
    with SlowClients(port, 1200, begin, drip, pause=1) as clients, session() as mine:
        while clients.open and time.monotonic() < clients.began + 90:
            asked = time.monotonic()
            for path in ("/healthz", "/metrics", "/summaries"):
                with session() as prober:  # each on a connection of its own, as Kubernetes does it
                    assert prober.get(url + path, timeout=30).status_code == 200
            body = [posted(f"{number}")]
            assert mine.post(f"{url}/summaries", json=body, headers=TOKEN, timeout=30).status_code == 201
            longest, number = max(longest, time.monotonic() - asked), number + 1
            time.sleep(0.2)
        assert clients.open == 0
        assert clients.longest < (30 if LENGTH in begin else 10) + 25
    assert longest < 8, "four requests one after the other, beside a thousand others"
    assert number > 5
    assert process.terminate() == 0


@pytest.mark.slow
def test_bodies_without_the_token_are_never_held(processes: Processes, tmp_path: Path) -> None:
    process, url = Service(processes, tmp_path / "summaries.csv").start(CARPARK_WRITER_TOKEN="s3cret")
    with session() as mine:
        assert mine.get(f"{url}/healthz", timeout=10).ok
        before, files = peak(process.pid), files_of(process.pid)
        port, part = int(url.rpartition(":")[2]), b"[" + b" " * 1_000_000
        with ExitStack() as stack:
            for length in (LENGTH, b"Transfer-Encoding: chunked\r\n\r\n7fffff\r\n"):
                for header in (b"", b"Authorization: Bearer wrong\r\n"):
                    clients = SlowClients(port, 25, HEAD + header + length + part)
                    stack.enter_context(clients)
                    eventually(lambda clients=clients: clients.open == 0)  # type: ignore[misc]
                    for answer in clients.answers.values():
                        assert answer.startswith(b"HTTP/1.1 401 ")
                        assert b"\r\nConnection: close\r\n" in answer
        assert peak(process.pid) < before + 10 * 2**20
        eventually(lambda: files_of(process.pid) <= files)
        assert mine.post(f"{url}/summaries", json=posted("a"), headers=TOKEN, timeout=10).status_code == 201
        # A sender that knows nothing of this gets to see the answer, whatever it still has to send.
        answer = mine.post(f"{url}/summaries", data=b" " * (4 * MAX_BODY), timeout=60)
        assert (answer.status_code, answer.json()["field"]) == (401, None)


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.slow
def test_what_one_body_takes_does_not_depend_on_what_is_in_it(processes: Processes, tmp_path: Path, name: str) -> None:
    process, url = Service(processes, tmp_path / "summaries.csv").start(**image())
    assert MAX_BODY - 1000 < len(BOMBS[name]) <= MAX_BODY
    with session() as mine:
        assert mine.post(f"{url}/summaries", json=posted("a"), timeout=10).status_code == 201
        before = peak(process.pid)
        answer = mine.post(f"{url}/summaries", data=BOMBS[name], timeout=60)
        assert answer.status_code in (400, 422)
        assert list(answer.json()) == ["error", "index", "field"]
        assert len(answer.text) < 500
    assert peak(process.pid) < before + 12 * 2**20


@pytest.fixture
def box() -> Iterator[tuple[MemoryGroup, Mapping[str, str]]]:
    with container("writer") as made:
        yield made


@pytest.mark.slow
def test_in_the_memory_of_its_container_it_outlives_all_of_it_at_once(
    box: tuple[MemoryGroup, Mapping[str, str]], processes: Processes, tmp_path: Path, redis_url: str
) -> None:
    raise_file_limit()
    group, variables = box
    memory = Path("/dev/shm")  # as /tmp is in the container, whose memory it takes
    environ = {
        "CARPARK_CSV": str(tmp_path / "summaries.csv"),
        "CARPARK_WRITER_TOKEN": "s3cret",
        "CARPARK_WRITER_PORT": "0",
        "CARPARK_REDIS_URL": redis_url,
        **({"TMPDIR": str(memory)} if memory.is_dir() else {}),
        **variables,
    }
    process = processes.start(group.command("writer"), environ, name="writer")
    url = process.wait_for_line(READY).group(1)
    port = int(url.rpartition(":")[2])

    def send(body: bytes) -> int:
        with session() as mine:
            try:
                return mine.post(f"{url}/summaries", data=body, headers=TOKEN, timeout=100).status_code
            except requests.ConnectionError:  # the whole of the bodies was too much: this one had waited longest
                return 503

    with ExitStack() as stack, ThreadPoolExecutor(8) as pool, session() as mine:
        assert mine.get(url, timeout=30).status_code == 200
        for head in (HEAD, WITH_TOKEN):
            stack.enter_context(SlowClients(port, 150, head + LENGTH + b" " * 2_000_000, b" "))
        stack.enter_context(SlowClients(port, 300, WITH_TOKEN + LENGTH + b" " * 100_000, b" "))
        stack.enter_context(SlowClients(port, 300, b"GET /summaries?limit=1000 HTTP/1.1\r\n\r\n" * 50, reads=False))
        statuses = list(pool.map(send, [*BOMBS.values(), *(longest_list(0x100000 * each) for each in range(1, 5))]))
        assert set(statuses) <= {201, 400, 422, 503}
        assert mine.get(f"{url}/healthz", timeout=30).json()["status"] == "ok"
        eventually(lambda: send(longest_list(0x900000)) == 201, 60)
        stack.enter_context(SlowClients(port, 300, b"GET /summaries?limit=1000 HTTP/1.1\r\n\r\n", reads=False))
        stack.enter_context(SlowClients(port, 300, b"GET /summaries.csv HTTP/1.1\r\n\r\n", reads=False))
        assert mine.get(f"{url}/healthz", timeout=30).json()["status"] == "ok"
    assert (process.status, group.kills) == (None, 0)
