"""`carpark dashboard` as a real process."""

from __future__ import annotations

from collections.abc import Mapping

import requests

from tests.support.dashboards import CSRF
from tests.support.processes import Process, Processes

READY = r"^dashboard: (http://\S+) shows "


def start_dashboard(processes: Processes, environ: Mapping[str, str]) -> tuple[Process, str]:
    """Start it on a free port and wait until it is ready; give it and its URL."""
    process = processes.start(["carpark", "dashboard", "--port", "0"], env=environ)
    return process, process.wait_for_line(READY, 60)[1]


def post(url: str, path: str, **form: object) -> requests.Response:
    """Send a form as a browser does that has looked at a page before."""
    with requests.Session() as session:
        session.trust_env = False
        session.get(f"{url}/queues/vehicle_exit/failed", timeout=60).raise_for_status()
        return session.post(url + path, data={**form, CSRF: session.cookies[CSRF]}, timeout=60)
