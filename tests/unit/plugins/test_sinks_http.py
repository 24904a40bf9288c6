"""The sinks that post: what they send, what they make of answers, and what they never show."""

from __future__ import annotations

import base64
import hashlib
import hmac
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from carpark.errors import InvalidSetting, SinkUnavailable, SummaryRefused
from carpark.plugins import Plugins, Sink
from carpark.plugins.sinks.http import HttpSink
from carpark.testing import make_context, make_summaries, make_summary
from tests.support.endpoint import Endpoint, Request

PLUGINS = Plugins()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint(lambda request: 201)
    yield endpoint
    endpoint.close()


@pytest.fixture
def make() -> Iterator[Callable[..., Sink]]:
    made = []

    def make(name: str, **environ: str) -> Sink:
        given = {f"CARPARK_{key.upper()}": value for key, value in environ.items()}
        sink = PLUGINS.make_sinks(make_context({"CARPARK_SINKS": name, **given}))[name]
        made.append(sink)
        return sink

    yield make
    for sink in made:
        sink.close()


def test_the_writer_gets_one_list_with_the_token(endpoint: Endpoint, make: Callable[..., Sink]) -> None:
    summaries = make_summaries(3)
    make("http-csv", writer_url=endpoint.url + "/", writer_token="s3cret").deliver(summaries)
    [request] = endpoint.requests
    assert request.path == "/summaries"
    assert request.json == [summary.to_dict() for summary in summaries]
    assert request.headers["authorization"] == "Bearer s3cret"
    assert request.headers["content-type"] == "application/json"


def test_without_a_token_and_a_secret_no_such_header_is_sent(endpoint: Endpoint, make: Callable[..., Sink]) -> None:
    make("http-csv", writer_url=endpoint.url).deliver([make_summary()])
    make("webhook", webhook_url=endpoint.url).deliver([make_summary()])
    for request in endpoint.requests:
        assert not {"authorization", "x-carpark-signature"} & set(request.headers)


def test_a_webhook_goes_through_the_proxy_that_the_environment_names_and_the_writer_does_not(
    endpoint: Endpoint, make: Callable[..., Sink], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", endpoint.url)
    monkeypatch.delenv("no_proxy", raising=False)
    make("webhook", webhook_url="http://far.invalid/hook").deliver(make_summaries(2))
    assert [request.path for request in endpoint.requests] == ["http://far.invalid/hook"] * 2
    with pytest.raises(SinkUnavailable):
        make("http-csv", writer_url="http://far.invalid").deliver([make_summary()])
    monkeypatch.setenv("no_proxy", "far.invalid")
    with pytest.raises(SinkUnavailable):
        make("webhook", webhook_url="http://far.invalid/hook").deliver([make_summary()])
    assert len(endpoint.requests) == 2


@pytest.mark.parametrize("default", [False, True], ids=["machine", "default"])
def test_no_sink_sends_a_password_that_it_was_not_given(
    endpoint: Endpoint,
    make: Callable[..., Sink],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    default: bool,
) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text(("default" if default else "machine 127.0.0.1") + " login me password pssst\n", encoding="utf-8")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert requests.utils.get_netrc_auth(endpoint.url) == ("me", "pssst"), "so requests would find it"
    make("webhook", webhook_url=endpoint.url).deliver(make_summaries(2))
    make("http-csv", writer_url=endpoint.url).deliver([make_summary()])
    assert not any("authorization" in request.headers for request in endpoint.requests)
    make("http-csv", writer_url=endpoint.url, writer_token="ours").deliver([make_summary()])
    make("webhook", webhook_url=endpoint.url.replace("//", "//you:given@")).deliver([make_summary()])
    given = [request.headers["authorization"] for request in endpoint.requests[-2:]]
    assert given == ["Bearer ours", "Basic " + base64.b64encode(b"you:given").decode()]


@pytest.mark.parametrize("name", ["http-csv", "webhook"])
@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_certificates_that_the_environment_names_are_heeded_by_both(
    make: Callable[..., Sink], monkeypatch: pytest.MonkeyPatch, name: str, variable: str, free_port: int
) -> None:
    url = f"https://127.0.0.1:{free_port}"
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)  # the first of the two counts
    monkeypatch.setenv(variable, "/nowhere/ca.pem")
    with pytest.raises(SinkUnavailable, match=r"/nowhere/ca\.pem"):
        make(name, writer_url=url, webhook_url=url).deliver([make_summary()])


