"""A real Prometheus with the files of deploy/prometheus: every graph has data, every alert fires and goes away."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pika
import pytest
import redis

from carpark.embedded.system import Embedded
from carpark.settings import Settings
from generators.build import Plan
from generators.wire import message_body
from tests.support.helpers import eventually
from tests.support.metrics_docs import Row, documented
from tests.support.processes import Process, Processes
from tests.support.prometheus import PrometheusServer
from tests.support.scraping import Page
from tests.support.stays import entered, exited
from tests.support.stores import undelivered
from tests.support.system import RULES, System, config_for, queries, quickened, read_yaml, rules

RATE = "20"
LABEL = re.compile(r"[a-z_-]+(\.DQ)?|(GET|POST) /[a-z.]*|other|\d{3}|[\d.]+|\+Inf")
"""What labels may hold: words of the system, endpoints and statuses, bounds of buckets."""

TOLD = re.compile(r"([\w:]+) (?:[<>]|==) [\d.]+")


@pytest.fixture
def system(processes: Processes, server_environ: dict[str, str], tmp_path: Path) -> System:
    (tmp_path / "tmp").mkdir()
    retries = {"CARPARK_SINK_RETRY_MIN": "0.5", "CARPARK_SINK_RETRY_MAX": "2"}
    return System(processes, {**server_environ, **retries, "TMPDIR": str(tmp_path / "tmp"), "CARPARK_RATE": RATE})


@pytest.fixture
def start_prometheus() -> Iterator[Callable[..., PrometheusServer]]:
    """Start a Prometheus with the quickened rules that looks at the services on these ports."""
    started: list[PrometheusServer] = []

    def start(**ports: int) -> PrometheusServer:
        server = PrometheusServer(config_for(ports), quickened(read_yaml(RULES)))
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.close()


def numbers(prometheus: PrometheusServer, expression: str) -> list[float]:
    """Give the numbers of an answer that are numbers."""
    values = [float(series["value"][1]) for series in prometheus.query(expression)]
    return [value for value in values if not math.isnan(value)]


def without_data(prometheus: PrometheusServer, *, but: str = "$") -> list[str]:
    """Ask all queries of all panels, all recorded series, and the left side of each alert."""
    asked = dict(queries())
    assert asked
    for rule in rules():
        if "record" in rule:
            asked[f"rule {rule['record']}"] = quickened(rule["expr"])
            asked[f"record {rule['record']}"] = rule["record"]
        else:
            compared = TOLD.fullmatch(rule["expr"])
            assert compared
            asked[f"alert {rule['alert']}"] = compared[1]
    return [name for name, expression in queries() + list(asked.items())
            if not re.match(but, name) and not numbers(prometheus, expression)]  # fmt: skip


def shown_by(pages: dict[str, Page]) -> dict[str, Row]:
    """Read what live pages show, as docs/reference/metrics.md would have it; units are in the names."""
    found: dict[str, Row] = {}
    for page in pages.values():
        for family in page.families():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            unit = re.search(r"_(seconds|milliseconds)(_total)?$", name)
            labels = frozenset(label for sample in family.samples for label in sample.labels) - {"le"}
            found[name] = Row(family.type, labels, unit[1] if unit else documented()[name].unit)
    return found


def series_of(system: System) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    """List the series of all pages; none of their labels is of a plate, an id or a URL."""
    found = {key for name in system.ports for key in Page.get(system.url(name)).series()}
    assert [value for _, labels in found for _, value in labels if not LABEL.fullmatch(value)] == []
    # Some of these are missing while RabbitMQ is too busy to say.
    return {(name, labels) for name, labels in found if name != "queue_configurator_queue_messages"}


def fires(prometheus: PrometheusServer, alert: str, **labels: str) -> bool:
    firing = prometheus.alerts().get(alert, [])
    return any(labels.items() <= given.items() for given in firing)


def soon(predicate: Callable[[], object], timeout: float = 120) -> None:
    """Ask Prometheus now and then; asking all the time would take the time that the system needs."""
    eventually(predicate, timeout, interval=0.5)


def silent(prometheus: PrometheusServer) -> bool:
    alerts = prometheus.alerts()
    assert alerts == {}
    return True


class Stalled:
    """A backend that gets no time now and then: its worker processes are stopped and go on, until the end.

    Args:
        backend: Dramatiq's master.
    """

    def __init__(self, backend: Process) -> None:
        *self._workers, _ = children(backend.pid)  # the last one shows the page
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._over.is_set():
            for number, seconds in ((signal.SIGSTOP, 3.0), (signal.SIGCONT, 0.5)):
                for worker in self._workers:
                    os.kill(worker, number)
                self._over.wait(seconds)
        for worker in self._workers:
            os.kill(worker, signal.SIGCONT)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


@pytest.mark.timeout(600)
def test_every_panel_and_rule_has_data_and_every_alert_fires_and_goes_away(
    system: System, start_prometheus: Callable[..., PrometheusServer], broker_url: str
) -> None:
    system.start_all()
    prometheus = start_prometheus(**system.ports)
    started = time.monotonic()

    # The whole system, half a minute: every graph has data, nothing fires, the docs have what the pages have.
    soon(lambda: without_data(prometheus) == [])
    series = series_of(system)
    eventually(lambda: time.monotonic() - started > 30, 60, "half a minute is over")
    soon(lambda: without_data(prometheus) == [])
    soon(lambda: silent(prometheus))
    assert series_of(system) == series, "what happens adds none"
    assert shown_by({name: Page.get(system.url(name)) for name in system.ports}) == documented()

    # Garbage arrives, the writer goes away, and of ten exits only one was seen entering.
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        connection.channel().basic_publish("", "vehicle_entry", b"garbage")
    system.stop("writer")
    system.stop("exit")
    system.start("exit", CARPARK_MATCH_RATIO="0.1")
    soon(lambda: fires(prometheus, "CarparkDeadLetters", queue="vehicle_entry"))
    soon(lambda: fires(prometheus, "CarparkServiceDown", job="writer"))
    soon(lambda: fires(prometheus, "CarparkSinkFails", sink="http-csv"))
    soon(lambda: fires(prometheus, "CarparkExitsUnmatched"))
    system.start("writer")
    system.stop("exit")
    system.start("exit")
    soon(lambda: not fires(prometheus, "CarparkServiceDown"))

    # The backend gets no time, then it is gone; the cameras go on.
    with Stalled(system.running["backend"]):
        soon(lambda: fires(prometheus, "CarparkLatencyHigh", event="entry"))
    system.stop("backend")
    soon(lambda: fires(prometheus, "CarparkServiceDown", job="backend"))
    soon(lambda: fires(prometheus, "CarparkQueueUnattended", queue="vehicle_exit"))
    assert numbers(prometheus, "carpark:queue_unattended:messages")
    soon(lambda: fires(prometheus, "CarparkQueueStill", queue="vehicle_exit"))
    system.start("backend")
    soon(lambda: not fires(prometheus, "CarparkQueueStill"))

    # Messages come that were sent two days ago.
    soon(lambda: publish_old(broker_url) or fires(prometheus, "CarparkEventsLate", event="exit"))
    soon(lambda: silent(prometheus), 240)


def publish_old(broker_url: str) -> None:
    """Publish one exit some times, as if it had been sent two days ago."""
    two_days_ago = time.time_ns() // 1_000_000 - 172_800_000
    body = json.dumps(json.loads(message_body(exited("old", "OLD1"))) | {"message_timestamp": two_days_ago})
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        channel = connection.channel()
        for _ in range(20):
            channel.basic_publish("", "vehicle_exit", body.encode())


def test_an_embedded_run_has_data_in_every_panel_too(
    make_settings: Callable[..., Settings], start_prometheus: Callable[..., PrometheusServer]
) -> None:
    stop = threading.Event()
    with Embedded(make_settings(rate=RATE, capacity=20), Plan()) as park:
        assert park.writer
        run = threading.Thread(target=park.run, args=(stop,))
        run.start()
        try:
            prometheus = start_prometheus(run=park.metrics.port, writer=park.writer.port)
            soon(lambda: without_data(prometheus) == [])
            assert prometheus.query("carpark:service:up")[0]["metric"]["job"] == "run"
            assert len(prometheus.query('web_backend_summaries_total{outcome="written"}')) == 1, "each counts once"
        finally:
            stop.set()
            run.join()


@pytest.mark.timeout(240)
def test_after_a_killed_worker_the_counts_are_exact_and_prometheus_misses_what_it_had_not_scraped(
    system: System, start_prometheus: Callable[..., PrometheusServer], broker_url: str, redis_url: str
) -> None:
    total = 3000
    system.start("queues").wait_for_line("metrics at")
    system.start("writer").wait_for_line("writer: http")
    system.start("backend").wait_for_line("metrics at", 40)
    prometheus = start_prometheus(backend=system.ports["backend"])
    once = '{outcome=~"recorded|matched|unmatched"}'
    eventually(lambda: prometheus.query(f"go_backend_events_total{once}"), 30, "the first scrape, all at zero")
    with redis.Redis.from_url(redis_url, decode_responses=True) as store:
        died = threading.Event()
        publisher = threading.Thread(target=_publish, args=(broker_url, total // 2, died.is_set))
        publisher.start()
        eventually(lambda: _effects(store) > total * 2 // 3, 60)
        killed = system.running.pop("backend")
        os.kill(children(killed.pid)[0], signal.SIGKILL)
        assert killed.wait(30) != 0
        at_death = _effects(store)
        died.set()
        again = system.start("backend")
        again.wait_for_line("metrics at", 40)
        publisher.join()
        eventually(lambda: _effects(store) == total, 60)
        eventually(lambda: undelivered(store) == 0, 30)
        counts = {name: int(value) for name, value in store.hgetall("carpark:counts").items()}
    assert counts["entry/recorded"] + counts.get("entry/matched", 0) == total // 2
    assert counts["exit/matched"] + counts.get("exit/unmatched", 0) == total // 2
    assert counts["summaries"] == total // 2

    since = total - at_death

    def shown() -> bool:
        page = Page.get(system.url("backend"))
        counted = (page.total("go_backend_events_total", outcome=out) for out in ("recorded", "matched", "unmatched"))
        return sum(counted) == since

    eventually(shown, what="the page has what Redis has")
    eventually(lambda: (prometheus.value(f"sum(go_backend_events_total{once})") or 0) == since, 30)
    seen, last = _seen_before(prometheus, f"go_backend_events_total{once}")
    # Asked for the moment of a scrape, increase() adds nothing of its own.
    answer = prometheus.ask("query", query=f"sum(increase(go_backend_events_total{once}[10m]))", time=str(last))
    increase = float(answer["result"][0]["value"][1])
    assert seen <= at_death
    assert total - (at_death - seen) - 0.5 < increase < total + 0.5


def _effects(store: redis.Redis) -> int:
    counts: dict[str, Any] = store.hgetall("carpark:counts")
    names = [f"{kind}/{outcome}" for kind in ("entry", "exit") for outcome in ("recorded", "matched", "unmatched")]
    return sum(int(counts.get(name, 0)) for name in names)


def _publish(broker_url: str, stays: int, is_time: Callable[[], bool]) -> None:
    """Publish whole stays, the last fifth only when it is time."""
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        channel = connection.channel()
        for number in range(stays):
            if number == stays * 4 // 5:
                eventually(is_time, 60)
            for event in (entered(f"e{number}", f"P{number}"), exited(f"x{number}", f"P{number}")):
                channel.basic_publish("", event.queue, message_body(event))


def _seen_before(prometheus: PrometheusServer, selector: str) -> tuple[float, float]:
    """Add up each series' last sample before it began anew; give that and the time of the last sample of all."""
    seen, last = 0.0, 0.0
    for series in prometheus.query(f"{selector}[10m]"):
        samples = [(float(at), float(value)) for at, value in series["values"]]
        assert samples[0][1] == 0
        resets = [one[1] for one, next_ in itertools.pairwise(samples) if next_[1] < one[1]]
        seen += sum(resets)
        last = max(last, samples[-1][0])
    return seen, last
