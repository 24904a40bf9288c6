"""The first effect of each event is in its queue's order, whatever ends, freezes or cuts off the process at work."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pika
import pytest
import redis
import requests

from carpark.broker.topology import EVENT_QUEUES, declare_queues
from carpark.management import virtual_host_of
from tests.garbage import bare
from tests.helpers import eventually
from tests.processes import Process, Processes

READY = "Worker process is ready for action"
HELD, LEFT = "held", "left"  # as tests/ordered.py knows them
EVENTS, HELD_AT = 4_000, 500
KINDS = ("classic", "quorum")


@dataclass(frozen=True)
class Active:
    """Who works on a queue.

    Args:
        pid: The process.
        connection: RabbitMQ's name for its connection.
    """

    pid: int
    connection: str


class Park:
    """Queues full of numbered events, and workers that write down their order."""

    def __init__(self, broker_url: str, management_url: str, store: redis.Redis, kind: str) -> None:
        self.kind, self.store = kind, store
        self.management_url = management_url
        self._host = virtual_host_of(broker_url)
        self._connection = pika.BlockingConnection(pika.URLParameters(broker_url))
        self.channel = self._connection.channel()
        declare_queues(self.channel, queue_type=kind)

    def fill(self, events: int = EVENTS) -> None:
        """Publish events to both queues, and wait until RabbitMQ has them."""
        channel = self._connection.channel()
        channel.confirm_delivery()
        for queue in EVENT_QUEUES:
            field = queue.removeprefix("vehicle_")
            times = {"entry_date_time": None, f"{field}_date_time": "2026-11-23T18:00:00Z"}
            for number in range(events):
                channel.basic_publish("", queue, bare(id=str(number), **times), pika.BasicProperties(delivery_mode=2))
        channel.close()

    def ready(self, queue: str) -> int:
        """Count what waits in a queue and is in nobody's hand."""
        return int(self.channel.queue_declare(queue, passive=True).method.message_count)

    def order(self, queue: str) -> list[int]:
        """Give the events in the order of their first effects."""
        return list(dict.fromkeys(map(int, self.store.lrange(f"order:{queue}", 0, -1))))  # type: ignore[arg-type]

    def repeats(self, queue: str) -> int:
        """Count the effects that were none, because another process came first."""
        return int(self.store.llen(f"order:{queue}")) - len(self.order(queue))  # type: ignore[arg-type]

    def there(self) -> int:
        """Count what is in the queues, in hand or not."""
        totals = self._get(f"queues/{self._host}?disable_stats=true&enable_queue_totals=true")
        return sum(each["messages"] for each in totals if each["name"] in EVENT_QUEUES)

    def active(self, queue: str) -> Active | None:
        """Ask RabbitMQ who works on a queue; None while it does not know."""
        details: Any = self._get(f"consumers/{self._host}")
        for each in details:
            if each["queue"]["name"] == queue and each["active"] and each["channel_details"]:
                name = each["channel_details"]["connection_name"]
                found = self._get(f"connections/{name}")
                title = (found or {}).get("client_properties", {}).get("connection_name", "")
                return Active(int(title.rpartition(":")[2]), name) if title else None
        return None

    def cut(self, connection: str) -> None:
        """Have RabbitMQ close a connection."""
        requests.delete(f"{self.management_url}/api/connections/{connection}", timeout=10).raise_for_status()

    def _get(self, path: str) -> Any:
        answer = requests.get(f"{self.management_url}/api/{path}", timeout=10)
        return answer.json() if answer.ok else None

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()


@pytest.fixture(params=KINDS)
def park(request: pytest.FixtureRequest, broker_url: str, management_url: str, store: redis.Redis) -> Iterator[Park]:
    with closing(Park(broker_url, management_url, store, request.param)) as made:
        yield made


@pytest.fixture
def start(park: Park, processes: Processes, server_environ: dict[str, str]) -> Callable[..., Process]:
    def start_worker() -> Process:
        worker = processes.start(
            ["dramatiq", "tests.ordered", "--processes", "2", "--threads", "2"],
            env={
                **server_environ,
                "CARPARK_BROKER_URL": f"{server_environ['CARPARK_BROKER_URL']}?heartbeat=6",
                "CARPARK_QUEUE_TYPE": park.kind,
                "dramatiq_restart_delay": "500",
            },
        )
        worker.wait_for_line(READY)
        return worker

    return start_worker


