"""A RabbitMQ cluster that loses its nodes in turn, and a Redis primary that dies under Sentinel, each under load."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import PROCESSES
from tests.faults.conftest import HostedBroker
from tests.faults.replicas import cluster_rig, failover_rig, nodes_die_in_turn, primary_dies
from tests.support.servers import RabbitmqServer

pytestmark = pytest.mark.servers


@pytest.mark.timeout(600)
def test_nodes_of_a_cluster_die_in_turn_and_nothing_is_lost_or_there_twice(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with cluster_rig(tmp_path / "rig") as rig:
        request.node.stash[PROCESSES] = rig.processes
        verdict = nodes_die_in_turn(rig)
    assert (verdict.lost, verdict.duplicated, verdict.unexpected) == (0, 0, 0)


@pytest.mark.timeout(400)
def test_a_new_primary_lacks_what_it_never_heard_and_the_audit_shows_exactly_that(
    request: pytest.FixtureRequest, rabbitmq_server: RabbitmqServer, tmp_path: Path
) -> None:
    broker = HostedBroker(rabbitmq_server)
    try:
        with failover_rig(tmp_path / "rig", broker) as rig:
            request.node.stash[PROCESSES] = rig.processes
            verdict = primary_dies(rig)
    finally:
        broker.close()
    assert verdict.lost
