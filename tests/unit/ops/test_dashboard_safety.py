"""Who may see the dashboard, from where, and what its pages allow a browser to do."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import requests

from carpark.errors import InvalidSetting, PortTaken
from carpark.ops.dashboard import DashboardServer, make_app, mount_dashboard
from carpark.ops.dashboard.safety import guarded
from carpark.ops.dashboard.server import links_of
from carpark.ops.dashboard.stub import StubInterface
from carpark.settings import Settings
from tests.support.dashboards import Pages, broker_with
from tests.support.helpers import eventually
from tests.support.slow import SlowClients

MakeSettings = Callable[..., Settings]
LOGIN = "me:a secret:"


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


@pytest.mark.parametrize("bind", ["0.0.0.0", "::", "192.0.2.1"])
def test_it_does_not_start_for_other_machines_without_a_password(make_settings: MakeSettings, bind: str) -> None:
    settings = make_settings(bind=bind)
    with pytest.raises(
        InvalidSetting, match=r"CARPARK_DASHBOARD_LOGIN='': wanted user:password, because CARPARK_BIND="
    ):
        DashboardServer(settings, StubInterface(broker_with()))


def test_it_asks_for_the_password(make_settings: MakeSettings, session: requests.Session) -> None:
    settings = make_settings(bind="0.0.0.0", dashboard_login=LOGIN)
    with DashboardServer(settings, StubInterface(broker_with())) as server:
        url = f"http://127.0.0.1:{server.port}/"
        for auth in (None, ("me", "wrong"), ("me", ""), ("", "a secret:")):
            answer = session.get(url, auth=auth, timeout=10)
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"].startswith("Basic ")
            assert "vehicle_entry" not in answer.text
        for header in ("Basic", "Basic !", "Bearer " + base64.b64encode(LOGIN.encode()).decode(), "Basic ä"):
            assert session.get(url, headers={"Authorization": header.encode()}, timeout=10).status_code == 401
        assert session.get(url, auth=("me", "a secret:"), headers={"Host": "park.test"}, timeout=10).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(("localhost", 200), ("127.0.0.1:40001", 200), ("[::1]:40001", 200), ("LOCALHOST:1", 200)),
        *(("evil.test", 403), ("localhost.evil.test", 403), ("127.0.0.1.evil.test", 403), ("[", 403), ("0.0.0.0", 403)),
    ],
)
def test_a_site_whose_name_was_made_to_lead_here_is_turned_away(
    make_settings: MakeSettings, session: requests.Session, host: str, status: int
) -> None:
    with DashboardServer(make_settings(), StubInterface(broker_with())) as server:
        assert session.get(server.url, headers={"Host": host}, timeout=10).status_code == status


@pytest.mark.parametrize(
    "origin",
    [
        *("http://evil.test", "https://localhost.evil.test", "http://localhost:8000", "http://127.0.0.1", "null", ""),
        "localhost",
    ],
)
def test_a_form_of_another_sites_page_is_refused_with_the_right_token_too(
    make_settings: MakeSettings, origin: str
) -> None:
    broker = broker_with(b"one", b"two")
    app = guarded(make_app(make_settings(), StubInterface(broker)), "", local=True)
    form = {"queue": "vehicle_entry.XQ", "count": 2, "id": "x", "body": "y"}
    pages = Pages(app)
    for path in ("/requeue-all", "/delete-all", "/requeue-message", "/send-message", "/nope"):
        answer = pages.post(path, form, Origin=origin)
        assert answer.status_code == 403, path
        assert "other sites" in answer.text
        assert "Host" in answer.text, "who has a proxy is told what it has to do"
        assert len(broker.dead["vehicle_entry"]) == 2


@pytest.mark.parametrize("headers", [{}, {"Origin": "http://localhost"}, {"Origin": "https://LOCALHOST"}])
def test_a_form_of_its_own_page_or_of_no_page_is_taken(make_settings: MakeSettings, headers: dict[str, str]) -> None:
    broker = broker_with(b"one", b"two")
    app = guarded(make_app(make_settings(), StubInterface(broker)), "", local=True)
    assert Pages(app).post("/delete-all", {"queue": "vehicle_entry.XQ", "count": 2}, **headers).status_code == 302
    assert broker.dead["vehicle_entry"] == []


def test_mounted_elsewhere_it_refuses_forms_of_other_sites_too(make_settings: MakeSettings) -> None:
    broker = broker_with(b"one")
    app = mount_dashboard(lambda environ, start: [], make_settings(), "/dashboard", StubInterface(broker))
    form = {"queue": "vehicle_entry.XQ", "count": 1}
    assert Pages(app, "/dashboard").post("/delete-all", form, Origin="http://evil.test").status_code == 403
    assert Pages(app, "/dashboard").post("/delete-all", form, Origin="http://localhost").status_code == 302
    assert broker.dead["vehicle_entry"] == []


def test_pages_let_browsers_name_them_as_the_origin_of_their_forms(make_settings: MakeSettings) -> None:
    """A page without a referrer has none: its own forms would be refused."""
    app = guarded(make_app(make_settings(), StubInterface(broker_with())), "", local=True)
    assert Pages(app).get("/").headers["Referrer-Policy"] == "same-origin"


def test_a_form_without_the_login_is_not_even_read_and_none_is_that_is_too_long(make_settings: MakeSettings) -> None:
    with DashboardServer(make_settings(dashboard_login=LOGIN), StubInterface(broker_with())) as server:
        login = f"Authorization: Basic {base64.b64encode(LOGIN.encode()).decode()}\r\n".encode()
        head = b"POST /delete-all HTTP/1.1\r\nHost: localhost\r\n"
        for more, status in ((b"Content-Length: 1000000", 401), (login + b"Content-Length: 1048577", 400)):
            with SlowClients(server.port, 5, head + more + b"\r\n\r\n" + b"x" * 100_000) as clients:
                eventually(lambda clients=clients: clients.open == 0)  # type: ignore[misc]
                assert {answer.split()[1] for answer in clients.answers.values()} == {str(status).encode()}
        with SlowClients(server.port, 150, head, b"X: y\r\n"), requests.Session() as session:
            session.trust_env = False
            assert session.get(f"{server.url}/style.css", auth=("me", "a secret:"), timeout=20).ok


def test_pages_run_no_script_and_stand_in_no_frame(make_settings: MakeSettings, session: requests.Session) -> None:
    with DashboardServer(make_settings(), StubInterface(broker_with())) as server:
        for path in ("/", "/queues/vehicle_entry/failed", "/nope"):
            answer = session.get(server.url + path, timeout=10)
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'self'")
            assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
            assert answer.headers["Cache-Control"] == "no-store"
        cookie = session.get(f"{server.url}/queues/vehicle_entry", timeout=10).headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert cookie.endswith("SameSite=Strict")
        assert session.get(f"{server.url}/style.css", timeout=10).headers["Cache-Control"] == "max-age=60"


def test_a_taken_port_names_the_setting(make_settings: MakeSettings) -> None:
    with DashboardServer(make_settings(), StubInterface(broker_with())) as server:
        taken = make_settings(dashboard_port=server.port)
        with pytest.raises(PortTaken, match="CARPARK_DASHBOARD_PORT"):
            DashboardServer(taken, StubInterface(broker_with()))


def test_it_links_to_what_a_browser_here_can_reach(make_settings: MakeSettings) -> None:
    near = make_settings(management_url="http://me:secret@localhost:15672", writer_url="http://127.0.0.1:40000")
    assert links_of(near) == [("RabbitMQ", "http://localhost:15672"), ("Writer", "http://127.0.0.1:40000")]
    far = make_settings(management_url="http://me:secret@rabbitmq:15672", writer_url="http://writer:40000")
    assert links_of(far) == []
    said = make_settings(dashboard_links="Grafana=http://there:3000/d?a=b,Us=https://us")
    assert links_of(said) == [("Grafana", "http://there:3000/d?a=b"), ("Us", "https://us")]


def test_without_the_package_the_command_says_how_to_get_it_and_dlq_works() -> None:
    script = (
        "import sys; sys.modules['dramatiq_dashboard'] = None; sys.argv[0] = 'carpark'; "
        "from carpark.cli import main; main()"
    )
    command = [sys.executable, "-c", script]
    ended = subprocess.run([*command, "dashboard", "--port", "0"], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith(
        "carpark: the dashboard needs dramatiq-dashboard, which is not installed: pip install"
    )
    assert ended.stderr.count("\n") == 1
    ended = subprocess.run([*command, "dlq", "list", "--help"], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
