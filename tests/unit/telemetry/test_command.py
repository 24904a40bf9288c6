"""`carpark metrics` says where the pages are."""

from __future__ import annotations

import json
import socket

import pytest
from prometheus_client import CollectorRegistry, Counter

from carpark.telemetry.page import MetricsPage
from tests.support.processes import RunHere


@pytest.mark.parametrize("bind", ["127.0.0.1", "0.0.0.0"])
def test_it_asks_each_page_and_says_what_it_answers(run_here: RunHere, bind: str) -> None:
    registry = CollectorRegistry()
    Counter("one_total", "one", registry=registry)
    with socket.create_server(("127.0.0.1", 0)) as held:
        nobody = held.getsockname()[1]
    with MetricsPage(registry, "127.0.0.1", 0) as page:
        environ = {
            "CARPARK_BIND": bind,
            "CARPARK_METRICS_PORT": str(page.port),
            "CARPARK_WRITER_URL": f"http://127.0.0.1:{nobody}",
        }
        process = run_here(["metrics", "--json"], environ)
        shown = run_here(["metrics"], environ)
    assert (process.returncode, shown.returncode) == (0, 0)
    found = {each["service"]: each for each in json.loads(process.stdout)}
    assert found["backend"]["url"] == page.url
    assert found["backend"]["answers"]
    assert found["backend"]["said"].startswith("1 series in ")
    assert found["writer"] == {
        "service": "writer",
        "url": f"http://127.0.0.1:{nobody}/metrics",
        "answers": False,
        "said": "connection refused",
    }
    assert f"embedded run        {page.url}" in shown.stdout
    assert "deploy/prometheus/local.yml" in shown.stdout
