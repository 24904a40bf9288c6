"""A RabbitMQ cluster with quorum queues under load: its nodes are killed one after another, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clustered import RabbitmqCluster, rabbitmq_cluster
from tests.conftest import PROCESSES
from tests.faults.rig import Rig
from tests.helpers import eventually
from tests.servers import RedisServer

pytestmark = pytest.mark.servers


@pytest.fixture
def cluster() -> Iterator[RabbitmqCluster]:
    with rabbitmq_cluster() as cluster:
        yield cluster


@pytest.fixture
def rig(request: pytest.FixtureRequest, cluster: RabbitmqCluster, tmp_path: Path) -> Iterator[Rig]:
    store = RedisServer(appendonly=True)
    try:
        store.start()
        with Rig(
            cluster, store, tmp_path / "rig", through_proxy=False, environ={"CARPARK_QUEUE_TYPE": "quorum"}
        ) as rig:
            request.node.stash[PROCESSES] = rig.processes
            yield rig
    finally:
        store.close()


@pytest.mark.timeout(600)
def test_a_node_is_killed_and_then_another_when_the_first_is_back(cluster: RabbitmqCluster, rig: Rig) -> None:
    """The first one has the dead letters, and every service is connected to it."""
    rig.wait_for_progress()
    for node in cluster.nodes[:2]:
        node.kill()
        # The other two go on, without it.
        rig.wait_for_progress()
        assert not node.is_running
        node.start()
        eventually(lambda: cluster.running() == len(cluster.nodes), 90, "the node is back in the cluster")
        rig.wait_for_progress()
    verdict = rig.settle()
    assert verdict.published > 0
