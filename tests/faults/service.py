"""A service that is started again when it dies, as a service manager does it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.helpers import eventually
from tests.support.processes import Process, Processes

_GLANCE = 0.1
_BEGIN_SECONDS = 60.0


class Service:
    """One service; a thread looks after it.

    Args:
        processes: Start and end its processes.
        argv: The command.
        env: Its variables.
        ready: A line that says that it is ready.

    Attributes:
        deaths: How often it ended without being asked.
    """

    def __init__(self, processes: Processes, argv: Sequence[str], env: Mapping[str, str], ready: str) -> None:
        self._processes, self._argv, self._env, self._ready = processes, list(argv), dict(env), ready
        self.name = argv[-1] if argv[0] == "dramatiq" else " ".join(argv[1:3])
        self.process: Process | None = None
        self.deaths = 0
        self._wanted = False
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_after, daemon=True)
        self._thread.start()

    def start(self, **more: str) -> None:
        """Start it and wait until it is ready.

        Args:
            more: Variables that only this process gets; one that is started again because it died does not.
        """
        with self._lock:
            self._wanted = True
            self._begin(more)
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until the process that runs now is ready."""

        def is_ready() -> bool:
            process = self.process
            return bool(process and process.status is None and re.search(self._ready, process.output, re.MULTILINE))

        eventually(is_ready, _BEGIN_SECONDS, f"{self.name} is ready")

    def stop(self) -> int:
        """Ask it to end, with SIGTERM, and wait for it.

        Returns:
            Its exit status.
        """
        with self._lock:
            self._wanted = False
            process = self.process
        assert process is not None
        return process.terminate(60)

    def kill(self) -> None:
        """End it with SIGKILL; it is started again."""
        process = self.process
        assert process is not None
        process.kill()

    def kill_one(self) -> None:
        """End one of the worker processes of a `dramatiq` with SIGKILL."""
        assert self.process is not None
        os.kill(self.worker_pids()[-1], signal.SIGKILL)

    def worker_pids(self) -> list[int]:
        """List the worker processes of a `dramatiq` that runs, as it prints them."""
        assert self.process is not None
        found = re.findall(r"\[PID (\d+)\] \[MainThread\] \[dramatiq\.WorkerProcess\(\d+\)\]", self.process.output)
        return sorted({int(pid) for pid in found})

    def pause(self) -> None:
        """Let it stand still."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Look after it no more."""
        self._wanted = False
        self._ended.set()
        self._thread.join()
        self.go_on()

    @property
    def output(self) -> str:
        """What all its processes have printed."""
        logs = sorted(self._processes.started, key=lambda each: each.log.stat().st_ctime)
        return "".join(each.output for each in logs if each.argv[1:] == (self.process or each).argv[1:])

    def memory_mib(self) -> float:
        """Add up the resident memory of its processes now."""
        process = self.process
        assert process is not None
        return sum(resident_mib(pid) for pid in (process.pid, *children_of(process.pid)))

    def _signal(self, number: signal.Signals) -> None:
        process = self.process
        if process and process.status is None:
            os.killpg(process.pid, number)

    def _begin(self, more: Mapping[str, str]) -> None:
        self.process = self._processes.start(self._argv, {**self._env, **more}, name=self.name.replace(" ", "-"))

    def _look_after(self) -> None:
        while not self._ended.wait(_GLANCE):
            with self._lock:
                if self._wanted and self.process and self.process.status is not None:
                    self.deaths += 1
                    self.process.kill()  # its children, too
                    time.sleep(_GLANCE)
                    self._begin({})


def group_mib(group: int) -> float:
    """Add up the resident memory of a process group's processes now."""
    total = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # After the name, which is in brackets and may hold anything: state, parent, group.
            if int(stat.read_text(encoding="utf-8").rpartition(")")[2].split()[2]) == group:
                total += resident_mib(int(stat.parent.name))
    return total


def children_of(pid: int) -> list[int]:
    """List a process's children."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(child) for child in children]


def resident_mib(pid: int) -> float:
    """Read how much memory a process has now."""
    try:
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="ascii"))
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return int(found.group(1)) / 1024 if found else 0.0
