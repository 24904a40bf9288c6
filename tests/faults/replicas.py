"""Faults that need more than one server of a kind: nodes of a RabbitMQ cluster, a Redis primary under Sentinel.

Each is a system of its own: `with cluster_rig(folder) as rig` and then `nodes_die_in_turn(rig)`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from carpark.domain.canonical import canonical_plate
from carpark.ops.audit import Verdict
from carpark.records.connection import connect
from tests.faults.rig import Broker, Rig
from tests.support.clustered import RabbitmqCluster, rabbitmq_cluster
from tests.support.helpers import eventually
from tests.support.replicated import ReplicatedRedis, replicated_redis
from tests.support.servers import RedisServer

NODES_DIE = "one of three RabbitMQ nodes SIGKILL, then another when the first is back"
PRIMARY_DIES = "Redis primary SIGKILL under Sentinel, its replica seconds behind: lost is what it never heard"


@contextmanager
def cluster_rig(folder: Path) -> Iterator[Rig]:
    """Start the system on three RabbitMQ nodes with quorum queues.

    Args:
        folder: Where files and logs go.

    Yields:
        The system under load; its broker is the cluster.
    """
    store = RedisServer(appendonly=True)
    try:
        store.start()
        with rabbitmq_cluster() as cluster:
            environ = {"CARPARK_QUEUE_TYPE": "quorum"}
            with Rig(cluster, store, folder, through_proxy=False, environ=environ) as rig:
                yield rig
    finally:
        store.close()


def nodes_die_in_turn(rig: Rig) -> Verdict:
    """Kill a node, let the others work without it, start it again; then the same with another one.

    The first is the one that every service is connected to and that has the dead letters.

    Args:
        rig: The system of `cluster_rig`.

    Returns:
        The verdict: nothing lost, nothing twice, nothing unexpected.
    """
    cluster = cast(RabbitmqCluster, rig.rabbitmq)
    rig.wait_for_progress()
    for node in cluster.nodes[:2]:
        node.kill()
        rig.wait_for_progress()
        assert not node.is_running
        node.start()
        eventually(lambda: cluster.running() == len(cluster.nodes), 90, "the node is back in the cluster")
        rig.wait_for_progress()
    return rig.settle()


@contextmanager
def failover_rig(folder: Path, broker: Broker) -> Iterator[Rig]:
    """Start the system on a Redis with a replica, watched by three Sentinels.

    Args:
        folder: Where files and logs go.
        broker: A RabbitMQ with an empty virtual host.

    Yields:
        The system under load; its `redis` is the pair.
    """
    with replicated_redis() as pair, Rig(broker, cast(RedisServer, pair), folder) as rig:
        yield rig


def primary_dies(rig: Rig) -> Verdict:
    """Cut the replica off, let the primary record on, and kill it: the replica becomes the primary, seconds behind.

    What the replica never heard is lost, and the audit has to show exactly that: each count is short by these events,
    and every finding is about a vehicle of one of them. What came later is right.

    Args:
        rig: The system of `failover_rig`.

    Returns:
        The verdict, with its findings.
    """
    pair = cast(ReplicatedRedis, rig.redis)
    rig.wait_for_progress()
    pair.stop_following()
    eventually(lambda: len(_unheard(pair)) >= 15, 60, "the primary knows what its replica does not")
    _stand_still(rig)
    lost = _unheard(pair)
    pair.primary.kill()
    _go_on(rig)
    rig.wait_for_progress()
    eventually(lambda: pair.primary_port == pair.replica.port, 20, "every Sentinel has heard of the new primary")
    _stand_still(rig)
    verdict = rig.verdict(show=100_000)
    said = json.dumps({"lost": sorted(lost), **verdict.to_dict()}, indent=1)
    known = sum(verdict.records[name] for name in ("recorded", "matched", "unmatched"))
    # A camera that stands still may have written down an event that it has not sent yet.
    assert known == verdict.published - verdict.pending - len(lost), said
    plates = _plates(rig, lost)
    found = {line.split()[0] for lines in verdict.findings.values() for line in lines}
    assert found, said
    assert found <= plates, f"{found - plates}\n{said}"
    assert verdict.duplicated == 0, said
    _go_on(rig)
    return verdict


def _stand_still(rig: Rig) -> None:
    """Stop the cameras and wait for the queues; not for what is undelivered: that it was delivered may be forgotten."""
    for camera in rig.cameras:
        camera.pause()
    eventually(lambda: _is_empty(rig) and _is_empty(rig), 100, "the queues are empty", interval=0.2)


def _is_empty(rig: Rig) -> bool:
    return rig.left().keys() <= {"undelivered"}


def _go_on(rig: Rig) -> None:
    for camera in rig.cameras:
        camera.go_on()


def _unheard(pair: ReplicatedRedis) -> set[tuple[str, str]]:
    """Every event that the first primary knows and its replica does not: its kind and id."""
    return _known_to(pair.primary.url) - _known_to(pair.replica.url)


def _known_to(url: str) -> set[tuple[str, str]]:
    """Every event that a Redis knows."""
    client = connect(url)
    known = {(kind, str(id_)) for kind in ("entry", "exit") for id_ in client.zrange(f"carpark:seen:{kind}", 0, -1)}
    client.close()
    return known


def _plates(rig: Rig, events: set[tuple[str, str]]) -> set[str]:
    """The plates of events, as the journals have them."""
    plates = set()
    for journal in rig.journals:
        for line in journal.read_text(encoding="utf-8").splitlines():
            event = json.loads(line)
            kind = "entry" if "entry_date_time" in event else "exit"
            if (kind, event.get("id")) in events:
                plates.add(canonical_plate(event["vehicle_plate"]))
    return plates
