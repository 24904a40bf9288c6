"""A process in the memory of a container, without a container: a control group of the kernel's, version 1 or 2."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path("/sys/fs/cgroup")


class MemoryGroup:
    """A control group.

    Args:
        folder: Of the kernel's file system.
        events: The file in it that counts what was killed.
    """

    def __init__(self, folder: Path, events: str) -> None:
        self._folder, self._events = folder, folder / events

    def within(self, *argv: str) -> list[str]:
        """Give the command that runs a program in it."""
        return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self._folder / "cgroup.procs"), *argv]

    @property
    def killed(self) -> int:
        """How many processes the kernel has killed in it because the memory did not suffice."""
        counts = dict(line.split() for line in self._events.read_text(encoding="ascii").splitlines())
        return int(counts["oom_kill"])


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[MemoryGroup]:
    """Make a control group, and remove it when its processes have ended.

    Args:
        limit: Bytes of memory; there is no swap beside it.

    Yields:
        The group. Where none can be made the test is skipped, and says so.
    """
    name = f"carpark-test-{os.getpid()}"
    # The unified hierarchy may be there without its memory controller, beside the older one with it.
    of_version_1 = (_ROOT / "memory").is_dir()
    folder = _ROOT / "memory" / name if of_version_1 else _ROOT / name
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here, so the memory of a container is not tried: {error}")
    try:
        limits = (
            [("memory.limit_in_bytes", limit), ("memory.memsw.limit_in_bytes", limit)]
            if of_version_1
            else [("memory.max", limit), ("memory.swap.max", 0)]
        )
        try:
            (folder / limits[0][0]).write_text(str(limits[0][1]), encoding="ascii")
            with contextlib.suppress(OSError):  # not every kernel counts swap
                (folder / limits[1][0]).write_text(str(limits[1][1]), encoding="ascii")
        except OSError as error:
            pytest.skip(f"control groups have no memory here, so that of a container is not tried: {error}")
        yield MemoryGroup(folder, "memory.oom_control" if of_version_1 else "memory.events")
    finally:
        folder.rmdir()
