"""The page of an embedded run: the numbers of all services, under the names that they have as processes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from carpark.embedded.system import Embedded
from carpark.errors import PortTaken
from carpark.ops.doctor.findings import ok
from carpark.ops.doctor.local import check_ports
from carpark.services import SERVICES
from carpark.settings import Settings
from generators.build import Plan
from tests.support.helpers import is_listening
from tests.support.scraping import Page


def run(settings: Settings, events: int) -> tuple[Page, Page, dict[str, int]]:
    """Run to the end; give the page, the writer's page and the closing table."""
    with Embedded(settings, Plan(events=events, seed="7")) as park:
        park.run(threading.Event())
        assert park.finish(threading.Event())
        assert park.writer
        pages = Page.get(park.metrics.url), Page.get(f"{park.writer.url}/metrics")
        report = park.report().to_dict()
    assert not is_listening(park.metrics.port)
    return *pages, {name: int(value) for name, value in report.items()}


def test_one_page_shows_every_service_and_says_what_the_closing_table_says(
    make_settings: Callable[..., Settings],
) -> None:
    page, own, report = run(make_settings(rate=500), 100)
    published = {kind: page.total(f"vehicle_{kind}_events_total", outcome="published") for kind in ("entry", "exit")}
    assert published == {"entry": 100, "exit": 100}
    assert sum(published.values()) == report["published"] == page.events_worked_on
    assert page.total("vehicle_exit_events_total", plate="matched") == report["matched"] == 80
    assert page.total("go_backend_summaries_total", outcome="delivered") == report["summaries"] == 80
    assert page.total("web_backend_summaries_total", outcome="written") == 80
    assert page.total("go_backend_vehicles_inside") == report["inside"]
    assert page.total("go_backend_event_latency_seconds_count") == 200
    assert page.total("queue_configurator_declarations_total", outcome="declared") == 3
    assert page.total("queue_configurator_queue_consumers", queue="vehicle_exit") == 1
    assert page.total("queue_configurator_queue_messages") == 0
    assert "\nprocess_resident_memory_bytes" in page.text
    assert "_created" not in page.text
    assert {family.name.split("_")[0] for family in own.families()} == {"web"}


def test_a_second_run_in_the_same_process_begins_at_zero(make_settings: Callable[..., Settings]) -> None:
    for events in (10, 20):
        page, _, report = run(make_settings(rate=500), events)
        assert page.events_worked_on == report["published"] == 2 * events


def test_a_port_that_is_taken_is_an_error_and_leaves_the_writer_s_port_free(
    make_settings: Callable[..., Settings], free_port: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = make_settings(writer_port=free_port, metrics_port=taken.getsockname()[1])
        with pytest.raises(PortTaken, match="CARPARK_METRICS_PORT"):
            Embedded(settings, Plan())
    assert not is_listening(free_port)


def test_without_the_writer_there_is_nothing_of_it_on_the_page(
    make_settings: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARPARK_SINK_JSONL", str(tmp_path / "stays.jsonl"))
    with Embedded(make_settings(sinks="jsonl"), Plan(events=0)) as park:
        text = requests.get(park.metrics.url, timeout=10).text
    assert "web_backend" not in text
    assert 'go_backend_summaries_total{outcome="delivered",sink="jsonl"} 0.0' in text


def test_the_doctor_knows_the_page_of_a_run(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Embedded(make_settings(), Plan(events=0)) as park:
        port = park.metrics.port
        monkeypatch.setattr("carpark.ops.doctor.local.ON_METRICS_PORT", [replace(SERVICES["run"], port=port)])
        finding = check_ports(make_settings(metrics_port=""))[2]
    assert finding == ok(f"port {port}", "held by the embedded run, which runs")
