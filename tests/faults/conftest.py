"""One system under load for all faults of a module; one that a failed test has left in ruins is replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.conftest import PROCESSES
from tests.faults.rig import Rig
from tests.support.servers import RabbitmqServer, RedisServer, VirtualHost


class HostedBroker:
    """A RabbitMQ with a virtual host of its own.

    Args:
        server: The RabbitMQ.
    """

    def __init__(self, server: RabbitmqServer) -> None:
        self._server = server
        server.start()
        self._host = VirtualHost(server.url, server.management_url)
        self.url, self.management_url = self._host.url, server.management_url

    @property
    def group(self) -> int:
        """The id of its process group."""
        return self._server.group

    def start(self) -> None:
        """Start it, if it does not run."""
        self._server.start()

    def kill(self) -> None:
        """End it with SIGKILL."""
        self._server.kill()

    def close(self) -> None:
        """Remove the virtual host."""
        self._server.start()
        self._host.close()


@pytest.fixture(scope="module")
def _rigs(
    _killable_rabbitmq: RabbitmqServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[bool], Rig]]:
    current: list[Rig] = []

    def end() -> None:
        rig = current.pop()
        rig.close()
        rig.redis.close()
        rig.rabbitmq.close()  # type: ignore[attr-defined]

    def get(fresh: bool) -> Rig:
        if current and fresh:
            end()
        if not current:
            broker, store = HostedBroker(_killable_rabbitmq), RedisServer(appendonly=True)
            store.start()
            rig = Rig(broker, store, tmp_path_factory.mktemp("rig"))
            current.append(rig)
            rig.__enter__()
        return current[0]

    yield get
    if current:
        end()


@pytest.fixture
def rig(request: pytest.FixtureRequest, _rigs: Callable[[bool], Rig]) -> Iterator[Rig]:
    """The system under load, with everything well."""
    module = request.node.parent
    rig = _rigs(bool(module.stash.get(_RUINED, False)))
    module.stash[_RUINED] = True
    request.node.stash[PROCESSES] = rig.processes
    yield rig
    module.stash[_RUINED] = request.node.stash.get(_FAILED, True)


_RUINED = pytest.StashKey[bool]()
_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[pytest.TestReport]:  # type: ignore[misc]
    """Remember whether a test failed."""
    report = yield
    if report.when == "call":
        item.stash[_FAILED] = report.failed
    return report
