"""The stack itself, where an engine has the images: up, events in the CSV, down, nothing left running."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.files import COMPOSE, compose
from tests.support.helpers import eventually, is_listening
from tests.support.processes import ROOT
from tests.support.source import tracked_files

PROJECT = "carpark-test"
MINIMAL = {name: service for name, service in compose()["services"].items() if "profiles" not in service}


def succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def why_not() -> str:
    """Say why the stack cannot be run here, or nothing."""
    if shutil.which("docker") and succeeds("docker", "info"):
        engine = ["docker"]
    elif shutil.which("podman") and shutil.which("podman-compose"):
        engine = ["podman"]
    else:
        return "there is no container engine with compose here"
    images = {service["image"] for service in MINIMAL.values()} - {MINIMAL["queues"]["image"]}
    images |= set(re.findall(r"^FROM (\S+)", (COMPOSE / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE))
    missing = sorted(image for image in images if not succeeds(*engine, "image", "inspect", image))
    if missing:
        return f"{engine[0]} does not have {', '.join(missing)}; `make up` fetches them"
    ports = [
        int(port)
        for service in MINIMAL.values()
        for each in service.get("ports", ())
        for port in each.split(":")[-2:-1]
    ]
    taken = [port for port in ports if is_listening(port)]
    return f"ports {taken} are in use" if taken else ""


class Stack:
    """A copy of the project, whose stack has a name, a folder and secrets of its own."""

    def __init__(self, folder: Path) -> None:
        self.csv = folder / "data" / "stack" / "summaries.csv"
        self._program = folder / "deploy" / "compose" / "stack.py"
        for path in tracked_files():
            to = folder / path.relative_to(ROOT)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, to)

    def run(self, *arguments: str) -> str:
        environ = {**os.environ, "STACK_PROJECT": PROJECT, "CARPARK_RATE": "20"}
        command = [sys.executable, str(self._program), *arguments]
        ended = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    if reason := why_not():
        pytest.skip(reason)
    stack = Stack(tmp_path / "project")
    yield stack
    stack.run("clean-data", "--yes")


def containers() -> list[str]:
    engine = "docker" if shutil.which("docker") and succeeds("docker", "info") else "podman"
    listed = subprocess.run([engine, "ps", "-a", "--format", "{{.Names}}"], capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split() if name.startswith(PROJECT)]


@pytest.mark.servers
@pytest.mark.timeout(900)
def test_the_stack_comes_up_works_and_leaves_nothing_running(stack: Stack) -> None:
    said = stack.run("up", "--profile", "minimal", "--scale", "2")
    assert "everything is healthy" in said
    assert len(containers()) == len(MINIMAL) + 1
    eventually(lambda: len(stack.csv.read_text(encoding="utf-8").splitlines()) > 20, 60, "stays are in the CSV")
    assert "worker" in stack.run("ps")
    stack.run("down")
    assert containers() == []
    assert stack.csv.exists()
