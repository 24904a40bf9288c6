"""The page of metrics of a service."""

import socket
import time

import pytest
import requests
from prometheus_client import CollectorRegistry, Counter

from carpark.errors import PortTaken
from carpark.telemetry.page import MetricsPage
from carpark.web.ports import listen
from tests.support.helpers import is_listening
from tests.support.slow import SlowClients


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("visits", "Visits", registry=registry).inc(3)
    return registry


def test_the_page_shows_the_registry_and_its_port_is_free_again_after_its_end(registry: CollectorRegistry) -> None:
    page = MetricsPage(registry, "127.0.0.1", 0).start()
    assert page.url == f"http://127.0.0.1:{page.port}/metrics"
    response = requests.get(page.url, timeout=5)
    assert "visits_total 3.0" in response.text
    assert response.headers["Server"] == "carpark"
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    page.stop()
    page.stop()
    assert not is_listening(page.port)
    MetricsPage(registry, "127.0.0.1", page.port).stop()


def test_a_page_on_a_taken_port_names_the_metrics_port(registry: CollectorRegistry) -> None:
    with listen("127.0.0.1", 0, "CARPARK_WRITER_PORT") as held, pytest.raises(PortTaken, match="CARPARK_METRICS_PORT"):
        MetricsPage(registry, "127.0.0.1", held.getsockname()[1])


@pytest.mark.parametrize("said", [b"", b"GET /metrics HT"], ids=["nothing", "half a request"])
@pytest.mark.slow
def test_a_client_that_goes_silent_holds_up_neither_the_page_nor_its_end(
    registry: CollectorRegistry, said: bytes
) -> None:
    page = MetricsPage(registry, "127.0.0.1", 0).start()
    with socket.create_connection(("127.0.0.1", page.port)) as client:
        client.sendall(said)
        assert requests.get(page.url, timeout=5).ok
        started = time.monotonic()
        page.stop()
        assert time.monotonic() - started < 2 * page.drain_seconds
    assert not is_listening(page.port)


@pytest.mark.parametrize("first", [b"", b"GET /metrics HTTP/1.1\r\n", b"POST / HTTP/1.1\r\nContent-Length: 99\r\n\r\n"])
@pytest.mark.slow
def test_more_slow_clients_than_it_has_connections_keep_the_page_from_nobody(
    registry: CollectorRegistry, first: bytes
) -> None:
    with MetricsPage(registry, "127.0.0.1", 0) as page, SlowClients(page.port, 180, first, b"X-A: b\r\n"):
        for _ in range(3):
            assert requests.get(page.url, timeout=5).ok