def test_a_webhook_gets_an_object_per_summary_with_its_id_as_key(endpoint: Endpoint, make: Callable[..., Sink]) -> None:
    summaries = [make_summary("exit-1"), make_summary("50% Zoë"), make_summary('a"b,c')]
    make("webhook", webhook_url=endpoint.url + "/hook?token=t").deliver(summaries)
    posted = sorted(endpoint.requests, key=lambda request: ["exit-1", "50% Zoë", 'a"b,c'].index(request.json["id"]))
    assert [request.json for request in posted] == [summary.to_dict() for summary in summaries]
    assert {request.path for request in endpoint.requests} == {"/hook?token=t"}
    keys = [request.headers["idempotency-key"] for request in posted]
    assert keys == ["exit-1", "50%25%20Zo%C3%AB", 'a"b,c']


def test_the_key_of_a_list_is_the_same_when_it_is_sent_again(endpoint: Endpoint, make: Callable[..., Sink]) -> None:
    one, other = make_summaries(2)
    sink = make("http-csv", writer_url=endpoint.url)
    for summaries in ([one, other], [one, other], [other, one]):
        sink.deliver(summaries)
    first, again, turned = [request.headers["idempotency-key"] for request in endpoint.requests]
    assert first == again != turned


def test_a_webhook_with_a_secret_is_signed(endpoint: Endpoint, make: Callable[..., Sink]) -> None:
    make("webhook", webhook_url=endpoint.url, webhook_secret="pssst").deliver([make_summary(plate="ÄÖ1")])
    [request] = endpoint.requests
    signature = hmac.new(b"pssst", request.body, hashlib.sha256).hexdigest()
    assert request.headers["x-carpark-signature"] == f"sha256={signature}"


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_any_2xx_counts_as_kept(endpoint: Endpoint, make: Callable[..., Sink], status: int) -> None:
    endpoint.answer = lambda request: status
    make("http-csv", writer_url=endpoint.url).deliver([make_summary()])
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_summary_that_is_refused_is_refused_for_good(
    endpoint: Endpoint, make: Callable[..., Sink], status: int
) -> None:
    endpoint.answer = lambda request: (status, '{"error":\n "no such plate"}')
    with pytest.raises(SummaryRefused) as caught:
        make("http-csv", writer_url=endpoint.url).deliver([make_summary("exit-1")])
    assert caught.value.ids == ("exit-1",)
    assert str(caught.value) == f'{endpoint.url} answered {status}: {{"error": "no such plate"}}'


# What an operator can mend (an address, a token, a server, an overload) must not condemn a summary.
@pytest.mark.parametrize(
    "status", [301, 302, 307, 401, 403, 404, 405, 408, 409, 410, 415, 425, 429, 500, 502, 503, 507]
)
def test_what_can_be_mended_is_tried_again(endpoint: Endpoint, make: Callable[..., Sink], status: int) -> None:
    endpoint.answer = lambda request: status
    endpoint.headers = {"Location": endpoint.url + "/elsewhere"}
    with pytest.raises(SinkUnavailable, match=f"answered {status}"):
        make("http-csv", writer_url=endpoint.url).deliver(make_summaries(3))
    assert len(endpoint.requests) == 1


def test_a_list_with_bad_summaries_is_split_until_the_good_ones_are_kept(
    endpoint: Endpoint, make: Callable[..., Sink]
) -> None:
    summaries = make_summaries(100)
    bad = {summaries[17].id, summaries[18].id, summaries[99].id}
    kept: list[str] = []

    def answer(request: Request) -> int:
        ids = [summary["id"] for summary in request.json]
        if bad & set(ids):
            return 422
        kept.extend(ids)
        return 201

    endpoint.answer = answer
    with pytest.raises(SummaryRefused) as caught:
        make("http-csv", writer_url=endpoint.url).deliver(summaries)
    assert set(caught.value.ids) == bad
    assert len(caught.value.ids) == 3
    assert sorted(kept) == sorted(summary.id for summary in summaries if summary.id not in bad)
    assert len(endpoint.requests) < 50


