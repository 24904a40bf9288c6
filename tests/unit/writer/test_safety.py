"""What the writer refuses that a page of another site made a browser send."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from carpark.ledger import Ledger
from carpark.plugins import PluginContext, Plugins
from carpark.plugins.sinks.http import HttpSink
from carpark.settings import Settings
from carpark.web.ports import names_loopback
from tests.support.summaries import HEADER, ids_in, posted, stay
from writer.app import make_app
from writer.server import WriterServer

MakeSettings = Callable[..., Settings]
READ = ["/", "/summaries", "/summaries.csv", "/healthz", "/metrics"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "summaries.csv"


@pytest.fixture
def client(make_settings: MakeSettings, path: Path) -> Iterator[Callable[..., FlaskClient]]:
    """Make the client of a writer with such settings."""
    with Ledger(path) as file:
        yield lambda **changes: make_app(make_settings(**changes), file).test_client()


def refused(answer: TestResponse) -> str:
    """Check that an answer is the writer's 403, and give its text."""
    assert (answer.status_code, answer.mimetype) == (403, "application/json")
    body = answer.get_json()
    assert list(body) == ["error", "index", "field"]
    assert (body["index"], body["field"]) == (None, None)
    text: str = body["error"]
    return text


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://evil.test", "localhost:40000"),
        ("https://localhost.evil.test:40000", "localhost:40000"),
        ("http://localhost:8000", "localhost:40000"),
        ("http://localhost", "localhost:40000"),
        ("http://127.0.0.1:40000", "localhost:40000"),
        ("null", "localhost:40000"),
        ("", "localhost:40000"),
        ("localhost:40000", "localhost:40000"),
    ],
)
@pytest.mark.parametrize("token", ["", "s3cret"])
def test_a_post_of_another_sites_page_is_403(
    client: Callable[..., FlaskClient], path: Path, origin: str, host: str, token: str
) -> None:
    # What a browser sends without asking first: mode no-cors, any text as the body.
    headers = {"Origin": origin, "Host": host, "Content-Type": "text/plain", "Authorization": f"Bearer {token}"}
    answer = client(writer_token=token).post("/summaries", json=posted("a"), headers=headers)
    assert "other sites" in refused(answer)
    assert path.read_bytes() == HEADER


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (None, "localhost:40000"),
        ("http://localhost:40000", "localhost:40000"),
        ("http://[::1]:40000", "[::1]:40000"),
        ("http://127.0.0.1", "127.0.0.1"),
        ("http://LOCALHOST:40000", "localhost:40000"),
    ],
)
def test_a_post_of_its_own_page_or_of_no_page_is_taken(
    client: Callable[..., FlaskClient], path: Path, origin: str | None, host: str
) -> None:
    headers = {"Host": host} if origin is None else {"Host": host, "Origin": origin}
    assert client().post("/summaries", json=posted("a"), headers=headers).status_code == 201
    assert ids_in(path) == ["a"]


@pytest.mark.parametrize(
    "host", ["evil.test", "evil.test:40000", "localhost.evil.test", "127.0.0.1.evil.test", "", "["]
)
@pytest.mark.parametrize("bind", ["127.0.0.1", "::1", "localhost"])
def test_a_site_whose_name_was_made_to_lead_here_reads_nothing_and_writes_nothing(
    client: Callable[..., FlaskClient], path: Path, host: str, bind: str
) -> None:
    one = client(bind=bind)
    for address in [*READ, "/nothing"]:
        assert "CARPARK_WRITER_TOKEN" in refused(one.get(address, headers={"Host": host}))
    headers = {"Host": host, "Origin": f"http://{host}"}
    refused(one.post("/summaries", json=posted("a"), headers=headers))
    assert path.read_bytes() == HEADER


@pytest.mark.parametrize(
    "changes", [{"writer_token": "s3cret"}, {"bind": "0.0.0.0"}, {"bind": "::"}, {"bind": "192.0.2.1"}]
)
def test_with_a_token_or_for_other_machines_any_name_will_do(
    client: Callable[..., FlaskClient], changes: dict[str, str]
) -> None:
    one = client(**{"dashboard_login": "me:pw", **changes})
    for address in READ:
        answer = one.get(address, headers={"Host": "stays.example.org"}, auth=("me", "pw"))
        assert answer.status_code == 200
    headers = {"Host": "stays.example.org", "Origin": "https://stays.example.org", "Authorization": "Bearer s3cret"}
    assert one.post("/summaries", json=[], headers=headers).status_code == 201


