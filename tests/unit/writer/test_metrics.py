"""The writer's numbers for Prometheus."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from prometheus_client import CollectorRegistry
from werkzeug.test import TestResponse

from carpark.ledger import Ledger
from carpark.settings import Settings
from tests.support.summaries import posted
from writer.app import make_app


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "summaries.csv") as file:
        yield file


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def client(make_settings: Callable[..., Settings], file: Ledger, registry: CollectorRegistry) -> FlaskClient:
    return make_app(make_settings(), file, registry).test_client()


def post(client: FlaskClient, body: Any) -> TestResponse:
    if isinstance(body, bytes):
        return client.post("/summaries", data=body)
    return client.post("/summaries", json=body)


def value(registry: CollectorRegistry, name: str, **labels: str) -> float:
    return registry.get_sample_value(name, labels) or 0.0


def test_summaries_are_counted_by_outcome(client: FlaskClient, registry: CollectorRegistry) -> None:
    post(client, [posted("a"), posted("b"), posted("a")])
    post(client, [posted("c"), posted("d", duration=-1)])
    post(client, posted("e", duration=-1))
    post(client, b"not json")
    found = {
        outcome: value(registry, "web_backend_summaries_total", outcome=outcome)
        for outcome in ("written", "duplicate", "rejected")
    }
    assert found == {"written": 2, "duplicate": 1, "rejected": 3}


def test_requests_are_timed_by_endpoint_and_status_and_nothing_else(
    client: FlaskClient, registry: CollectorRegistry
) -> None:
    post(client, [posted("a")])
    post(client, b"")
    client.get("/summaries")
    client.get("/summaries?limit=0")
    client.get("/summaries.csv")
    client.get("/made/up?a=b")
    client.open("/summaries", method="BREW")
    text = client.get("/metrics").text
    found = set(re.findall(r'web_backend_request_seconds_count\{endpoint="([^"]*)",status="([^"]*)"\}', text))
    assert found == {
        ("POST /summaries", "201"),
        ("POST /summaries", "400"),
        ("GET /summaries", "200"),
        ("GET /summaries", "422"),
        ("GET /summaries.csv", "200"),
        ("other", "404"),
        ("other", "405"),
    }


def test_the_metrics_page_is_prometheus_text_of_the_registry_that_was_passed_in(client: FlaskClient) -> None:
    answer = client.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    assert 'web_backend_summaries_total{outcome="written"} 0.0' in answer.text
    assert "python_info" not in answer.text


def test_two_writers_in_one_process_do_not_share_metrics(make_settings: Callable[..., Settings], file: Ledger) -> None:
    first, second = (make_app(make_settings(), file).test_client() for _ in range(2))
    post(first, posted("a"))
    assert 'outcome="written"} 1.0' in first.get("/metrics").text
    assert 'outcome="written"} 0.0' in second.get("/metrics").text
