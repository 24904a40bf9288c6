"""The HTTP server against clients that are slow, send too much, or come in crowds: real sockets, short deadlines."""

from __future__ import annotations

import http.client
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from carpark.web.ports import listen
from carpark.web.server import HttpServer, Limits
from tests.support.helpers import eventually
from tests.support.slow import SlowClients, raise_file_limit

pytestmark = pytest.mark.slow

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
LONG = 40 * 1024 * 1024
BODY = 64 * 1024
QUICK = Limits(head=0.5, request=1.0, answer=1.0, idle=1.5, body=BODY)
PATIENT = Limits(head=1000, request=1000, answer=1000, idle=1000, body=BODY)


class Application:
    """Answers how long the body was; `/long` with a lot, `/file` with that as a file, `/stuck` when it is let."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.asked: list[str] = []
        self.on_asked: Callable[[], object] = lambda: None

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        self.asked.append(environ["PATH_INFO"])
        self.on_asked()
        if environ["PATH_INFO"] == "/stuck":
            self.released.wait(60)
        if environ.get("HTTP_AUTHORIZATION") == "none":
            start_response("401 Unauthorized", [("Content-Length", "0")])
            return [b""]
        if environ["PATH_INFO"] == "/long":
            start_response("200 OK", [("Content-Length", str(LONG))])
            return (b"x" * 65536 for _ in range(LONG // 65536))
        if environ["PATH_INFO"] == "/file":
            start_response("200 OK", [("Content-Length", str(LONG))])
            return environ["wsgi.file_wrapper"](io.BytesIO(bytes(LONG)))
        if int(environ.get("CONTENT_LENGTH") or 0) > BODY:
            start_response("413 Too Large", [("Content-Length", "0")])
            return [b""]
        said = str(len(environ["wsgi.input"].read())).encode()
        start_response("200 OK", [("Content-Length", str(len(said)))])
        return [said]


@pytest.fixture
def app() -> Application:
    return Application()


@pytest.fixture
def serve(app: Application) -> Iterator[Callable[..., HttpServer]]:
    """Start servers that let clients take so much."""

    def wants_body(method: str, headers: Mapping[str, str]) -> bool:
        return headers.get("AUTHORIZATION") != "none"

    with ExitStack() as stack:

        def start(limits: Limits, **options: Any) -> HttpServer:
            listener = listen("127.0.0.1", 0, "CARPARK_WRITER_PORT")
            kind = type("Limited", (HttpServer,), {"limits": limits, "drain_seconds": 0.1})
            server: HttpServer = kind(app, listener, "127.0.0.1", "server", wants_body, **options)
            return stack.enter_context(server)

        yield start
        app.released.set()


def get(server: HttpServer, path: str = "/", timeout: float = 20) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.get(server.url + path, timeout=timeout)


def say(server: HttpServer, request: bytes) -> http.client.HTTPResponse:
    """Send something, and read the answer and the end of the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(request)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        answer.read()
        assert connection.recv(1) == b"", "the connection is closed"
        return answer


def held(server: HttpServer) -> int:
    return sum(channel.held() for channel in list(server._server.active_channels.values()))


# -- deadlines


TRICKLES = [
    (b"", b""),
    (b"", b"G"),
    (b"GET / HTTP/1.1\r\n", b"X-A: b\r\n"),
    (b"", b"\r\n"),
    (HEAD + b"Content-Length: 5000\r\n\r\n", b""),
    (HEAD + b"Content-Length: 5000\r\n\r\n", b"x"),
    (CHUNKED, b"1\r\nx\r\n"),
    (CHUNKED + b"1000\r\n", b"x"),
    (CHUNKED + b"0\r\n", b"X-A: b\r\n"),
    (HEAD + b"Content-Length: 5000\r\nExpect: 100-continue\r\n\r\n", b"x"),
    (GET, b"GET /x"),
    (GET, b"\r\n"),
    (GET + HEAD, b"X-A: b\r\n"),
]


def test_requests_that_trickle_in_are_ended_however_they_do(serve: Callable[..., HttpServer]) -> None:
    raise_file_limit()
    server = serve(replace(QUICK, connections=400))
    with ExitStack() as stack:
        crowds = [stack.enter_context(SlowClients(server.port, 25, *trickle)) for trickle in TRICKLES]
        assert get(server).ok
        eventually(lambda: not any(crowd.open for crowd in crowds), 30)
        assert get(server).ok
    for crowd, (first, drip) in zip(crowds, TRICKLES, strict=True):
        assert crowd.longest < 15, (first, drip)
        for answer in crowd.answers.values():
            assert answer.count(b"HTTP/1.1 200 OK") == first.startswith(GET), (first, drip)
    assert held(server) == 0


