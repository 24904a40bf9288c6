"""deploy/compose/stack.py, which `make up` and its kin call: what it writes, what it asks compose for, what it says."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pika
import pika.exceptions
import pytest
import redis
import requests

from tests.deploy.files import COMPOSE, compose
from tests.support.dashboard_service import start_dashboard
from tests.support.helpers import eventually
from tests.support.processes import Processes

FAKE = """#!/bin/sh
echo "$SCALE $COMPOSE_PROFILES $*" >> "$CALLS"
exit 0
"""


class Copy:
    """deploy/compose in a folder of the test's own, with engines that only write down how they are called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "deploy" / "compose"
        own = shutil.ignore_patterns(".env", "secrets", "*.override.yaml", "__pycache__")
        shutil.copytree(COMPOSE, self.folder, ignore=own)
        self.data = folder / "data" / "stack"
        self.calls = folder / "calls"
        self.bin = folder / "bin"
        self.bin.mkdir()

    def engine(self, name: str) -> None:
        program = self.bin / name
        program.write_text(FAKE, encoding="utf-8")
        program.chmod(0o755)

    def run(self, *arguments: str, said: str = "") -> subprocess.CompletedProcess[str]:
        environ = {"PATH": str(self.bin), "CALLS": str(self.calls), "HOME": "/nonexistent"}
        command = [sys.executable, str(self.folder / "stack.py"), *arguments]
        return subprocess.run(command, input=said, capture_output=True, text=True, env=environ, check=False)

    @property
    def called(self) -> str:
        return self.calls.read_text(encoding="utf-8") if self.calls.exists() else ""

    @property
    def env(self) -> dict[str, str]:
        lines = (self.folder / ".env").read_text(encoding="utf-8").splitlines()
        return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


@pytest.mark.parametrize("command", ["up", "down", "logs", "ps", "clean-data"])
def test_without_an_engine_one_line_points_at_make_run(copy: Copy, command: str) -> None:
    ended = copy.run(command)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"{command}: there is no Docker Compose and no podman-compose here")
    assert ended.stderr.endswith("make run\n")
    assert ended.stderr.count("\n") == 1
    assert not (copy.folder / ".env").exists()


def test_the_first_start_writes_secrets_that_only_their_owner_can_read(copy: Copy) -> None:
    copy.engine("docker")
    ended = copy.run("up")
    assert ended.returncode == 0, ended.stderr
    mode = stat.S_IMODE((copy.folder / ".env").stat().st_mode)
    assert mode == 0o600
    assert stat.S_IMODE((copy.folder / "secrets").stat().st_mode) == 0o700
    secret = {name: value for name, value in copy.env.items() if name.endswith(("PASSWORD", "TOKEN", "COOKIE"))}
    assert len(secret) == 11
    assert len(set(secret.values())) == 11
    assert all(len(value) >= 32 for value in secret.values())
    assert not any(value in ended.stdout for value in secret.values())
    assert copy.env["STACK_UID"] == str(os.getuid() or 10001)
    redis = (copy.folder / "secrets" / "redis.conf").read_text(encoding="utf-8")
    assert f"requirepass {secret['REDIS_PASSWORD']}\n" in redis


def test_a_later_start_keeps_them_and_adds_what_is_missing(copy: Copy) -> None:
    copy.engine("docker")
    (copy.folder / ".env").write_text("CARPARK_BIND=0.0.0.0\nREDIS_PASSWORD=mine\nCARPARK_RATE=20", encoding="utf-8")
    assert copy.run("up").returncode == 0
    first = copy.env
    assert copy.run("up").returncode == 0
    assert copy.env == first
    assert (first["CARPARK_BIND"], first["REDIS_PASSWORD"], first["CARPARK_RATE"]) == ("0.0.0.0", "mine", "20")
    assert "RABBITMQ_WORKER_PASSWORD" in first


def test_what_was_there_for_all_to_read_is_their_owners_alone_after_any_start(copy: Copy) -> None:
    copy.engine("docker")
    env, secrets = copy.folder / ".env", copy.folder / "secrets"
    env.write_text("CARPARK_RATE=20\n", encoding="utf-8")
    secrets.mkdir()
    for _ in ("secrets are added", "nothing is missing"):
        env.chmod(0o644)
        secrets.chmod(0o755)
        assert copy.run("up").returncode == 0
        assert "REDIS_PASSWORD" in copy.env
        assert stat.S_IMODE(env.stat().st_mode) == 0o600
        assert stat.S_IMODE(secrets.stat().st_mode) == 0o700