def test_a_list_that_is_too_long_for_the_server_goes_in_parts(endpoint: Endpoint, make: Callable[..., Sink]) -> None:
    endpoint.answer = lambda request: 413 if len(request.json) > 10 else 201
    make("http-csv", writer_url=endpoint.url).deliver(make_summaries(100))
    assert sum(len(request.json) for request in endpoint.requests if len(request.json) <= 10) == 100


def test_a_webhook_that_refuses_one_gets_the_others(endpoint: Endpoint, make: Callable[..., Sink]) -> None:
    summaries = make_summaries(5)
    endpoint.answer = lambda request: 422 if request.json["id"] == summaries[2].id else 200
    with pytest.raises(SummaryRefused) as caught:
        make("webhook", webhook_url=endpoint.url).deliver(summaries)
    assert caught.value.ids == (summaries[2].id,)
    assert len(endpoint.requests) == 5


def test_a_server_that_fails_while_a_list_is_split_makes_the_whole_list_wait(
    endpoint: Endpoint, make: Callable[..., Sink]
) -> None:
    endpoint.answer = lambda request: 422 if len(endpoint.requests) < 3 else 503
    with pytest.raises(SinkUnavailable):
        make("http-csv", writer_url=endpoint.url).deliver(make_summaries(8))


def test_a_server_that_is_not_there_is_waited_for(free_port: int, make: Callable[..., Sink]) -> None:
    with pytest.raises(SinkUnavailable, match=f"http://127.0.0.1:{free_port}: connection refused"):
        make("http-csv", writer_url=f"http://127.0.0.1:{free_port}").deliver([make_summary()])


def test_a_server_that_hangs_is_left_in_time(make: Callable[..., Sink]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sink = make("http-csv", writer_url=f"http://127.0.0.1:{silent.getsockname()[1]}", sink_timeout="0.2")
        start = time.monotonic()
        with pytest.raises(SinkUnavailable, match="no answer in time"):
            sink.deliver([make_summary()])
        assert time.monotonic() - start < 3


def test_an_answer_that_drips_for_ever_is_not_read_for_ever(make: Callable[..., Sink]) -> None:
    ended = threading.Event()

    def drip(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 422 No\r\nContent-Length: 1000000000\r\n\r\n")
            while not ended.wait(0.02):
                try:
                    connection.sendall(b"x" * 4096)
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=(server,))
        thread.start()
        try:
            sink = make("http-csv", writer_url=f"http://127.0.0.1:{server.getsockname()[1]}", sink_timeout="1")
            start = time.monotonic()
            with pytest.raises(SummaryRefused):
                sink.deliver([make_summary()])
            assert time.monotonic() - start < 10
        finally:
            ended.set()
            thread.join()


def test_no_error_shows_a_password_or_the_path_of_a_url(free_port: int) -> None:
    sink = HttpSink(f"http://user:s3cret@127.0.0.1:{free_port}/services/T0KEN?key=s3cret", 1)
    with pytest.raises(SinkUnavailable) as caught:
        sink.deliver([make_summary()])
    assert "s3cret" not in str(caught.value)
    assert "T0KEN" not in str(caught.value)


def test_connections_are_kept_and_reused(endpoint: Endpoint, make: Callable[..., Sink]) -> None:
    peers: set[str] = set()
    connected = endpoint._server.process_request

    def count(request: socket.socket, address: tuple[str, int]) -> None:
        peers.add(str(address))
        connected(request, address)

    endpoint._server.process_request = count  # type: ignore[method-assign,assignment]
    endpoint.answer = lambda request: (201, '{"written": 1, "duplicates": 0}')
    sink = make("http-csv", writer_url=endpoint.url)
    for summary in make_summaries(20):
        sink.deliver([summary])
    assert len(peers) == 1


def test_a_sink_that_was_closed_opens_again_when_it_is_used(endpoint: Endpoint, make: Callable[..., Sink]) -> None:
    sink = make("http-csv", writer_url=endpoint.url)
    sink.deliver([make_summary()])
    sink.close()
    sink.deliver([make_summary()])
    assert len(endpoint.requests) == 2


def test_a_webhook_in_use_without_its_url_is_an_error_that_says_so() -> None:
    with pytest.raises(InvalidSetting, match=r"CARPARK_WEBHOOK_URL.*because CARPARK_SINKS names webhook"):
        PLUGINS.make_sinks(make_context({"CARPARK_SINKS": "webhook"}))
