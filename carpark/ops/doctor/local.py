"""The doctor's look at this machine: Python, files, plugins, ports."""

from __future__ import annotations

import os
import platform
import random
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import requests

from carpark import __version__
from carpark.errors import CarparkError, InvalidSetting, PortTaken, UnknownPlugin
from carpark.ops.doctor.findings import Finding, ok, split_error, warning, wrong
from carpark.plugins import PluginContext, Plugins
from carpark.services import ON_METRICS_PORT, SERVICES, Service
from carpark.settings import Settings
from carpark.settings.fields import options_of
from carpark.web.ports import ANY_ADDRESS, IDENTITY, in_url, listen

PROBE_TIMEOUT = 1.5
"""Seconds that whoever holds a port may take to say who it is."""

LITTLE_SPACE = 200 * 1024 * 1024
"""Bytes of free disk below which it is worth a word."""

_PACKAGES = ("dramatiq", "pika", "redis")
_SINK_FILES = {"csv": "sink_csv", "jsonl": "sink_jsonl", "sqlite": "sink_sqlite"}


def check_python(settings: Settings) -> list[Finding]:
    """Say what this runs on.

    Args:
        settings: The settings.

    Returns:
        One finding.
    """
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES)
    return [ok("python", f"Python {platform.python_version()}, carpark {__version__}, {packages}")]


def check_files(settings: Settings) -> list[Finding]:
    """Look whether the files that are appended to can be.

    Args:
        settings: The settings.

    Returns:
        A finding per file: the writer's, and those of the sinks in use.
    """
    names = ["csv", *(name for sink, name in _SINK_FILES.items() if sink in settings.sinks)]
    return [_check_file(options_of(Settings)[name].variable, getattr(settings, name)) for name in names]


def _check_file(variable: str, path: Path) -> Finding:
    check = f"file {path.name}"
    if path.exists():
        if not path.is_file():
            return wrong(check, f"{variable}={path} is not a file", f"name a file in {variable}")
        if not os.access(path, os.R_OK | os.W_OK):
            advice = f"change its owner or mode, or {variable}"
            return wrong(check, f"{path} cannot be read and written by this user", advice)
    folder = next(each for each in path.absolute().parents if each.exists())
    if not folder.is_dir():
        return wrong(check, f"{folder}, on the way to {path}, is not a folder", f"name another file in {variable}")
    if not os.access(folder, os.W_OK | os.X_OK):
        return wrong(check, f"{folder} cannot be written by this user", f"change its owner or mode, or {variable}")
    free = shutil.disk_usage(folder).free
    if free < LITTLE_SPACE:
        return warning(check, f"{folder} has only {free // 1024 // 1024} MB left", f"make room, or change {variable}")
    return ok(check, f"{path}, {free / 1024**3:.1f} GB free")


def check_plugins(settings: Settings) -> list[Finding]:
    """Look whether the plugins load and offer what the settings name.

    Args:
        settings: The settings.

    Returns:
        The findings.
    """
    try:
        plugins = Plugins(settings.plugins)
    except CarparkError as error:
        return [wrong("plugins", *split_error(error))]
    count = len({*(each.plugin for each in plugins.sinks.values()), *(each.plugin for each in plugins.plates.values())})
    return [
        ok("plugins", f"{count} offer {len(plugins.sinks)} sinks and {len(plugins.plates)} plate generators"),
        _check_sinks(plugins, settings),
        _check_plates(plugins, settings),
    ]


def _check_sinks(plugins: Plugins, settings: Settings) -> Finding:
    try:
        for name in settings.sinks:
            if name not in plugins.sinks:
                raise UnknownPlugin("CARPARK_SINKS", name, sorted(plugins.sinks))
        if "webhook" in settings.sinks:  # making it tells whether it has its URL; others open files when they are made
            plugins.sinks["webhook"].offer.make(PluginContext(settings)).close()
    except CarparkError as error:
        return wrong("sinks", *split_error(error))
    return ok("sinks", ", ".join(settings.sinks))


def _check_plates(plugins: Plugins, settings: Settings) -> Finding:
    try:
        plugins.make_plates(PluginContext(settings), random.Random(0))
    except CarparkError as error:
        return wrong("plates", *split_error(error))
    return ok("plates", settings.plates)


def check_ports(settings: Settings) -> list[Finding]:
    """Look whether each port is free, or held by the service that it is meant for.

    Args:
        settings: The settings.

    Returns:
        A finding per port.
    """
    try:
        listen(settings.bind, 0, "CARPARK_BIND").close()
    except InvalidSetting as error:
        return [wrong("ports", f"{error.name}={error.value}", f"wanted {error.wanted}")]
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
        with requests.Session() as session:
            session.trust_env = False
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