def test_docker_compose_is_asked_for_what_the_options_say(copy: Copy) -> None:
    copy.engine("docker")
    assert copy.run("up", "--scale", "4", "--profile", "minimal").returncode == 0
    assert copy.run("up", "--cluster").returncode == 0
    assert copy.run("down").returncode == 0
    calls = [line for line in copy.called.splitlines() if " -p carpark " in line]
    first, second = (line for line in calls if " up --detach --wait " in line)
    assert first.startswith("4 minimal compose -p carpark")
    assert "cluster.yaml" not in first
    assert second.startswith("1 everything compose")
    assert "cluster.yaml" in second
    assert calls[-1].endswith(" down --remove-orphans")
    assert "cluster.yaml" in calls[-1]
    assert sum(line.endswith(" build queues") for line in calls) == 2


def test_an_override_of_the_users_own_is_taken_too(copy: Copy) -> None:
    copy.engine("docker")
    (copy.folder / "compose.override.yaml").write_text("services: {}\n", encoding="utf-8")
    copy.run("up")
    assert "compose.override.yaml up" in copy.called


def test_clean_data_asks_first(copy: Copy) -> None:
    copy.engine("docker")
    copy.run("up")
    (copy.data / "summaries.csv").write_text("id\n", encoding="utf-8")
    for answer in ("", "no\n", "y\n"):
        ended = copy.run("clean-data", said=answer)
        assert ended.returncode == 1
        assert "nothing was removed" in ended.stdout
        assert (copy.data / "summaries.csv").exists()
    assert "--volumes" not in copy.called
    assert copy.run("clean-data", said="yes\n").returncode == 0
    assert "down --volumes" in copy.called
    assert not copy.data.exists()


def test_commands_before_the_first_start_say_so(copy: Copy) -> None:
    copy.engine("docker")
    for command in ("down", "logs", "ps", "clean-data"):
        ended = copy.run(command)
        assert (ended.returncode, ended.stdout) == (0, f"{command}: the stack was never started; `make up` does\n")


def test_what_minimal_names_for_podman_compose_are_the_files_services(copy: Copy) -> None:
    source = "import stack; print(*stack._names_without(stack.EVERYTHING, stack.FILES[:1]))"
    ended = subprocess.run([sys.executable, "-c", source], cwd=copy.folder, capture_output=True, text=True, check=True)
    services = compose()["services"]
    assert ended.stdout.split() == [name for name, service in services.items() if "profiles" not in service]


@pytest.fixture
def definitions(copy: Copy, management_url: str) -> Iterator[dict[str, Any]]:
    """The definitions that a first start writes, in the test's RabbitMQ."""
    copy.engine("docker")
    copy.run("up")
    made = json.loads((copy.folder / "secrets" / "definitions.json").read_text(encoding="utf-8"))
    # RabbitMQ before 3.12 knows no policy for quorum queues alone; it is not what is tried here.
    taken = {name: part for name, part in made.items() if name != "policies"}
    try:
        requests.post(f"{management_url}/api/definitions", json=taken, timeout=30).raise_for_status()
        yield copy.env
    finally:
        requests.delete(f"{management_url}/api/vhosts/carpark", timeout=30)
        for user in made["users"]:
            requests.delete(f"{management_url}/api/users/{user['name']}", timeout=30)


class Users:
    """The stack's users in the test's RabbitMQ.

    Args:
        passwords: The variables of `.env`.
        broker_url: Where it is.
        management_url: Its management API.
        further: Variables of every service.
    """

    def __init__(
        self, passwords: dict[str, str], broker_url: str, management_url: str, further: dict[str, str]
    ) -> None:
        where = pika.URLParameters(broker_url)
        self._passwords, self._there, self._further = passwords, f"{where.host}:{where.port}", further
        self._management = management_url.partition("@")[2]

    def environ(self, user: str) -> dict[str, str]:
        """Give the variables of a service."""
        login = f"{user}:{self._passwords[f'RABBITMQ_{user.upper()}_PASSWORD']}"
        broker, management = f"amqp://{login}@{self._there}/carpark", f"http://{login}@{self._management}"
        return {**self._further, "CARPARK_BROKER_URL": broker, "CARPARK_MANAGEMENT_URL": management}

    def url(self, user: str) -> str:
        """Give the broker's URL of a user."""
        return self.environ(user)["CARPARK_BROKER_URL"]


@pytest.fixture
def users(definitions: dict[str, str], broker_url: str, management_url: str, redis_url: str, tmp_path: Path) -> Users:
    further = {"CARPARK_REDIS_URL": redis_url, "CARPARK_METRICS_PORT": "0", "CARPARK_DASHBOARD_PORT": "0"}
    further |= {"CARPARK_SINKS": "jsonl", "CARPARK_SINK_JSONL": str(tmp_path / "stays.jsonl")}
    return Users(definitions, broker_url, management_url, further)


