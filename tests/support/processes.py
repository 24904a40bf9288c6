"""Real processes for tests: output in a file, ended with the test, their output shown when the test fails."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.support.guard import GUARD
from tests.support.helpers import eventually

ROOT = Path(__file__).resolve().parents[2]

RunHere = Callable[..., subprocess.CompletedProcess[str]]
"""What the fixture `run_here` gives."""

WORKER_READY = "Worker process is ready for action"
"""What Dramatiq says in each process of a worker that can work now."""

_WORKER_ENDED = "Worker has been shut down."
"""What it says in each when threads and consumers have ended; its master then waits a second for lines to print."""


OTHER_CLOCK = """
import os, time
_shift, _time = float(os.environ["CLOCK_SHIFT"]), time.time
time.time = lambda: _time() + _shift
"""
"""A `sitecustomize` that moves the clock of a process by `CLOCK_SHIFT` seconds."""


class Process:
    """A program that a test started, in a process group of its own.

    Args:
        argv: The program and its arguments.
        env: The whole environment.
        log: The file that takes stdout and stderr.
        cwd: The folder it runs in.
    """

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], log: Path, cwd: Path) -> None:
        self.argv = list(argv)
        self.log = log
        with log.open("ab") as stream:
            self._popen = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=dict(env),
                cwd=cwd,
                process_group=0,
            )
        GUARD.watch("group", self.pid)

    @property
    def pid(self) -> int:
        """The process's id, which is its group's too."""
        return self._popen.pid

    @property
    def output(self) -> str:
        """What it has printed until now."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def status(self) -> int | None:
        """The exit status; negative for a signal, None while it runs."""
        return self._popen.poll()

    def is_over(self) -> bool:
        """Tell whether it has ended, or is a worker each of whose processes has stopped all that it did."""
        if self.status is not None:
            return True
        said = self.output
        return 0 < said.count(WORKER_READY) <= said.count(_WORKER_ENDED)

    def wait(self, timeout: float = 30.0) -> int:
        """Wait until it ends on its own.

        Args:
            timeout: Seconds until it has to.

        Returns:
            The exit status; negative for a signal.

        Raises:
            AssertionError: It still runs; the message shows its output.
        """
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self} still runs after {timeout:g} s:\n{self.output}") from None

    def wait_for_line(self, pattern: str, timeout: float = 20.0) -> re.Match[str]:
        """Wait until it has printed something.

        Args:
            pattern: A regular expression; ``^`` and ``$`` match at lines.
            timeout: Seconds until it has to be there.

        Returns:
            The match.

        Raises:
            AssertionError: It has not come, or the process ended without it; the message shows the output.
        """

        def found() -> re.Match[str] | str | None:
            ended = self.status is not None
            match = re.search(pattern, self.output, re.MULTILINE)
            return match or ("ended" if ended else None)

        try:
            match = eventually(found, timeout, f"{pattern!r} from {self}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output}") from None
        if not isinstance(match, re.Match):
            raise AssertionError(f"{self} ended with {self.status} before it printed {pattern!r}:\n{self.output}")
        return match

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone, as a service manager does.

        Args:
            number: The signal.
        """
        self._popen.send_signal(number)

    def terminate(self, timeout: float = 20.0) -> int:
        """Ask it to end with SIGTERM and wait for it.

        Args:
            timeout: Seconds that it may take.

        Returns:
            The exit status.

        Raises:
            AssertionError: It did not end in time.
        """
        self.signal(signal.SIGTERM)
        status = self.wait(timeout)
        self._sweep()
        return status

    def kill(self) -> None:
        """End it and everything in its group with SIGKILL."""
        self._sweep()
        self._popen.wait(10)

    def _sweep(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        GUARD.forget("group", self.pid)

    def __str__(self) -> str:
        return f"`{' '.join(self.argv)}`"


class Processes:
    """The processes of one test.

    Args:
        folder: Where their output goes.
        environ: Variables that each of them gets beside the test run's own.
        patience: Seconds that each may take to end on SIGTERM when the test is over.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str], patience: float = 20.0) -> None:
        self._folder = folder
        self._patience = patience
        self._environ = {**environ, "PYTHONUNBUFFERED": "1"}
        self.started: list[Process] = []

    def start(
        self, argv: Sequence[str], env: Mapping[str, str] | None = None, *, name: str = "", cwd: Path | None = None
    ) -> Process:
        """Start a program.

        Args:
            argv: The program and its arguments. ``carpark``, ``dramatiq`` and ``python`` are those of this environment.
            env: Variables beside those of the test run.
            name: How its output is headed when the test fails; the program's name by default.
            cwd: The folder it runs in; the project's by default.

        Returns:
            The running process.
        """
        program = sys.executable if argv[0] == "python" else str(Path(sys.executable).with_name(argv[0]))
        command = [program if Path(program).exists() else argv[0], *argv[1:]]
        log = self._folder / f"{len(self.started)}-{name or Path(argv[0]).name}.log"
        process = Process(command, {**os.environ, **self._environ, **(env or {})}, log, cwd or ROOT)
        self.started.append(process)
        return process

    def report(self) -> list[tuple[str, str]]:
        """Collect what each has printed.

        Returns:
            Pairs of a heading and the output, in the order of starting.
        """
        return [(f"{process.log.stem} (status {process.status}) {process}", process.output) for process in self.started]

    def close(self) -> None:
        """End all that still run: SIGTERM to all, then SIGKILL to what is left.

        Raises:
            AssertionError: One of them did not end on SIGTERM in time; all are ended all the same.
        """
        for process in self.started:
            if process.status is None:
                process.signal(signal.SIGTERM)
        stubborn = []
        for process in reversed(self.started):
            try:
                eventually(process.is_over, self._patience, interval=0.02)
            except AssertionError:
                stubborn.append(str(process))
            process.kill()
        if stubborn:
            raise AssertionError(f"did not end on SIGTERM within {self._patience:g} s: {', '.join(stubborn)}")
