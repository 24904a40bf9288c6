"""The writer as a service, and in a thread."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
import requests
from prometheus_client import CollectorRegistry

from carpark.errors import FileInUse, InvalidSetting, PortTaken
from carpark.ledger import Ledger
from carpark.settings import Settings
from tests.support.helpers import eventually, is_listening
from tests.support.processes import Processes, RunHere
from tests.support.summaries import HEADER, ids_in, posted, summary
from tests.support.writer_service import Service
from writer.server import WriterServer


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


def test_it_says_where_it_is_and_ends_with_status_0(service: Service, session: requests.Session) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        process, url = service.start()
        assert session.get(f"{url}/healthz", timeout=10).json()["status"] == "ok"
        session.close()
        process.signal(number)
        assert process.wait() == 0
        assert process.output == f"writer: {url} appends to {service.path}\n"


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_with_requests_in_hand(service: Service, second: signal.Signals) -> None:
    process, url = service.start()
    port = int(url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"POST /summaries HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n[")
        requests.get(f"{url}/healthz", timeout=10)  # so it has read what came before
        process.signal(signal.SIGTERM)
        eventually(lambda: not is_listening(port))
        process.signal(second)
        assert process.wait() == -second


def test_what_was_posted_is_there_after_a_restart(service: Service, session: requests.Session) -> None:
    process, url = service.start()
    assert session.post(f"{url}/summaries", json=[posted("a"), posted("b")], timeout=10).status_code == 201
    process.terminate()
    _, url = service.start()
    answer = session.post(f"{url}/summaries", json=[posted("b"), posted("c")], timeout=10)
    assert answer.json() == {"written": 1, "duplicates": 1}
    assert [one["id"] for one in session.get(f"{url}/summaries", timeout=10).json()] == ["c", "b", "a"]
    assert session.get(f"{url}/summaries.csv", timeout=10).content == service.path.read_bytes()


def test_a_second_writer_ends_with_status_2_and_one_line(service: Service, processes: Processes) -> None:
    service.start()
    command = ["python", "-m", "writer", "--csv", str(service.path), "--port", "0"]
    second = processes.start(command)
    assert second.wait() == 2
    assert re.fullmatch(r"python -m writer: CARPARK_CSV='.*': another process is writing this file.*\n", second.output)


def test_when_another_program_appends_it_stops_with_one_line_and_goes_on_when_started_again(
    service: Service, session: requests.Session
) -> None:
    process, url = service.start()
    assert session.post(f"{url}/summaries", json=posted("a"), timeout=10).status_code == 201
    theirs = service.path.read_bytes().splitlines(keepends=True)[1].replace(b"a,", b"b,", 1)
    with service.path.open("ab") as other:
        other.write(theirs)
    answer = session.post(f"{url}/summaries", json=posted("c"), timeout=10)
    assert answer.status_code == 503
    assert "nothing of this was written (another program has appended to" in answer.json()["error"]
    session.close()
    assert process.wait() == 1
    started, ended = process.output.splitlines()
    assert started.startswith("writer: http")
    assert ended.startswith(f"python -m writer: another program has appended to {service.path}: nothing of it was over")
    assert ids_in(service.path) == ["a", "b"]
    _, url = service.start()
    answer = session.post(f"{url}/summaries", json=[posted("b"), posted("c")], timeout=10)
    assert answer.json() == {"written": 1, "duplicates": 1}
    assert ids_in(service.path) == ["a", "b", "c"]


@pytest.mark.parametrize("bind", ["0.0.0.0", "::"])
@pytest.mark.slow
def test_for_other_machines_it_does_not_start_without_login_or_token(
    service: Service, processes: Processes, session: requests.Session, bind: str
) -> None:
    process = processes.start(["python", "-m", "writer", "--bind", bind, "--port", "0", "--csv", str(service.path)])
    assert process.wait() == 2
    assert re.fullmatch(
        rf"python -m writer: CARPARK_DASHBOARD_LOGIN='': wanted user:password, because CARPARK_BIND={bind} lets .*\n",
        process.output,
    )
    for given in ({"CARPARK_DASHBOARD_LOGIN": "me:pw"}, {"CARPARK_WRITER_TOKEN": "t"}):
        process, url = service.start(CARPARK_BIND="0.0.0.0", **given)
        there = url.replace("0.0.0.0", "127.0.0.1")
        assert [session.get(f"{there}/{path}", timeout=10).status_code for path in ("", "healthz")] == [401, 200]
        session.close()
        process.terminate()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--csv", "/"], "CARPARK_CSV"),
        (["--port", "http"], "CARPARK_WRITER_PORT"),
        (["--bind", "192.0.2.1"], "CARPARK_BIND"),
        (["--bind", "no.such.host.invalid"], "CARPARK_BIND"),
    ],
)
def test_a_wrong_setting_ends_with_status_2_and_one_line(
    run_here: RunHere, path: Path, flags: list[str], said: str
) -> None:
    ended = run_here(["writer", "--csv", str(path), "--port", "0", *flags], {"CARPARK_WRITER_TOKEN": "s3cret"})
    assert (ended.returncode, ended.stdout) == (2, "")
    assert re.fullmatch(rf"carpark: .*{said}.*: wanted .*\n", ended.stderr)


def test_a_taken_port_is_an_error_that_names_the_setting(processes: Processes, path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        process = processes.start(["python", "-m", "writer", "--csv", str(path), "--port", port])
        assert process.wait() == 2
    assert process.output.startswith(f"python -m writer: CARPARK_WRITER_PORT: 127.0.0.1:{port} is already in use")
    assert path.read_bytes() == HEADER


NAME_MAX = 255


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x" * (NAME_MAX + 1), "file name too long"),
        ("x" * (NAME_MAX - 4), "and its index '.*' beside it"),
        ("x" * (NAME_MAX - 20), "and its index '.*' beside it"),
        ("file/stays.csv", "file exists|not a directory"),
        ("folder", "this is something else"),
        ("/", "a file name"),
        ("/proc/stays.csv", "no such file or directory"),
        ("blocked.csv", "and its index '.*' beside it"),
    ],
)
@pytest.mark.parametrize(
    "command", ["writer --port", "run --events 1 --metrics-port 0 --dashboard-port 0 --writer-port"]
)
def test_a_csv_that_cannot_be_is_status_2_and_one_line_before_the_port_is_tried(
    run_here: RunHere, tmp_path: Path, command: str, name: str, said: str
) -> None:
    (tmp_path / "file").touch()
    for folder in ("folder", "blocked.csv.index.sqlite"):
        (tmp_path / folder).mkdir()
    with socket.create_server(("127.0.0.1", 0)) as other:
        ended = run_here([*command.split(), str(other.getsockname()[1]), "--csv", str(tmp_path / name)])
    assert (ended.returncode, ended.stdout) == (2, "")
    assert re.fullmatch(rf"carpark: (--csv \()?CARPARK_CSV.*: wanted .*({said}).*\n", ended.stderr)
    assert not list(tmp_path.glob("*.run"))


def test_the_help_ends_in_examples(processes: Processes) -> None:
    process = processes.start(["python", "-m", "writer", "--help"])
    assert process.wait() == 0
    assert "--port" in process.output
    assert "Examples:" in process.output.strip().splitlines()[-5]


# -- HTTP as it comes over the wire


def raw(url: str, request: bytes) -> tuple[int, dict[str, object]]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(request)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.headers["Content-Type"].startswith("application/json")
        return answer.status, json.loads(answer.read())


def test_what_is_not_http_and_what_is_far_too_long_is_answered_in_json(
    make_settings: Callable[..., Settings],
) -> None:
    with WriterServer(make_settings()) as server:
        status, body = raw(server.url, b"GET\r\n\r\n")
        assert (status, list(body)) == (400, ["error", "index", "field"])
        status, body = raw(
            server.url, b"POST /summaries HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n"
        )
        assert (status, list(body)) == (413, ["error", "index", "field"])
        nine_mib = b"POST /summaries HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9437184\r\n\r\n" + b" " * 9437184
        status, body = raw(server.url, nine_mib)
        assert (status, list(body)) == (413, ["error", "index", "field"])


@pytest.mark.parametrize(
    ("headers", "body", "status", "error"),
    [
        (f"Content-Length: {'9' * 40}", b"[]", 413, "the body has more than 8388608 bytes"),
        (f"Content-Length: {'9' * 4000}", b"[]", 413, "the body has more than 8388608 bytes"),
        ("Content-Length: -2", b"[]", 400, "Content-Length is invalid"),
        ("Content-Length: 2\r\nContent-Length: 3", b"[]", 400, "Content-Length is invalid"),
        ("Content-Length: 2\r\nTransfer-Encoding: chunked", b"2\r\n[]\r\n0\r\n\r\n", 400, "beside Transfer-Encoding"),
        ("Transfer-Encoding: gzip, chunked", b"2\r\n[]\r\n0\r\n\r\n", 501, "Transfer-Encoding"),
        (
            "Content-Length: 22\r\nContent-Encoding: gzip",
            gzip.compress(b"[]", mtime=0),
            415,
            "the body is compressed (gzip)",
        ),
        ("Content-Length: 2\r\nContent-Encoding: identity", b"[]", 201, ""),
    ],
)
def test_what_a_head_says_of_the_body_is_taken_or_refused_with_a_reason(
    make_settings: Callable[..., Settings], headers: str, body: bytes, status: int, error: str
) -> None:
    with WriterServer(make_settings()) as server:
        request = f"POST /summaries HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n".encode() + body
        answered, said = raw(server.url, request)
    assert answered == status
    assert error in str(said.get("error", ""))


def test_a_chunked_body_is_read(make_settings: Callable[..., Settings], path: Path) -> None:
    body = json.dumps([posted("a"), posted("b")]).encode()
    with WriterServer(make_settings(csv=path)) as server:
        parts = iter([body[:10], body[10:200], body[200:]])
        answer = requests.post(f"{server.url}/summaries", data=parts, timeout=10)
        assert answer.request.headers["Transfer-Encoding"] == "chunked"
        assert answer.json() == {"written": 2, "duplicates": 0}
    assert ids_in(path) == ["a", "b"]


def test_a_long_file_is_downloaded_as_it_was_when_it_was_asked_for(
    make_settings: Callable[..., Settings], path: Path
) -> None:
    with Ledger(path) as file:
        file.append([summary(f"{number}") for number in range(30_000)])
    with WriterServer(make_settings(csv=path)) as server:
        before = path.read_bytes()
        with requests.get(f"{server.url}/summaries.csv", timeout=30, stream=True) as answer:
            assert requests.post(f"{server.url}/summaries", json=posted("late"), timeout=10).status_code == 201
            assert answer.content == before
        assert requests.head(f"{server.url}/summaries.csv", timeout=10).headers["Content-Length"] == str(
            path.stat().st_size
        )


# -- embedded


def test_it_runs_in_a_thread_and_leaves_nothing_behind(make_settings: Callable[..., Settings], path: Path) -> None:
    threads = set(threading.enumerate())
    registry = CollectorRegistry()
    server = WriterServer(make_settings(csv=path), registry, inside=lambda: 42).start()
    assert server.port > 0
    assert requests.post(f"{server.url}/summaries", json=posted("a"), timeout=10).status_code == 201
    assert ">42<" in requests.get(server.url, timeout=10).text
    assert registry.get_sample_value("web_backend_summaries_total", {"outcome": "written"}) == 1
    server.stop()
    server.stop()
    assert not is_listening(server.port)
    eventually(lambda: set(threading.enumerate()) <= threads)
    with WriterServer(make_settings(csv=path, writer_port=server.port)) as again:
        assert again.port == server.port
    assert ids_in(path) == ["a"]


def test_one_that_was_never_started_lets_go_of_port_and_file(make_settings: Callable[..., Settings]) -> None:
    server = WriterServer(make_settings())
    with pytest.raises(FileInUse):
        WriterServer(make_settings())
    with pytest.raises(PortTaken):
        WriterServer(make_settings(csv="/nowhere/else.csv", writer_port=server.port))
    server.stop()
    WriterServer(make_settings(writer_port=server.port)).stop()


def test_a_file_that_cannot_be_used_frees_the_port(
    make_settings: Callable[..., Settings], tmp_path: Path, free_port: int
) -> None:
    with pytest.raises(InvalidSetting, match="CARPARK_CSV"):
        WriterServer(make_settings(csv=tmp_path, writer_port=free_port))
    WriterServer(make_settings(writer_port=free_port)).stop()


def test_it_listens_on_ipv6_too(make_settings: Callable[..., Settings]) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with WriterServer(make_settings(bind="::1")) as server:
        assert server.url == f"http://[::1]:{server.port}"
        assert requests.get(f"{server.url}/healthz", timeout=10).ok


# -- vehicles inside


def test_the_page_asks_redis_how_many_are_inside(service: Service, redis_url: str, session: requests.Session) -> None:
    with redis.Redis.from_url(redis_url) as records:
        records.sadd("entry_plates", *(f"P{number}" for number in range(1717)))
    _, url = service.start(CARPARK_REDIS_URL=redis_url)
    eventually(lambda: "1,717" in session.get(url, timeout=10).text)


@pytest.mark.slow
def test_the_page_is_quick_while_redis_hangs(service: Service, session: requests.Session) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        _, url = service.start(CARPARK_REDIS_URL=f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        session.get(f"{url}/healthz", timeout=10)
        times = []
        for _ in range(3):
            answer = session.get(url, timeout=10)
            times.append(answer.elapsed.total_seconds())
            assert "not known" in answer.text
    assert min(times) < 0.9  # it waits a quarter of a second; Redis may take a whole one
