"""Fixtures for all tests: servers, settings, processes. What they start, they end."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, urlsplit

import click
import hypothesis
import pika
import pytest
import redis
import requests
from pika.adapters.blocking_connection import BlockingChannel

from carpark.cli import carpark
from carpark.rabbitmq.management import virtual_host_of
from carpark.rabbitmq.topology import EXCHANGE, all_queues, declare_queues, with_companions
from carpark.settings import Settings, load_settings
from carpark.settings.options import run_command
from carpark.settings.values import management_url_of
from tests.support.guard import GUARD
from tests.support.helpers import find_free_port
from tests.support.processes import Processes, RunHere
from tests.support.recorder import Recorder
from tests.support.servers import (
    BROKER_VARIABLE,
    REDIS_VARIABLE,
    UNMARKED_VARIABLE,
    RabbitmqServer,
    RedisServer,
    Server,
    VirtualHost,
    find_program,
    is_management_there,
)

# Machines that run tests are shared: how long an example takes says nothing about the code.
hypothesis.settings.register_profile("carpark", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("carpark")

SERVER_FIXTURES = {
    *("rabbitmq_server", "redis_server", "broker_url", "redis_url", "private_rabbitmq", "private_redis"),
    *("start_prometheus", "browser"),
}
OUR_QUEUES = [name for queue in all_queues(4) for name in with_companions(queue)]
PROCESSES = pytest.StashKey[Processes]()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Say how many processes `make test` runs tests in: one per processor, none beside this if servers are named.

    Four at most: each starts a RabbitMQ and a Redis of its own.
    """
    return 0 if {BROKER_VARIABLE, REDIS_VARIABLE} & os.environ.keys() else min(4, os.cpu_count() or 1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests whose fixtures are servers; the others that need one are marked where they stand."""
    for item in items:
        if SERVER_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.servers)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let `find_program` refuse a test that is not marked as one that needs servers."""
    with pytest.MonkeyPatch.context() as patch:
        if not item.get_closest_marker("servers"):
            patch.setenv(UNMARKED_VARIABLE, item.name)
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what a failed test's processes printed."""
    report = yield
    processes = item.stash.get(PROCESSES, None)
    if report.failed and processes is not None:
        report.sections.extend(processes.report())
    return report


def pytest_unconfigure() -> None:
    """End whatever is still there."""
    GUARD.close()


@pytest.fixture(scope="session", autouse=True)
def _own_environment() -> Iterator[None]:
    """Keep the settings of whoever runs the tests out of them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("CARPARK_") and "_TEST_" not in name]:
            patch.delenv(name)
        yield


@contextlib.contextmanager
def _running(server: Server) -> Iterator[Server]:
    try:
        missing = [name for name in server.programs if find_program(name) is None]
        if missing:
            pytest.fail(
                f"needs a server of its own, and there is no {' and no '.join(missing)}; see `make test`", False
            )
        server.start()
        yield server
    finally:
        server.close()


class NamedServer:
    """A server that a variable names; it cannot be stopped.

    Args:
        url: Its URL.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.management_url = os.environ.get("CARPARK_TEST_MANAGEMENT_URL") or management_url_of(url)

    def start(self) -> None:
        """Do nothing: it runs."""


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[RabbitmqServer | NamedServer]:
    """The RabbitMQ of the test run: `url` and `management_url`. Tests that kill it take `private_rabbitmq`."""
    if url := os.environ.get(BROKER_VARIABLE):
        yield NamedServer(url)
        return
    with _running(RabbitmqServer()) as server:
        yield server  # type: ignore[misc]


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer | NamedServer]:
    """The Redis of the test run: `url`. Tests that kill it take `private_redis`."""
    if url := os.environ.get(REDIS_VARIABLE):
        for number in (0, 1):
            with _database(url, number) as client:
                if keys := client.dbsize():
                    held = f"database {number} holds {keys} keys"
                    pytest.exit(f"{REDIS_VARIABLE}: tests empty databases 0 and 1, and {held}", returncode=2)
        yield NamedServer(url)
        return
    with _running(RedisServer()) as server:
        yield server  # type: ignore[misc]


@pytest.fixture(scope="session")
def _killable_rabbitmq(request: pytest.FixtureRequest) -> Iterator[RabbitmqServer]:
    if not os.environ.get(BROKER_VARIABLE):
        yield request.getfixturevalue("rabbitmq_server")
        return
    with _running(RabbitmqServer()) as server:
        yield server  # type: ignore[misc]


@pytest.fixture
def private_rabbitmq(_killable_rabbitmq: RabbitmqServer) -> Iterator[RabbitmqServer]:
    """A RabbitMQ that the test may `kill`, `stop` and `start`; its default virtual host is empty of our queues.

    Together with `broker_url` it is that fixture's server, unless ``CARPARK_TEST_BROKER_URL`` names one: a test that
    kills uses this one's `url`.
    """
    _killable_rabbitmq.start()
    _delete_our_queues(_killable_rabbitmq.url)
    yield _killable_rabbitmq
    _killable_rabbitmq.start()
    _delete_our_queues(_killable_rabbitmq.url)


@pytest.fixture
def private_redis() -> Iterator[RedisServer]:
    """An empty Redis of the test's own that keeps every write, and that it may `kill`, `stop` and `start`."""
    with _running(RedisServer(appendonly=True)) as server:
        yield server  # type: ignore[misc]


