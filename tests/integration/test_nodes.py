"""A cluster of which a node's name is unknown, as that of a container that is gone: everybody goes on to the next."""

from __future__ import annotations

import pytest
import redis

from carpark.rabbitmq.connection import connection_parameters, resolvable
from tests.support.helpers import eventually
from tests.support.processes import Processes

GONE = "amqp://guest:guest@no-such-host.invalid:5672"
EVENTS = 20


def test_nodes_without_an_address_are_left_out_unless_all_are() -> None:
    for urls, hosts in {
        f"{GONE};amqp://127.0.0.1": ["127.0.0.1"],
        f"amqp://127.0.0.1;{GONE};amqp://localhost": ["127.0.0.1", "localhost"],
        f"{GONE};{GONE}": ["no-such-host.invalid"] * 2,
        GONE: ["no-such-host.invalid"],
    }.items():
        assert [each.host for each in resolvable(connection_parameters(urls, "test"))] == hosts


@pytest.mark.servers
def test_every_service_connects_to_the_node_that_is_there(
    processes: Processes, server_environ: dict[str, str], broker_url: str, redis_url: str
) -> None:
    environ = {**server_environ, "CARPARK_BROKER_URL": f"{GONE};{broker_url}", "CARPARK_SINKS": "stdout"}
    assert processes.start(["carpark", "queues", "--once"], env=environ).wait() == 0
    processes.start(["carpark", "worker", "--processes", "1", "--threads", "1"], env=environ)
    camera = processes.start(["carpark", "generate", "entry", "--events", str(EVENTS), "--rate", "200"], env=environ)
    assert camera.wait(60) == 0
    with redis.Redis.from_url(redis_url) as client:
        eventually(lambda: client.scard("entry_plates") == EVENTS, 60, "every entry is recorded")
