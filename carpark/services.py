"""The services: what each is called, how it is started, where its port is. All others look here."""

from __future__ import annotations

from dataclasses import dataclass

METRICS_SETTING = "CARPARK_METRICS_PORT"

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that has prometheus_client, from its import on, keep numbers in a folder that processes share."""


@dataclass(frozen=True)
class Service:
    """A service, or the embedded run, which is all of them in one process."""

    name: str
    title: str
    command: str
    prefix: str
    port: int
    setting: str = METRICS_SETTING

    def port_or(self, given: int | None) -> int:
        """Say which port it takes."""
        return self.port if given is None else given


SERVICES = {
    service.name: service
    for service in (
        Service("writer", "writer", "writer", "web_backend", 40000, "CARPARK_WRITER_PORT"),
        Service("dashboard", "dashboard", "dashboard", "", 40001, "CARPARK_DASHBOARD_PORT"),
        Service("backend", "backend", "worker", "go_backend", 9191),
        Service("entry", "entry generator", "generate entry", "vehicle_entry", 9201),
        Service("exit", "exit generator", "generate exit", "vehicle_exit", 9202),
        Service("queues", "queue configurator", "queues", "queue_configurator", 9203),
        # Its port is no service's, so that it can be tried out beside them.
        Service("run", "embedded run", "run", "", 9190),
    )
}
"""All of them by their names."""

ON_METRICS_PORT = tuple(service for service in SERVICES.values() if service.setting == METRICS_SETTING)
"""Those that show their metrics on a port for that alone."""
