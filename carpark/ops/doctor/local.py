"""The doctor's look at this machine: Python, files, plugins, ports."""

from __future__ import annotations

import platform
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata

from carpark import __version__
from carpark.errors import CarparkError, ConfigurationError, InvalidSetting, PortTaken
from carpark.ops.doctor.findings import Finding, ok, problem, split_error, wrong
from carpark.plugins import Plugins
from carpark.plugins.base import Offer
from carpark.plugins.findings import check_ledger
from carpark.plugins.manager import with_own
from carpark.services import ON_METRICS_PORT, SERVICES, Service
from carpark.settings import Settings
from carpark.settings.fields import PREFIX, options_of
from carpark.web.ports import ANY_ADDRESS, IDENTITY, client, in_url, listen

PROBE_TIMEOUT = 1.5
"""Seconds that whoever holds a port may take to say who it is."""

_PACKAGES = ("dramatiq", "pika", "redis")


def check_python(settings: Settings) -> list[Finding]:
    """Say what this runs on."""
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES)
    return [ok("python", f"Python {platform.python_version()}, carpark {__version__}, {packages}")]


def check_files(settings: Settings) -> list[Finding]:
    """Look whether the writer's file can be appended to."""
    return [check_ledger(options_of(Settings)["csv"].variable, settings.csv)]


def check_plugins(settings: Settings, plugins: Plugins) -> list[Finding]:
    """Look whether the plugins load and offer what the settings name."""
    count = len({each.plugin for each in plugins.sinks.values()} | {each.plugin for each in plugins.plates.values()})
    said = f"{count} offer {len(plugins.sinks)} sinks and {len(plugins.plates)} plate generators"
    findings = [wrong("plugins", *split_error(error)) for error in plugins.broken] or [ok("plugins", said)]
    for error in plugins.unknown(settings):
        findings.append(wrong(error.setting.removeprefix(PREFIX).lower(), *split_error(error)))
    unknown = {each.check for each in findings}
    if "sinks" not in unknown:
        findings.append(ok("sinks", ", ".join(settings.sinks)))
    if "plates" not in unknown:
        findings.append(_check_plates(plugins, settings))
    return findings


def _check_plates(plugins: Plugins, settings: Settings) -> Finding:
    try:
        plugins.make_plates(plugins.context(settings), random.Random(0))
    except CarparkError as error:
        return wrong("plates", *split_error(error))
    return ok("plates", settings.plates)


def check_offer(offer: Offer, settings: Settings, plugins: Plugins) -> list[Finding]:
    """Have an offer look for itself."""
    try:
        context = with_own(offer, plugins.context(settings))
    except ConfigurationError:
        return []
    return [
        each if isinstance(each, Finding) else problem(offer.name, f"its check gave {each!r}", "wanted a Finding")
        for each in (offer.check(context) if offer.check else ())
    ]


def check_ports(settings: Settings) -> list[Finding]:
    """Look whether each port is free, or held by the service that it is meant for."""
    listen(settings.bind, 0, "CARPARK_BIND").close()  # raises what is wrong with the address
    return [_check_port(settings.bind, service) for service in _ports(settings)]


def _ports(settings: Settings) -> Iterator[Service]:
    """The services with the ports that they would take; one entry for all pages of metrics where the setting is set."""
    yield replace(SERVICES["writer"], port=settings.writer_port)
    yield replace(SERVICES["dashboard"], port=settings.dashboard_port)
    if settings.metrics_port is None:
        yield from ON_METRICS_PORT
    else:
        yield Service("metrics", "page of metrics", "", "", settings.metrics_port)


def _check_port(host: str, service: Service) -> Finding:
    port, title = service.port, service.title
    check = f"port {port}" if port else "port"
    if not port:
        return ok(check, f"the {title} takes a free one")
    try:
        listen(host, port, service.setting).close()
    except PortTaken:
        return _judge_holder(check, service, *_probe(ANY_ADDRESS.get(host, host), port))
    except InvalidSetting as error:
        return wrong(check, f"{error.name}={error.value} for the {title}", f"wanted {error.wanted}")
    return ok(check, f"free for the {title}")


def _judge_holder(check: str, service: Service, holders: set[str], is_ours: bool) -> Finding:
    if service.name in holders:
        return ok(check, f"held by the {service.title}, which runs")
    if is_ours and (not holders or service.name == "metrics"):
        return ok(check, f"held by carpark, for the {service.title}")
    advice = f"end it, or choose another port in {service.setting}; 0 takes a free one"
    others = " and ".join(sorted(SERVICES[each].title for each in holders))
    holder = f"carpark's {others}" if holders else "another program"
    return wrong(check, f"meant for the {service.title}, held by {holder}", advice)


def _probe(host: str, port: int) -> tuple[set[str], bool]:
    """Ask who is there: the services whose metrics it shows, and whether it is carpark at all."""
    try:
        with client() as session:
            url = f"http://{in_url(host)}:{port}/metrics"
            response = session.get(url, timeout=PROBE_TIMEOUT, allow_redirects=False, stream=True)
            page = next(response.iter_content(256 * 1024), b"").decode("utf-8", "replace")
    except OSError:  # every error of requests is one
        return set(), False
    holders = {
        service.name
        for service in SERVICES.values()
        if service.prefix and re.search(rf"(^| ){service.prefix}_", page, re.MULTILINE)
    }
    if "dramatiq_" in page:
        holders.add("backend")
    if {"backend", "entry", "exit", "queues"} <= holders:
        holders = {"run"}
    # The backend's page is empty until its first message.
    empty_page = not page.strip() and response.headers.get("Content-Type", "").startswith("text/plain; version=")
    return holders, bool(holders) or empty_page or response.headers.get("Server") == IDENTITY