@pytest.mark.servers
@pytest.mark.slow
def test_each_service_does_its_work_as_its_own_user(users: Users, processes: Processes, store: redis.Redis) -> None:
    queues = processes.start(["carpark", "queues", "--once"], env=users.environ("queues"))
    assert queues.wait() == 0, queues.output
    assert "unacknowledged messages are not counted" not in queues.output
    worker = processes.start(["carpark", "worker", "--processes", "1", "--threads", "2"], env=users.environ("worker"))
    for kind in ("entry", "exit"):
        camera = processes.start(
            ["carpark", "generate", kind, "--rate", "100", "--events", "30"],
            env={**users.environ(kind), "CARPARK_MATCH_RATIO": "1"},
        )
        assert camera.wait() == 0, camera.output
        with pika.BlockingConnection(pika.URLParameters(users.url(kind))) as connection:
            connection.channel().basic_publish("vehicle_events", f"vehicle_{kind}", b"garbage")
    eventually(lambda: store.hget("carpark:counts", "exit/rejected") == "1", 60, "the worker has dead-lettered garbage")
    eventually(lambda: int(store.hget("carpark:counts", "summaries/jsonl/delivered") or 0) == 30, 60, "stays")
    as_dashboard = users.environ("dashboard")
    listed = processes.start(["carpark", "dlq", "list", "--json"], env=as_dashboard)
    assert listed.wait() == 0, listed.output
    assert listed.output.count("the body is not JSON") == 2
    _, url = start_dashboard(processes, as_dashboard)
    with requests.Session() as session:
        session.trust_env = False
        eventually(lambda: "No worker is connected" not in session.get(url, timeout=30).text, 60, "it names the worker")
        assert "the body is not JSON" in session.get(f"{url}/queues/vehicle_entry/failed", timeout=30).text
    for command in (["requeue", "--all", "--queue", "vehicle_entry"], ["purge", "--all", "--yes"]):
        moved = processes.start(["carpark", "dlq", *command], env=as_dashboard)
        assert moved.wait() == 0, moved.output
        assert "1 dead letter" in moved.output or "2 dead letters" in moved.output
    worker.terminate()
    assert worker.wait() == 0
    assert "ACCESS_REFUSED" not in worker.output


@pytest.mark.servers
def test_no_user_of_the_stack_may_do_what_is_anothers(users: Users, processes: Processes) -> None:
    declared = processes.start(["carpark", "queues", "--once"], env=users.environ("queues"))
    assert declared.wait() == 0, declared.output

    def refuses(user: str, harm: Callable[[Any], object]) -> bool:
        with pika.BlockingConnection(pika.URLParameters(users.url(user))) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            try:
                harm(channel)
            except pika.exceptions.ChannelClosedByBroker as error:
                return error.reply_code == 403
            return False

    def declares(channel: Any) -> None:
        channel.queue_declare("another")

    def deletes(channel: Any) -> None:
        channel.queue_delete("vehicle_entry.DQ")

    def publishes(channel: Any) -> None:
        channel.basic_publish("", "vehicle_entry", b"{}", mandatory=True)

    def takes(channel: Any) -> None:
        channel.basic_get("vehicle_entry.XQ")

    def binds(channel: Any) -> None:
        channel.queue_bind("carpark_work", "vehicle_events", "vehicle_entry")

    harms = (declares, deletes, publishes, takes, binds)
    refused = {
        user: {h.__name__ for h in harms if refuses(user, h)}
        for user in ("queues", "worker", "entry", "exit", "dashboard")
    }
    every = {h.__name__ for h in harms}
    assert refused == {
        "queues": {"declares", "binds"},
        "worker": {"declares", "binds"},
        "entry": every,
        "exit": every,
        "dashboard": every - {"publishes", "takes"},
    }


@pytest.mark.servers
def test_a_camera_of_the_stack_waits_until_its_queue_is_declared(users: Users, processes: Processes) -> None:
    cameras = {
        kind: processes.start(
            ["carpark", "generate", kind, "--rate", "50", "--events", "20"],
            env={**users.environ(kind), "CARPARK_MATCH_RATIO": "0"},
        )
        for kind in ("entry", "exit")
    }
    for kind, camera in cameras.items():
        camera.wait_for_line(f"has no queue vehicle_{kind} behind vehicle_events, and this user may not declare it")
    declared = processes.start(["carpark", "queues", "--once"], env=users.environ("queues"))
    assert declared.wait() == 0, declared.output
    for kind, camera in cameras.items():
        assert camera.wait() == 0, camera.output
        assert "the queue is there after" in camera.output
        with pika.BlockingConnection(pika.URLParameters(users.url(kind))) as connection:
            queue = connection.channel().queue_declare(f"vehicle_{kind}", passive=True)
            assert queue.method.message_count == 20