def _terminate(park: Park, active: Active, workers: list[Process]) -> None:
    """End the whole worker in the ordinary way, its active process with it."""
    _worker_of(active, workers).signal(signal.SIGTERM)


def _kill(park: Park, active: Active, workers: list[Process]) -> None:
    os.kill(active.pid, signal.SIGKILL)


def _freeze(park: Park, active: Active, workers: list[Process]) -> None:
    """Let the active process stand still until another one has taken its place, and then end what it was doing."""
    os.kill(active.pid, signal.SIGSTOP)
    try:
        eventually(lambda: park._get(f"connections/{active.connection}") is None, 60, "RabbitMQ has given it up")
        park.store.delete(HELD)
        eventually(lambda: len(park.order("vehicle_entry")) > 2 * HELD_AT, 30, "another one works on")
    finally:
        os.kill(active.pid, signal.SIGCONT)
    eventually(lambda: park.repeats("vehicle_entry") > 0, 30, "it has done what it had in hand")


def _cut(park: Park, active: Active, workers: list[Process]) -> None:
    park.cut(active.connection)


def _worker_of(active: Active, workers: list[Process]) -> Process:
    with Path(f"/proc/{active.pid}/status").open(encoding="ascii") as status:
        parent = next(int(line.split()[1]) for line in status if line.startswith("PPid:"))
    return next(worker for worker in workers if parent == worker.pid)


FAULTS = {"SIGTERM": _terminate, "SIGKILL": _kill, "SIGSTOP": _freeze, "cut connection": _cut}


@pytest.mark.parametrize("fault", FAULTS)
def test_events_take_effect_in_their_order_whatever_happens_to_the_active_process(
    park: Park, start: Callable[..., Process], fault: str
) -> None:
    park.fill()
    park.store.set(HELD, HELD_AT)
    workers = [start(), start()]
    # Held in the middle of their work, they have shared the queues, and most of the events still wait.
    eventually(lambda: len({park.active(queue) for queue in EVENT_QUEUES} - {None}) == 2, 60, "two share the queues")
    eventually(lambda: all(len(park.order(queue)) >= HELD_AT for queue in EVENT_QUEUES), 60)
    assert park.ready("vehicle_entry") > 1_000
    active = park.active("vehicle_entry")
    assert active is not None
    FAULTS[fault](park, active, workers)
    park.store.delete(HELD)
    for queue in EVENT_QUEUES:
        eventually(lambda queue=queue: len(park.order(queue)) == EVENTS, 120, f"all of {queue} is done")  # type: ignore[misc]
        assert park.order(queue) == list(range(EVENTS))


def test_events_that_are_left_are_delivered_again_in_their_place(park: Park, start: Callable[..., Process]) -> None:
    park.fill()
    park.store.set(HELD, HELD_AT)
    start()
    eventually(lambda: len(park.order("vehicle_entry")) >= HELD_AT, 60)
    park.store.set(LEFT, 1)
    park.store.delete(HELD)
    for queue in EVENT_QUEUES:
        eventually(lambda queue=queue: len(park.order(queue)) == EVENTS, 120, f"all of {queue} is done")  # type: ignore[misc]
        assert park.order(queue) == list(range(EVENTS))
    assert not park.store.exists(LEFT)
    eventually(lambda: park.there() == 0, 30, "all is acknowledged")


def test_a_process_alone_works_on_both_queues_and_asks_for_signs_of_life_every_10_s(
    park: Park, processes: Processes, server_environ: dict[str, str]
) -> None:
    park.fill(10)
    environ = {**server_environ, "CARPARK_QUEUE_TYPE": park.kind}
    processes.start(["dramatiq", "tests.ordered", "--processes", "1", "--threads", "1"], env=environ)
    for queue in EVENT_QUEUES:
        eventually(lambda queue=queue: len(park.order(queue)) == 10, 30)  # type: ignore[misc]
        active = eventually(lambda queue=queue: park.active(queue), 30)  # type: ignore[misc]
        assert active is not None
        assert park._get(f"connections/{active.connection}")["timeout"] == 10
