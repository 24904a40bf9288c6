"""The writer's command as a real process."""

from __future__ import annotations

from pathlib import Path

from tests.support.processes import Process, Processes

READY = r"^writer: (http://\S+) appends to (.*)$"


class Service:
    """Starts ``python -m writer`` on a free port.

    Args:
        processes: Start and end it.
        path: The CSV.
    """

    def __init__(self, processes: Processes, path: Path) -> None:
        self._processes, self.path = processes, path

    def start(self, **env: str) -> tuple[Process, str]:
        """Start it with further variables and wait until it is ready; give it and its URL."""
        process = self._processes.start(
            ["python", "-m", "writer"],
            env={
                "CARPARK_CSV": str(self.path),
                "CARPARK_WRITER_PORT": "0",
                "CARPARK_REDIS_URL": "memory://",
                **env,
            },
        )
        return process, process.wait_for_line(READY).group(1)
