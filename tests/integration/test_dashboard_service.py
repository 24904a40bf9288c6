"""`carpark dashboard` as a service, and the dashboard of `carpark run`."""

from __future__ import annotations

import re
import signal
import socket

import pytest
import requests

from tests.support.dashboard_service import start_dashboard
from tests.support.helpers import is_listening
from tests.support.processes import Processes

FREE = {f"CARPARK_{name}_PORT": "0" for name in ("WRITER", "METRICS", "DASHBOARD")}


@pytest.fixture
def nowhere(free_port: int) -> dict[str, str]:
    """Settings that lead to no server."""
    return {
        "CARPARK_BROKER_URL": f"amqp://127.0.0.1:{free_port}",
        "CARPARK_REDIS_URL": f"redis://127.0.0.1:{free_port}",
    }


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_is_waits_for_its_servers_and_ends_with_status_0(
    processes: Processes, nowhere: dict[str, str], number: signal.Signals
) -> None:
    process, url = start_dashboard(processes, nowhere)
    with requests.Session() as session:
        session.trust_env = False
        for path, setting in (("/", "CARPARK_MANAGEMENT_URL"), ("/carpark", "CARPARK_REDIS_URL")):
            answer = session.get(url + path, timeout=30)
            assert answer.status_code == 503
            assert "connection refused" in answer.text.lower()
            assert f" in {setting}<" in answer.text
    process.signal(number)
    assert process.wait() == 0
    assert process.output.count("\n") == 1


def test_it_refuses_to_be_open_to_others_without_a_password(processes: Processes, nowhere: dict[str, str]) -> None:
    process = processes.start(["carpark", "dashboard", "--bind", "0.0.0.0", "--port", "0"], env=nowhere)
    assert process.wait() == 2
    assert process.output.startswith("carpark: CARPARK_DASHBOARD_LOGIN='': wanted user:password, because ")
    assert process.output.count("\n") == 1


def test_a_run_shows_its_dashboard_as_long_as_it_lasts(processes: Processes, tmp_path: object) -> None:
    run = processes.start(["carpark", "run", "--csv", f"{tmp_path}/stays.csv"], env=FREE)
    url = run.wait_for_line(r"^dashboard at (http://\S+)$", 60)[1]
    with requests.Session() as session:
        session.trust_env = False
        assert "in-process broker" in session.get(url, timeout=30).text
        writer = re.search(r'href="([^"]*)">Writer&nbsp;', session.get(f"{url}/carpark", timeout=30).text)
        assert writer
        assert f'href="{url}/">Dashboard<' in session.get(writer[1], timeout=30).text
    run.signal(signal.SIGTERM)
    assert run.wait(60) == 0
    assert not is_listening(int(url.rpartition(":")[2]))


def test_a_run_goes_on_without_a_dashboard_and_says_why(processes: Processes, tmp_path: object) -> None:
    command = ["carpark", "run", "--csv", f"{tmp_path}/stays.csv", "--events", "5", "--rate", "100"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = processes.start(command, env={**FREE, "CARPARK_DASHBOARD_PORT": str(port)})
        assert run.wait(60) == 0
    assert f"no dashboard: CARPARK_DASHBOARD_PORT: 127.0.0.1:{port} is already in use" in run.output
