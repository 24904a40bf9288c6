"""``carpark metrics``: where the pages of metrics are, and which of them answer."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass

import click

from carpark.services import ON_METRICS_PORT, SERVICES
from carpark.settings import Settings
from carpark.settings.options import CONTEXT, examples, settings_options
from carpark.web.ports import ANY_ADDRESS, cause_of, client, in_url

SERVERS = {"Prometheus": "http://127.0.0.1:9090", "Grafana": "http://127.0.0.1:3000"}
"""What draws the numbers, in deploy/compose and by default."""

LOCAL = "prometheus --config.file=deploy/prometheus/local.yml --storage.tsdb.path=data/prometheus"

_TIMEOUT = 2.0


@dataclass(frozen=True)
class Answer:
    """A page, and whether it answers."""

    service: str
    url: str
    answers: bool
    said: str


def look(settings: Settings) -> list[Answer]:
    """Ask every page once."""
    host = in_url(ANY_ADDRESS.get(settings.bind, settings.bind))
    pages = {
        service.title: f"http://{host}:{service.port_or(settings.metrics_port)}/metrics" for service in ON_METRICS_PORT
    }
    pages[SERVICES["writer"].title] = f"{settings.writer_url.rstrip('/')}/metrics"
    return [_ask(name, url) for name, url in {**pages, **SERVERS}.items()]


def _ask(service: str, url: str) -> Answer:
    started = time.perf_counter()
    try:
        with client() as session:
            answer = session.get(url, timeout=_TIMEOUT)
    except OSError as error:  # every error of requests is one
        return Answer(service, url, False, cause_of(error))
    took = (time.perf_counter() - started) * 1000
    if not answer.ok:
        return Answer(service, url, False, f"HTTP status {answer.status_code}")
    if service in SERVERS:
        return Answer(service, url, True, "answers")
    count = sum(1 for line in answer.text.splitlines() if line and not line.startswith("#"))
    return Answer(service, url, True, f"{count} series in {took:.0f} ms")


@click.command(
    "metrics",
    context_settings=CONTEXT,
    epilog=examples("carpark metrics", "carpark metrics --json", "carpark metrics --writer-url http://there:40000"),
)
@settings_options("bind", "metrics_port", "writer_url")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array instead of a table.")
def metrics(settings: Settings, as_json: bool) -> None:
    """Say where each service shows its metrics, which of the pages answer, and how to draw them."""
    found = look(settings)
    if as_json:
        click.echo(json.dumps([asdict(each) for each in found], indent=2))
        return
    wide = max(len(each.url) for each in found)
    for each in found:
        said = click.style(each.said, fg="green") if each.answers else click.style(f"no answer: {each.said}", dim=True)
        click.echo(f"{each.service:<18}  {each.url:<{wide}}  {said}")
    click.echo(f"\nGraphs and alerts on this machine: {LOCAL}")
    click.echo("With Grafana and all dashboards: make up. What each number means: docs/reference/metrics.md")