def test_who_is_slow_is_told_so_and_a_line_says_how_many(
    serve: Callable[..., HttpServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(QUICK)
    with SlowClients(server.port, 3, HEAD) as clients:
        eventually(lambda: clients.open == 0, 20)
    for answer in clients.answers.values():
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert body == b'{"error": "no whole request within 0.5 s", "index": null, "field": null}'
    eventually(lambda: "connections of clients that were slow" in caplog.text)


def test_a_connection_is_kept_between_requests_for_a_while(serve: Callable[..., HttpServer]) -> None:
    server = serve(replace(QUICK, request=0.5, idle=2.0))
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        for _ in range(3):  # each pause is longer than a request may take, all of them longer than the longest pause
            connection.sendall(GET)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            assert answer.read() == b"0"
            time.sleep(0.8)
        assert connection.recv(1) == b""


def test_our_own_work_has_no_deadline(serve: Callable[..., HttpServer], app: Application) -> None:
    server = serve(QUICK)
    with SlowClients(server.port, 2, GET.replace(b"/ ", b"/stuck ")) as clients:
        eventually(lambda: len(app.asked) == 2)
        with SlowClients(server.port, 2, HEAD) as others:
            eventually(lambda: others.open == 0, 20)
        time.sleep(2 * QUICK.request)
        assert clients.open == 2
        app.released.set()
        eventually(lambda: all(answer.endswith(b"0") for answer in clients.answers.values()))


# -- answers that are not taken


@pytest.mark.parametrize("path", ["/long", "/file"])
def test_who_takes_nothing_of_an_answer_is_ended_and_holds_no_thread(
    serve: Callable[..., HttpServer], path: str
) -> None:
    server = serve(QUICK, threads=2)
    files = len(list(Path("/proc/self/fd").iterdir()))
    request = GET.replace(b"/ ", path.encode() + b" ")
    with SlowClients(server.port, 6, request, reads=False):
        assert get(server).ok
        eventually(lambda: not server._server.active_channels, 30)
    assert len(list(Path("/proc/self/fd").iterdir())) <= files + 1


@pytest.mark.parametrize("path", ["/long", "/file"])
def test_who_takes_a_long_answer_slowly_gets_all_of_it(serve: Callable[..., HttpServer], path: str) -> None:
    server = serve(replace(QUICK, held=100 * 1024 * 1024))
    began, size = time.monotonic(), 0
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.connect(("127.0.0.1", server.port))
        connection.settimeout(20)
        connection.sendall(GET.replace(b"/ ", path.encode() + b" "))
        while size < LONG:
            part = connection.recv(1 << 20)
            assert part
            size += len(part)
            if time.monotonic() - began < 3 * QUICK.answer:
                time.sleep(0.1)
    assert time.monotonic() - began > 2 * QUICK.answer


def test_requests_that_do_not_wait_for_their_answers_are_not_heaped_up(
    serve: Callable[..., HttpServer], app: Application
) -> None:
    server = serve(PATIENT, threads=2)
    with SlowClients(server.port, 10, GET.replace(b"/ ", b"/file ") * 100, reads=False):
        eventually(lambda: len(app.asked) >= 10)
        assert get(server).ok
        assert held(server) < 10 * 1024 * 1024
    assert len(app.asked) < 10 * 5, "a few may be begun while the others are still being read"


# -- crowds


@pytest.mark.parametrize("first", [b"", HEAD + b"Content-Length: 9\r\n\r\n", GET, GET.replace(b"/ ", b"/file ")])
def test_the_next_client_is_answered_however_many_hold_a_connection(
    serve: Callable[..., HttpServer], first: bytes
) -> None:
    server = serve(replace(PATIENT, connections=50))
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(SlowClients(server.port, 60, first, reads=False))
            assert get(server).ok
        assert get(server, "/metrics").ok
        eventually(lambda: len(server._server.active_channels) <= 50)


def test_of_a_crowd_the_one_that_waits_longest_goes_and_the_one_that_is_worked_for_stays(
    serve: Callable[..., HttpServer], app: Application
) -> None:
    server = serve(replace(PATIENT, connections=4))
    with SlowClients(server.port, 1, GET.replace(b"/ ", b"/stuck ")) as first:
        eventually(lambda: app.asked == ["/stuck"])
        with SlowClients(server.port, 1, HEAD) as second:
            eventually(lambda: len(server._server.active_channels) == 2)
            time.sleep(0.2)
            with SlowClients(server.port, 2, HEAD) as third:
                eventually(lambda: len(server._server.active_channels) == 4)
                assert get(server).ok
                eventually(lambda: second.open == 0)
                assert (first.open, third.open) == (1, 2)
                app.released.set()
                eventually(lambda: b"200 OK" in next(iter(first.answers.values())))


def test_bodies_and_answers_of_all_clients_together_have_a_limit(serve: Callable[..., HttpServer]) -> None:
    limits = replace(PATIENT, body=1 << 20, held=4 << 20, connections=300)
    server = serve(limits)
    unfinished = HEAD + b"Content-Length: 1000000\r\n\r\n" + b"x" * 500_000
    answers = GET.replace(b"/ ", b"/long ")
    with SlowClients(server.port, 40, unfinished) as clients:
        eventually(lambda: 0 < clients.open <= 8)
        assert held(server) <= limits.held
        with SlowClients(server.port, 10, answers, reads=False):
            eventually(lambda: clients.open == 0)
            eventually(lambda: held(server) <= limits.held + (1 << 20))
            assert get(server).ok


def test_a_probe_is_answered_while_every_thread_is_busy(
    serve: Callable[..., HttpServer], app: Application, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(PATIENT, threads=2)
    with SlowClients(server.port, 10, GET.replace(b"/ ", b"/stuck ")) as clients:
        eventually(lambda: app.asked == ["/stuck"] * 2)
        for path in ("/healthz", "/metrics", "/healthz?x=1"):
            assert get(server, path).ok
        with pytest.raises(requests.Timeout):
            get(server, "/", timeout=0.3)
        app.released.set()
        eventually(lambda: all(b"200 OK" in answer for answer in clients.answers.values()))
    assert [record.name for record in caplog.records if record.name.startswith("waitress")] == []


def test_it_keeps_within_the_files_that_it_may_open(
    serve: Callable[..., HttpServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda which: (1024, 1024))
    assert serve(replace(PATIENT, connections=1000))._server.limits.connections < 1024 / 2
    monkeypatch.setattr("resource.getrlimit", lambda which: (-1, -1))
    assert serve(replace(PATIENT, connections=1000))._server.limits.connections == 1000


# -- bodies that are not read


@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
@pytest.mark.parametrize("length", [b"Content-Length: 60000\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_a_body_that_is_not_wanted_is_answered_at_its_head(
    serve: Callable[..., HttpServer], length: bytes, expect: bytes
) -> None:
    server = serve(PATIENT)
    answer = say(server, HEAD + b"Authorization: none\r\n" + length + expect + b"\r\n")
    assert (answer.status, answer.headers["Connection"]) == (401, "close")
    assert say(server, HEAD + b"Authorization: none\r\n" + length + expect + b"\r\n" + b"xyz").status == 401


def test_a_body_that_is_not_wanted_is_never_held_and_its_sender_gets_the_answer(
    serve: Callable[..., HttpServer], app: Application
) -> None:
    server = serve(PATIENT)
    most: list[int] = []
    app.on_asked = lambda: most.append(held(server))
    for body in (b"x" * (32 << 20), (b"y" * 65536 for _ in range(512)), GET * 100_000):
        with requests.Session() as session:
            session.trust_env = False
            answer = session.post(server.url, data=body, headers={"Authorization": "none"}, timeout=60)
            eventually(lambda: held(server) == 0)  # the answer itself is let go of a moment after it was sent
            assert answer.status_code == 401
    assert max(most) == 0
    assert app.asked == ["/"] * 3, "what is in a body is no request"


@pytest.mark.parametrize(
    "request_",
    [
        HEAD + b"Content-Length: 65537\r\n\r\n",
        HEAD + b"Content-Length: 99999999999999999999\r\n\r\n",
        CHUNKED + b"10001\r\n",
        CHUNKED + b"FFFFFFFFFFFFFFFFFFFF\r\nabc",
        CHUNKED + (b"8000\r\n" + b"x" * 0x8000 + b"\r\n") * 2 + b"1\r\nx",
    ],
    ids=lambda request: repr(request[-40:]),
)
def test_a_body_over_the_limit_is_cut_at_once(serve: Callable[..., HttpServer], request_: bytes) -> None:
    server = serve(PATIENT)
    assert say(server, request_).status == 413
    assert held(server) == 0


def test_a_body_of_just_the_limit_is_read(serve: Callable[..., HttpServer]) -> None:
    server = serve(PATIENT)
    body = b"x" * BODY
    with requests.Session() as session:
        session.trust_env = False
        assert session.post(server.url, data=body, timeout=20).text == str(BODY)
        assert session.post(server.url, data=(body[at : at + 1] for at in range(5000)), timeout=20).text == "5000"


@pytest.mark.parametrize(
    "request_",
    [
        b"GET http://[ HTTP/1.1\r\n\r\n",
        HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"x" * 20_000,
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000,
        CHUNKED + b"1" * 5000,
        CHUNKED + b"0\r\n" + b"X: y\r\n" * 5000,
    ],
    ids=lambda request: repr(request[:60]),
)
def test_what_is_no_request_is_refused_in_one_answer_without_a_traceback(
    serve: Callable[..., HttpServer], caplog: pytest.LogCaptureFixture, request_: bytes
) -> None:
    server = serve(PATIENT)
    assert say(server, request_).status in (400, 431)
    assert get(server).ok
    assert "Traceback" not in caplog.text
    assert "exception" not in caplog.text


def test_a_server_with_a_crowd_before_it_ends_in_time(serve: Callable[..., HttpServer]) -> None:
    server = serve(PATIENT)
    with SlowClients(server.port, 50, HEAD, b"X: y\r\n"):
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 5