@pytest.fixture
def broker_url(rabbitmq_server: RabbitmqServer | NamedServer) -> Iterator[str]:
    """The URL of an empty virtual host, removed after the test."""
    rabbitmq_server.start()
    if not is_management_there(rabbitmq_server.management_url):
        _delete_our_queues(rabbitmq_server.url)
        yield rabbitmq_server.url
        _delete_our_queues(rabbitmq_server.url)
        return
    host = VirtualHost(rabbitmq_server.url, rabbitmq_server.management_url)
    yield host.url
    host.close()


@pytest.fixture
def management_url(rabbitmq_server: RabbitmqServer | NamedServer) -> str:
    """RabbitMQ's management API, user and password included."""
    return rabbitmq_server.management_url


@pytest.fixture
def redis_url(redis_server: RedisServer | NamedServer) -> Iterator[str]:
    """The URL of database 0; it and database 1 are empty."""
    redis_server.start()
    _flush(redis_server.url)
    yield redis_server.url
    _flush(redis_server.url)


@pytest.fixture
def make_user(broker_url: str, management_url: str) -> Iterator[Callable[..., str]]:
    """Make a user with the rights `configure`, `write` and `read`, each none by default; gives the broker's URL."""
    host = virtual_host_of(broker_url)
    made: list[str] = []

    def make(**rights: str) -> str:
        made.append(f"user{len(made)}-{host.strip('/')}")
        permissions = {"configure": "^$", "write": "^$", "read": "^$", **rights}
        for path, json in (
            ("users", {"password": "pw", "tags": ""}),
            (f"permissions/{quote(host, safe='')}", permissions),
        ):
            answer = requests.put(f"{management_url}/api/{path}/{made[-1]}", json=json, timeout=10)
            answer.raise_for_status()
        split = urlsplit(broker_url)
        return split._replace(netloc=f"{made[-1]}:pw@{split.hostname}:{split.port}").geturl()

    yield make
    for user in made:
        requests.delete(f"{management_url}/api/users/{user}", timeout=10)


@pytest.fixture
def free_port() -> int:
    """A port on 127.0.0.1 that nothing listens on."""
    return find_free_port()


@pytest.fixture
def make_settings(tmp_path: Path) -> Callable[..., Settings]:
    """Make settings: `make_settings(rate=100, sinks="http-csv")`, each value as its text would be.

    What is not given is as embedded, with every port free-chosen and the CSV in the test's folder.
    """

    def make(**overrides: object) -> Settings:
        given = {
            "broker_url": "stub://",
            "redis_url": "memory://",
            "csv": tmp_path / "summaries.csv",
            "writer_port": 0,
            "dashboard_port": 0,
            "metrics_port": 0,
            **overrides,
        }
        return load_settings({}, {name: str(value) for name, value in given.items()})

    return make


@pytest.fixture
def server_environ(broker_url: str, management_url: str, redis_url: str, tmp_path: Path) -> dict[str, str]:
    """Variables that make a process use this test's servers, free ports and a CSV in the test's folder."""
    return {
        "CARPARK_BROKER_URL": broker_url,
        "CARPARK_MANAGEMENT_URL": management_url,
        "CARPARK_REDIS_URL": redis_url,
        "CARPARK_CSV": str(tmp_path / "summaries.csv"),
        "CARPARK_WRITER_PORT": "0",
        "CARPARK_DASHBOARD_PORT": "0",
        "CARPARK_METRICS_PORT": "0",
    }


@pytest.fixture
def channel(broker_url: str) -> Iterator[BlockingChannel]:
    """A channel to this test's RabbitMQ, with all queues declared."""
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        channel = connection.channel()
        declare_queues(channel)
        yield channel


@pytest.fixture
def store(redis_url: str) -> Iterator[redis.Redis]:
    """A client of this test's Redis."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def processes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Processes]:
    """Starts real processes: `processes.start(["carpark", "writer"], env={...})`; all are ended with the test."""
    folder = tmp_path / "processes"
    folder.mkdir()
    started = Processes(folder, {})
    request.node.stash[PROCESSES] = started
    yield started
    started.close()


def _database(url: str, number: int) -> redis.Redis:
    client = redis.Redis.from_url(url)
    client.connection_pool.connection_kwargs["db"] = number
    return client


def _flush(url: str) -> None:
    for number in (0, 1):
        with _database(url, number) as client:
            client.flushdb()


def _delete_our_queues(url: str) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    for name in OUR_QUEUES:
        channel.queue_delete(name)
    channel.exchange_delete(EXCHANGE)
    connection.close()


@pytest.fixture
def run_here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> RunHere:
    """Run a command as a program does, in this process: `run_here(["doctor", "--json"], {"CARPARK_RATE": "2"})`.

    A process takes a third of a second until it runs. Signals, terminals and what happens at the end need one.
    """

    def run(
        arguments: Sequence[str], environ: Mapping[str, str] | None = None, command: click.Command = carpark
    ) -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as patch:
            for name, text in (environ or {}).items():
                patch.setenv(name, text)
            with pytest.raises(SystemExit) as ended:
                run_command(command, arguments)
        assert isinstance(ended.value.code, int)
        return subprocess.CompletedProcess(arguments, ended.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def sink() -> Iterator[Recorder]:
    """Give a server that takes summaries and remembers them."""
    with Recorder() as recorder:
        yield recorder
