"""The stack in containers: `make up`, `down`, `logs`, `ps` and `clean-data`, with Docker Compose or podman-compose.

Needs nothing but Python. What is secret is made by chance at the first start and kept in `.env` and `secrets/`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from prepare import HERE, prepare, read_env, short

PROJECT = os.environ.get("STACK_PROJECT", "carpark")
FILES = ("compose.yaml", "cluster.yaml")
OWN_FILE = "compose.override.yaml"
"""What a user adds, if it is there."""
EVERYTHING = ("dashboard", "prometheus", "grafana")
"""What the profile `minimal` leaves out."""

PATIENCE = 240.0
"""Seconds until every service has to be healthy."""

PLACES = (
    ("writer", 40000, "the finished stays; user carpark, DASHBOARD_PASSWORD"),
    ("dashboard", 40001, "user carpark, DASHBOARD_PASSWORD"),
    ("rabbitmq", 15762, "user admin, RABBITMQ_ADMIN_PASSWORD"),
    ("prometheus", 9090, ""),
    ("grafana", 3000, "user admin, GRAFANA_PASSWORD"),
)


class StackError(Exception):
    """The stack cannot do what it was asked for; the message is one line."""


def engine() -> list[str]:
    """Find what runs compose files.

    Returns:
        The beginning of its command line.

    Raises:
        StackError: There is nothing.
    """
    if shutil.which("docker") and _succeeds("docker", "compose", "version"):
        if _succeeds("docker", "info"):
            return ["docker", "compose"]
        if not shutil.which("podman-compose"):
            raise StackError("Docker is installed, but does not answer: start it, or let this user use it")
    if shutil.which("podman-compose"):
        return ["podman-compose"]
    raise StackError(
        "there is no Docker Compose and no podman-compose here: install one of them, "
        "or run the whole system without containers: make run"
    )


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


class Stack:
    """The containers of the project.

    Args:
        command: What runs compose files.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self._is_podman = command[0] == "podman-compose"

    def compose(
        self,
        *arguments: str,
        files: Sequence[str] = FILES,
        environ: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the compose program.

        Args:
            arguments: Its command and options.
            files: The compose files.
            environ: Further variables.
            check: Whether a failure ends this program.

        Returns:
            How it ended.

        Raises:
            StackError: It failed.
        """
        own = [OWN_FILE] if (HERE / OWN_FILE).exists() else []
        chosen = [part for name in (*files, *own) for part in ("-f", str(HERE / name))]
        # Rootless podman: the services' user is the user of this machine, to whom the CSV shall belong.
        rootless = {"PODMAN_USERNS": "keep-id"} if self._is_podman and os.getuid() else {}
        variables = {**os.environ, "COMPOSE_PROFILES": "everything", "PODMAN_COMPOSE_WARNING_LOGS": "false"}
        quiet = self._is_podman and arguments[0] in ("build", "up")
        with (HERE / "secrets" / "podman-compose.log").open("ab") if quiet else contextlib.nullcontext() as log:
            ended = subprocess.run(
                [*self._command, "-p", PROJECT, *chosen, *arguments],
                env={**variables, **rootless, **(environ or {})},
                cwd=HERE,
                stdout=log,  # it prints every command with every password in it
                stderr=log,
                check=False,
            )
        if check and ended.returncode:
            where = f"; see {short(HERE / 'secrets' / 'podman-compose.log')}" if quiet else ""
            raise StackError(f"`{' '.join([*self._command, *arguments])}` ended with status {ended.returncode}{where}")
        return ended

    def up(self, profile: str, scale: int, *, cluster: bool) -> None:
        """Build, start, and wait until all is well.

        Args:
            profile: `everything` or `minimal`.
            scale: How many workers.
            cluster: Whether RabbitMQ and Redis run on several nodes.

        Raises:
            StackError: Something does not become healthy.
        """
        values = prepare()
        files = FILES if cluster else FILES[:1]
        environ = {"SCALE": str(scale), "COMPOSE_PROFILES": profile}
        print("stack: building the image of the services", flush=True)
        self.compose("build", "queues", files=files, environ=environ)
        print("stack: starting; the first time the other images are fetched", flush=True)
        if not self._is_podman:
            self.compose("up", "--detach", "--wait", "--wait-timeout", f"{PATIENCE:.0f}", files=files, environ=environ)
        else:
            # podman-compose knows profiles only in its newer versions; names do the same in all of them.
            names = [] if profile == "everything" else _names_without(EVERYTHING, files)
            self.compose("up", "--detach", *names, files=files, environ=environ)
            self._wait_until_healthy()
        print("\nstack: everything is healthy\n")
        bind = values.get("CARPARK_BIND", "127.0.0.1")
        for name, port, hint in PLACES:
            if profile == "everything" or name not in EVERYTHING:
                print(f"  {name:11} http://{bind}:{port:<6} {hint}")
        print(f"\nThe passwords are in {short(HERE / '.env')}. `make logs` follows, `make down` stops.")

    def down(self) -> None:
        """Stop and remove the containers; the data stay."""
        if not self._is_podman:
            self.compose("down", "--remove-orphans")
            return
        # podman-compose would leave further workers alone, whose number is not in the file, and the network.
        for kind, removal in (
            ("ps", ("stop", "--time", "15")),
            ("ps", ("rm", "--force", "--volumes")),
            ("network", ("network", "rm")),
        ):
            if found := _podman_list(kind):
                subprocess.run(["podman", *removal, *found], stdout=subprocess.DEVNULL, check=False)

    def clean(self, data: Path) -> None:
        """Remove the containers with all that they keep.

        Args:
            data: The folder of the CSV.
        """
        self.down()
        if not self._is_podman:
            self.compose("down", "--volumes", "--remove-orphans")
        elif volumes := _podman_list("volume"):
            subprocess.run(["podman", "volume", "rm", *volumes], stdout=subprocess.DEVNULL, check=False)
        shutil.rmtree(data, ignore_errors=True)

    def show(self, command: str, options: Sequence[str]) -> int:
        """List the containers, or follow what they say.

        Args:
            command: `ps` or `logs`.
            options: Services, or options of the compose program.

        Returns:
            Its exit status.
        """
        follow = ["--follow", "--tail", "100"] if command == "logs" else []
        if not self._is_podman:
            return self.compose(command, *follow, *options, check=False).returncode
        # podman-compose shows its own commands between the lines, and of two files all that is in them.
        label = ["--filter", f"label=io.podman.compose.project={PROJECT}"]
        names = [name for name in _podman_list("ps") if not options or name.split("_")[1] in options]
        asked = ["logs", "--names", *follow, *names] if command == "logs" else ["ps", "--all", *label]
        return subprocess.run(["podman", *asked], check=False).returncode

    def _wait_until_healthy(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            ill = [name for name in _podman_list("ps") if not _is_healthy(name)]
            if not ill:
                return
            if time.monotonic() > deadline:
                raise StackError(f"not healthy after {PATIENCE:.0f} s: {', '.join(ill)}; look at `make logs`")
            time.sleep(2)


def _podman_list(kind: str) -> list[str]:
    command, key = {"ps": (["ps", "--all"], "Names"), "volume": (["volume", "ls"], "Name")}.get(
        kind, (["network", "ls"], "name")
    )
    label = f"label=io.podman.compose.project={PROJECT}"
    asked = ["podman", *command, "--filter", label, "--format", "json"]
    answer = subprocess.run(asked, capture_output=True, check=True, text=True).stdout
    names = [each[key] for each in json.loads(answer or "[]") or []]
    return [name[0] if isinstance(name, list) else name for name in names]


def _is_healthy(name: str) -> bool:
    # Where there is no systemd nothing but this asks a container how it is.
    return _succeeds("podman", "healthcheck", "run", name)


def _names_without(left_out: Sequence[str], files: Sequence[str]) -> list[str]:
    """Read the services' names from the compose files: the keys under `services:`."""
    names: dict[str, None] = {}
    for file in files:
        section = ""
        for line in (HERE / file).read_text(encoding="utf-8").splitlines():
            if line[:1].strip() and line.rstrip().endswith(":"):
                section = line
            elif section.startswith("services") and line[:2] == "  " and line[2:3].isalnum() and line.endswith(":"):
                names[line.strip(" :")] = None
    return [name for name in names if name not in left_out]


def _ask(data: Path, *, sure: bool) -> bool:
    if sure:
        return True
    print(f"This removes RabbitMQ's messages, Redis's records, Prometheus's and Grafana's data, and {short(data)}.")
    try:
        return input("Type yes to go on: ").strip() == "yes"
    except EOFError:
        print()
        return False


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says.

    Args:
        arguments: Without the program's name.

    Returns:
        The exit status: 0 well, 1 the work failed, 2 it cannot be done here.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("command", choices=["up", "down", "logs", "ps", "clean-data"])
    parser.add_argument("--profile", choices=["everything", "minimal"], default="everything", help="what `up` starts")
    parser.add_argument("--scale", type=int, default=1, metavar="N", help="how many workers `up` starts")
    parser.add_argument("--cluster", action="store_true", help="`up`: three RabbitMQ nodes, Redis with a replica")
    parser.add_argument("--yes", action="store_true", help="`clean-data` does not ask")
    given, rest = parser.parse_known_args(arguments)
    try:
        stack = Stack(engine())
    except StackError as error:
        print(f"{given.command}: {error}", file=sys.stderr)
        return 2
    try:
        return _do(stack, given, rest)
    except StackError as error:
        print(f"{given.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _do(stack: Stack, given: argparse.Namespace, rest: Sequence[str]) -> int:
    if given.command == "up":
        stack.up(given.profile, max(1, given.scale), cluster=given.cluster)
    elif not (HERE / ".env").exists():
        print(f"{given.command}: the stack was never started; `make up` does")
    elif given.command == "down":
        stack.down()
    elif given.command == "clean-data":
        data = HERE / read_env(HERE / ".env").get("STACK_DATA", "../../data/stack")
        if not _ask(data, sure=given.yes):
            print("clean-data: nothing was removed")
            return 1
        stack.clean(data)
    else:
        return stack.show(given.command, rest)
    return 0


if __name__ == "__main__":
    sys.exit(main())
