"""A control group that limits memory, as a container has it: for tests that run as root, on cgroup v2 or v1."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import sys
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.deploy.files import COMPOSE, compose, mebibytes
from tests.support.helpers import eventually

_V2, _V1 = Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/memory")


class MemoryGroup:
    """A group of its own; what is started in it, children included, has so much memory and no swap.

    Args:
        limit: Bytes.

    Raises:
        OSError: This machine, or this user, cannot have one.
    """

    def __init__(self, limit: int) -> None:
        name = f"carpark-test-{uuid.uuid4().hex[:12]}"
        self._is_v2 = (_V2 / "cgroup.controllers").exists()
        if self._is_v2:
            if "memory" not in (_V2 / "cgroup.controllers").read_text(encoding="ascii").split():
                raise OSError(errno.ENOTSUP, "no memory controller")
            (_V2 / "cgroup.subtree_control").write_text("+memory", encoding="ascii")
        self.folder = (_V2 if self._is_v2 else _V1) / name
        self.folder.mkdir()
        try:
            self._write("memory.max" if self._is_v2 else "memory.limit_in_bytes", limit)
            for swap, value in (("memory.swap.max", 0), ("memory.memsw.limit_in_bytes", limit)):
                if (self.folder / swap).exists():
                    self._write(swap, value)
        except OSError:
            self.folder.rmdir()
            raise

    def _write(self, name: str, value: int) -> None:
        (self.folder / name).write_text(str(value), encoding="ascii")

    def command(self, *words: str) -> list[str]:
        """Give the command that runs `carpark` with these words in the group."""
        script = 'echo $$ > "$0"/cgroup.procs && exec "$@"'
        return ["sh", "-c", script, str(self.folder), sys.executable, "-m", "carpark", *words]

    @property
    def kills(self) -> int:
        """How many processes the kernel has killed because there was no memory left."""
        events = self.folder / ("memory.events" if self._is_v2 else "memory.oom_control")
        return int(re.findall(r"^oom_kill (\d+)$", events.read_text(encoding="ascii"), re.MULTILINE)[0])

    def close(self) -> None:
        """End what is in it, and remove it."""

        def is_removed() -> bool:
            for pid in (self.folder / "cgroup.procs").read_text(encoding="ascii").split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            with contextlib.suppress(OSError):
                self.folder.rmdir()
            return not self.folder.exists()

        eventually(is_removed, 20, f"{self.folder} is removed")


def image() -> dict[str, str]:
    """Give the variables of the image that say how a process deals with memory."""
    return dict(re.findall(r"(MALLOC_\w+)=(\S+)", (COMPOSE / "Dockerfile").read_text(encoding="utf-8")))


@contextlib.contextmanager
def container(service: str) -> Iterator[tuple[MemoryGroup, Mapping[str, str]]]:
    """Give a group with the memory that the stack gives a service, and what its image says of memory.

    Where there can be none, the test is skipped and says why.
    """
    limit = mebibytes(compose()["services"][service]["mem_limit"]) * 2**20
    try:
        group = MemoryGroup(limit)
    except OSError as error:
        pytest.skip(f"memory can be limited by a cgroup as root alone, v2 or v1: {error}")
    with contextlib.closing(group):
        yield group, image()


def peak(pid: int) -> int:
    """Say how many bytes of memory a process has had at most."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)[0]) * 1024
