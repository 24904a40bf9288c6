"""Opening ports, and words for why a server does not answer."""

import itertools
import re
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from carpark.errors import InvalidSetting, PortTaken
from carpark.web.ports import cause_of, client, in_url, listen
from carpark.web.server import HttpServer
from tests.support.helpers import is_listening
from tests.support.processes import ROOT
from tests.support.source import PACKAGES, modules


def test_a_port_of_zero_is_a_free_one() -> None:
    with listen("127.0.0.1", 0, "CARPARK_WRITER_PORT") as one, listen("127.0.0.1", 0, "CARPARK_WRITER_PORT") as two:
        assert one.getsockname()[1] != two.getsockname()[1]
        assert is_listening(one.getsockname()[1])


def test_a_taken_port_is_an_error_that_names_the_setting_and_the_address() -> None:
    with listen("127.0.0.1", 0, "CARPARK_WRITER_PORT") as held:
        port = held.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"^CARPARK_DASHBOARD_PORT: 127\.0\.0\.1:{port} is already in use"):
            listen("127.0.0.1", port, "CARPARK_DASHBOARD_PORT")


@pytest.mark.parametrize("host", ["9.9.9.9", "no-such-host.invalid", "." * 5, "x" * 70])
def test_an_address_of_another_machine_is_an_error_that_names_bind(host: str) -> None:
    with pytest.raises(InvalidSetting, match=r"^CARPARK_BIND='.+': wanted an address of this machine"):
        listen(host, 0, "CARPARK_WRITER_PORT")


def test_an_ipv6_address_is_in_brackets_in_a_url() -> None:
    assert (in_url("::1"), in_url("127.0.0.1")) == ("[::1]", "127.0.0.1")


def chained(*errors: BaseException) -> BaseException:
    for outer, inner in itertools.pairwise(errors):
        outer.__cause__ = inner
    return errors[0]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (chained(ValueError("outer"), ConnectionRefusedError(111, "Connection refused")), "connection refused"),
        (socket.gaierror(-2, "Name or service not known"), "name or service not known"),
        (chained(OSError("x"), TimeoutError("timed out")), "no answer in time"),
        (requests.ReadTimeout("HTTPConnectionPool(...)"), "no answer in time"),
        (ssl.SSLError(1, "WRONG_VERSION_NUMBER"), "TLS: wrong version number"),
        (ValueError("two\nlines"), "two lines"),
        (ValueError(), "ValueError"),
    ],
)
def test_the_innermost_error_says_why(error: BaseException, words: str) -> None:
    assert cause_of(error).startswith(words)


def test_a_refused_request_says_so_in_two_words(free_port: int) -> None:
    with pytest.raises(requests.ConnectionError) as caught:
        requests.get(f"http://user:hidden@127.0.0.1:{free_port}/", timeout=5)
    assert cause_of(caught.value) == "connection refused"


def test_a_client_takes_neither_a_proxy_nor_a_password_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("default login me password pssst\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:1")
    asked: dict[str, str] = {}

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        asked.update({name: text for name, text in environ.items() if isinstance(text, str)})
        start_response("200 OK", [("Content-Length", "0")])
        return [b""]

    listener = listen("127.0.0.1", 0, "CARPARK_WRITER_PORT")
    with HttpServer(answer, listener, "127.0.0.1", "server") as server, client() as session:
        assert session.get(f"{server.url}/here", timeout=10).ok
    assert asked["PATH_INFO"] == "/here"
    assert "HTTP_AUTHORIZATION" not in asked


def test_every_request_of_ours_is_made_by_such_a_client() -> None:
    made = re.compile(r"requests\.(Session\(|get\(|post\(|put\(|delete\(|head\(|request\()|urlopen|HTTPS?Connection\(")
    found = [
        str(module.path.relative_to(ROOT))
        for module in modules(*PACKAGES)
        if made.search(module.path.read_text(encoding="utf-8"))
    ]
    assert found == ["carpark/web/ports.py"]