PLATES = ["/", "/?span=6h", "/summaries", "/summaries?limit=1", "/summaries.csv", "/nothing"]
LOGIN, TOKEN = "me:a pass:word", "s3cret"


def asked(one: FlaskClient, address: str, **given: Any) -> int:
    return one.get(address, headers={"Host": "stays.example.org", **given.pop("headers", {})}, **given).status_code


@pytest.mark.parametrize("bind", ["0.0.0.0", "::", "192.0.2.1"])
def test_for_other_machines_plates_want_the_login_or_the_token(client: Callable[..., FlaskClient], bind: str) -> None:
    one = client(bind=bind, dashboard_login=LOGIN, writer_token=TOKEN)
    for address in PLATES:
        for wrong in ({}, {"auth": ("me", "wrong")}, {"auth": ("", "")}, {"headers": {"Authorization": "Bearer x"}}):
            answer = one.get(address, **wrong)
            assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Basic realm="carpark writer"')
            assert list(answer.get_json()) == ["error", "index", "field"]
        right = 404 if address == "/nothing" else 200
        assert asked(one, address, auth=("me", "a pass:word")) == right
        assert asked(one, address, headers={"Authorization": f"Bearer {TOKEN}"}) == right
    assert one.head("/summaries.csv").status_code == 401
    assert [asked(one, address) for address in ("/healthz", "/metrics")] == [200, 200]
    assert one.post("/summaries", json=[], auth=("me", "a pass:word")).status_code == 401, "who reads may not write"


def test_for_other_machines_one_of_the_two_is_enough_and_none_shows_nobody_anything(
    client: Callable[..., FlaskClient],
) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert asked(client(bind="0.0.0.0", dashboard_login=LOGIN), "/", auth=("me", "a pass:word")) == 200
    assert asked(client(bind="0.0.0.0", dashboard_login=LOGIN), "/", headers={"Authorization": "Bearer "}) == 401
    assert asked(client(bind="0.0.0.0", writer_token=TOKEN), "/", headers=bearer) == 200
    assert asked(client(bind="0.0.0.0", writer_token=TOKEN), "/", auth=("", "")) == 401
    assert asked(client(bind="0.0.0.0"), "/", auth=("", "")) == 401


def test_on_this_machine_plates_want_the_login_only_where_there_is_one(client: Callable[..., FlaskClient]) -> None:
    local = {"headers": {"Host": "localhost:40000"}}
    assert asked(client(), "/", **local) == 200
    assert asked(client(writer_token=TOKEN), "/", **local) == 200
    assert asked(client(dashboard_login=LOGIN), "/summaries.csv", **local) == 401
    assert asked(client(dashboard_login=LOGIN), "/summaries.csv", auth=("me", "a pass:word"), **local) == 200


@pytest.mark.parametrize(
    ("host", "link"),
    [
        *(("localhost:40000", "http://localhost:40123/"), ("[::1]:40000", "http://[::1]:40123/")),
        *(("127.0.0.1", "http://127.0.0.1:40123/"), ("localhost:40000", "")),
    ],
)
def test_the_page_links_to_the_dashboard_by_the_name_that_it_was_asked_by(
    client: Callable[..., FlaskClient], host: str, link: str
) -> None:
    page = client(dashboard_port=40123 if link else 0).get("/", headers={"Host": host}).text
    assert (f'<a href="{link}">Dashboard</a>' in page) == bool(link)
    assert ("Dashboard" in page) == bool(link)


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        *(
            ("localhost", True),
            ("LOCALHOST:1", True),
            ("127.0.0.1:40000", True),
            ("127.1.2.3", True),
            ("[::1]:1", True),
        ),
        *(("0.0.0.0", False), ("", False), ("[", False), ("localhost.evil.test", False), ("me@localhost:x", True)),
    ],
)
def test_a_name_of_this_machine_for_itself_is_told_from_others(host: str, is_local: bool) -> None:
    assert names_loopback(host) == is_local


def test_the_sink_and_the_doctor_get_through_and_are_told_why_when_they_do_not(
    make_settings: MakeSettings, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with WriterServer(make_settings(csv=path)) as server:
        look = Plugins().sinks["http-csv"].offer.check
        assert look
        HttpSink(f"{server.url}/summaries", 10).deliver([stay("a")])
        (finding,) = look(PluginContext(make_settings(writer_url=server.url)))
        assert "takes summaries" in finding.found
        monkeypatch.setattr("writer.app.names_loopback", lambda header: False)
        (finding,) = look(PluginContext(make_settings(writer_url=server.url)))
        assert "for localhost only" in finding.found
    assert ids_in(path) == ["a"]
