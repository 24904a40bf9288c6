"""Ends what the tests started when the tests themselves are killed.

A separate process holds the reading end of a pipe. When the writing end closes, whatever the reason, every process
group and folder that is still on its list goes. SIGKILL of pytest therefore leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path


class Guard:
    """The test run's end of the pipe; the process behind it is started when it is first needed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def watch(self, kind: str, what: object) -> None:
        """Put something on the list.

        Args:
            kind: ``group`` or ``folder``.
            what: The process group's id, or the folder's path.
        """
        if self._process is None:
            # A session of its own, so that Ctrl-C in the terminal does not reach it.
            self._process = subprocess.Popen(
                [sys.executable, "-S", "-E", __file__], stdin=subprocess.PIPE, text=True, start_new_session=True
            )
        self._tell(f"watch {kind} {what}")

    def forget(self, kind: str, what: object) -> None:
        """Take something off the list, because it has been ended in the ordinary way.

        Args:
            kind: As it was given to `watch`.
            what: As it was given to `watch`.
        """
        self._tell(f"forget {kind} {what}")

    def close(self) -> None:
        """End the process behind the pipe, and with it whatever is still on the list."""
        if self._process is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.communicate(timeout=10)
            self._process = None

    def _tell(self, line: str) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                print(line, file=self._process.stdin, flush=True)


GUARD = Guard()
"""The one of this process."""


def keep_list(lines: Iterable[str]) -> None:
    """Keep the list until the lines end, then end what is on it.

    Args:
        lines: ``watch kind what`` and ``forget kind what``.
    """
    listed: dict[tuple[str, str], None] = {}
    for line in lines:
        verb, kind, what = line.rstrip("\n").split(" ", 2)
        if verb == "watch":
            listed[kind, what] = None
        else:
            listed.pop((kind, what), None)
    for kind, what in listed:
        if kind == "group":
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(what), signal.SIGKILL)
    for kind, what in listed:
        if kind == "folder":
            shutil.rmtree(Path(what), ignore_errors=True)


if __name__ == "__main__":
    keep_list(sys.stdin)
