"""The whole system as processes on fixed free ports, with a Prometheus whose files are those of deploy/prometheus."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

from carpark.services import SERVICES
from tests.support.helpers import find_free_port
from tests.support.processes import ROOT, Process, Processes

RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
LOCAL = ROOT / "deploy" / "prometheus" / "local.yml"
DASHBOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))

WINDOWS, WAITS = Fraction(1, 8), Fraction(1, 12)
"""What is left of a duration of deploy/prometheus: an alert that waits for 5 minutes waits for 25 s, and `rate()` over
a minute looks at 8 s, in which a busy machine may miss some scrapes."""

SECONDS = {"s": 1, "m": 60, "h": 3600}
DURATION = re.compile(r"(?<![\w.])(\d+)([smh])\b")

COMMANDS: dict[str, list[str]] = {
    "queues": ["carpark", "queues", "--interval", "0.5"],
    "writer": ["carpark", "writer"],
    "backend": ["dramatiq", "carpark.actors", "--processes", "2", "--threads", "4"],
    "entry": ["carpark", "generate", "entry"],
    "exit": ["carpark", "generate", "exit"],
}


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file.

    Args:
        path: The file.

    Returns:
        What it says.
    """
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def rules() -> list[dict[str, Any]]:
    """Read the rules.

    Returns:
        All of them, those that record before the alerts.
    """
    return [rule for group in read_yaml(RULES)["groups"] for rule in group["rules"]]


def quickened(value: Any, scale: Fraction = WINDOWS) -> Any:
    """Shorten every duration in rules or a configuration.

    Args:
        value: A file's content, or a part of it.
        scale: What is left of each; of how long an alert waits it is always `WAITS`.

    Returns:
        The same with shorter durations; texts for people are left as they are.
    """
    if isinstance(value, dict):
        kept = {name: part for name, part in value.items() if name == "annotations"}
        return {name: quickened(part, WAITS if name == "for" else scale) for name, part in value.items()} | kept
    if isinstance(value, list):
        return [quickened(part, scale) for part in value]
    if isinstance(value, str):
        # At least 1 s: a busy machine misses scrapes that are nearer to each other.
        return DURATION.sub(lambda each: f"{max(1, round(int(each[1]) * SECONDS[each[2]] * scale))}s", value)
    return value


def config_for(ports: Mapping[str, int]) -> dict[str, Any]:
    """Make the configuration of a Prometheus from deploy/prometheus/local.yml.

    Args:
        ports: Job to the port where its service is; a job without one is asked where nobody is.

    Returns:
        The configuration, quickened.
    """
    config: dict[str, Any] = quickened(read_yaml(LOCAL))
    for job in config["scrape_configs"]:
        port = ports.get(job["job_name"]) or find_free_port()
        job["static_configs"] = [{"targets": [f"127.0.0.1:{port}"]}]
    return config


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    """Read the panels of all dashboards.

    Yields:
        ``dashboard: title`` and the panel; rows are left out.
    """
    for path in DASHBOARDS:
        board = json.loads(path.read_text(encoding="utf-8"))
        for panel in board["panels"]:
            if panel["type"] != "row":
                yield f"{path.stem}: {panel['title']}", panel


def queries() -> list[tuple[str, str]]:
    """Read the queries of all panels.

    Returns:
        The panel's name and PromQL that Prometheus understands.
    """
    return [
        (name, target["expr"].replace("$__rate_interval", "15s"))
        for name, panel in panels()
        for target in panel["targets"]
    ]


class System:
    """The services as processes, each with a port that it keeps when it is started again.

    Args:
        processes: Starts them.
        environ: Which servers they use.
    """

    def __init__(self, processes: Processes, environ: Mapping[str, str]) -> None:
        self._processes = processes
        self.ports = {name: find_free_port() for name in COMMANDS}
        self._environ = {**environ, "CARPARK_WRITER_URL": f"http://127.0.0.1:{self.ports['writer']}"}
        self.running: dict[str, Process] = {}

    def url(self, name: str) -> str:
        """Say where a service's metrics are.

        Args:
            name: The service.

        Returns:
            The page's URL.
        """
        return f"http://127.0.0.1:{self.ports[name]}/metrics"

    def start(self, name: str, **more: str) -> Process:
        """Start a service, or start it again.

        Args:
            name: The service.
            more: Variables beside the system's.

        Returns:
            The process.
        """
        environ = {**self._environ, SERVICES[name].setting: str(self.ports[name]), **more}
        self.running[name] = self._processes.start(COMMANDS[name], environ, name=name)
        return self.running[name]

    def stop(self, name: str) -> None:
        """Stop a service.

        Args:
            name: The service.
        """
        assert self.running.pop(name).terminate() == 0

    def start_all(self, **more: str) -> None:
        """Start all services, the cameras last.

        Args:
            more: Variables beside the system's.
        """
        ready: dict[str, Callable[[], object]] = {}
        for name in COMMANDS:
            process = self.start(name, **more)
            ready[name] = lambda process=process, name=name: process.wait_for_line(
                "writer: http" if name == "writer" else "metrics at", 40
            )
            if name == "queues":
                ready[name]()
        for wait in ready.values():
            wait()
