"""The whole system as real processes under a steady load, with something in between that can spoil it, and an audit.

::

    with Rig(rabbitmq, redis, folder) as rig:
        rig.wait_for_progress()
        rig.redis.kill()
        rig.redis.start()
        rig.settle()            # raises, with the findings, unless everything is accounted for

What the load publishes goes into journals; `settle` stops the cameras for a moment, waits until the backend has got
round to everything, and holds the journals against the CSV, the records and the queues.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import pika
import pika.exceptions
import redis

from carpark.domain.events import Event
from carpark.domain.routing import event_queues
from carpark.errors import BrokerUnavailable
from carpark.ledger import CSV_LINES
from carpark.ops.audit import Sources, Verdict, audit
from carpark.ops.audit.queued import read_queues
from carpark.plugins import ReadBack
from carpark.rabbitmq.management import ManagementApi, virtual_host_of
from carpark.rabbitmq.topology import CLASSIC, all_queues, declare_queues, with_companions
from carpark.records.connection import connect
from tests.faults.service import Service
from tests.support.helpers import eventually, find_free_port
from tests.support.processes import WORKER_READY, Processes
from tests.support.proxy import TcpProxy, WriterGateway
from tests.support.servers import RedisServer
from tests.support.stores import undelivered

RATE = 30
"""Events per second of each camera."""

PLATES = 200
"""How many plates the cameras see: each comes back again and again."""

SINK_TIMEOUT = 1.0
PATIENCE = 100.0
"""Seconds within which everything has to come to rest."""

REST_SECONDS = 2.0
"""Seconds without anything under way: RabbitMQ's numbers are not as old, and a consumer that was cut off is back."""


class Broker(Protocol):
    """What the rig needs of a RabbitMQ, or of a cluster of them."""

    url: str
    """AMQP URLs of an empty virtual host, separated by ``;``."""

    management_url: str
    """A management API that answers when everything is well."""

    @property
    def group(self) -> int:
        """The id of its process group, where it has one."""

    def start(self) -> None:
        """Start what does not run."""

    def kill(self) -> None:
        """End it with SIGKILL."""


class Rig:
    """The system under load. Enter it to start everything.

    Args:
        rabbitmq: The broker, running; its virtual host has none of our queues.
        redis_server: The records, running and empty.
        folder: Where files and logs go.
        rate: Events per second of each camera.
        through_proxy: Whether a proxy stands before the broker; a cluster's nodes are reached directly.
        worker_options: Options for ``dramatiq``.
        workers: How many such workers there are.
        cameras: Whether the two cameras are there; without them the load is what is published here.
        environ: Further variables for all processes.
    """

    def __init__(
        self,
        rabbitmq: Broker,
        redis_server: RedisServer,
        folder: Path,
        *,
        rate: float = RATE,
        through_proxy: bool = True,
        worker_options: Sequence[str] = ("--processes", "2", "--threads", "2"),
        workers: int = 1,
        cameras: bool = True,
        environ: dict[str, str] | None = None,
    ) -> None:
        self.rabbitmq, self.redis, self.folder = rabbitmq, redis_server, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.csv = folder / "summaries.csv"
        self.journals = [folder / f"{kind}.jsonl" for kind in ("entry", "exit", "stranger")]
        self.journals[2].touch()
        plates = folder / "plates.txt"
        plates.write_text("".join(f"BACK{number:03}\n" for number in range(PLATES)), encoding="ascii")
        self.garbage = 0
        self.proxy: TcpProxy | None = None
        broker_url = rabbitmq.url
        if through_proxy:
            self.proxy = TcpProxy(broker_url)
            broker_url = self.proxy.url
        port = find_free_port()
        self.gateway = WriterGateway(f"http://127.0.0.1:{port}")
        self.processes = Processes(folder, {}, patience=40)
        self.env = env = {
            "CARPARK_BROKER_URL": broker_url,
            "CARPARK_REDIS_URL": redis_server.url,
            "CARPARK_WRITER_URL": self.gateway.url,
            "CARPARK_WRITER_PORT": str(port),
            "CARPARK_CSV": str(self.csv),
            "CARPARK_METRICS_PORT": "0",
            "CARPARK_CAPACITY": "0",
            "CARPARK_PLATES": "file",
            "CARPARK_PLATES_FILE": str(plates),
            "CARPARK_RATE": str(rate),
            "CARPARK_SINK_TIMEOUT": str(SINK_TIMEOUT),
            "CARPARK_SINK_RETRIES": "100000",
            "CARPARK_SINK_RETRY_MIN": "0.2",
            "CARPARK_SINK_RETRY_MAX": "2",
            **(environ or {}),
        }
        self._queue_type = env.get("CARPARK_QUEUE_TYPE", CLASSIC)
        self._partitions = int(env.get("CARPARK_PARTITIONS", 1))
        self.writer = Service(self.processes, ["carpark", "writer"], env, r"^writer: http")
        command = ["dramatiq", *worker_options, "carpark.actors"]
        self.workers = [Service(self.processes, command, env, WORKER_READY) for _ in range(workers)]
        self.worker = self.workers[0]
        self.cameras = [
            Service(
                self.processes,
                ["carpark", "generate", kind, "--journal", str(journal)],
                env,
                f"^{kind} generator: .* metrics at",
            )
            for kind, journal in zip(("entry", "exit") if cameras else (), self.journals, strict=False)
        ]
        self._client = connect(redis_server.url)
        self._api = ManagementApi(rabbitmq.management_url, virtual_host_of(rabbitmq.url))

    @property
    def services(self) -> list[Service]:
        """All services."""
        return [self.writer, *self.workers, *self.cameras]

    def __enter__(self) -> Self:
        try:
            with pika.BlockingConnection(self._direct()) as connection:
                declare_queues(connection.channel(), all_queues(self._partitions), self._queue_type)
            self.begin()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def begin(self) -> None:
        """Start all services."""
        for service in self.services:
            service.start()

    def close(self) -> None:
        """End everything that the rig started."""
        for service in self.services:
            service.close()
        self.processes.close()
        self.gateway.close()
        if self.proxy:
            self.proxy.close()
        self._client.close()
        self._api.close()

    # -- load

    def count(self) -> int:
        """Count the summaries that the writer's file has."""
        return max(0, self.csv.read_bytes().count(b"\n") - 1) if self.csv.exists() else 0

    def recorded(self) -> int:
        """Count the entries that the records have taken."""
        counts = self._client.hmget("carpark:counts", "entry/recorded", "entry/matched")
        return sum(int(count or 0) for count in counts)

    def ready(self) -> dict[str, int]:
        """Count the messages that wait, per queue."""
        queues = self._api.queues()
        return {name: queues[name].ready or 0 for name in event_queues(self._partitions)}

    def wait_for_progress(self, rows: int = 15) -> None:
        """Wait until the load has come through the whole system: so many further rows.

        Args:
            rows: How many.
        """
        goal = self.count() + rows
        eventually(lambda: self.count() >= goal, PATIENCE, f"{rows} further rows in the CSV")

    def publish(self, events: Sequence[Event], *, times: int = 1, garbage: Sequence[bytes] = ()) -> None:
        """Publish bare events as another program would: written down first, confirmed, tried again after a failure.

        Args:
            events: What is published, in this order.
            times: How often each is.
            garbage: Bodies that are published between them and are no events.
        """
        journal = self.journals[2]
        with journal.open("a", encoding="utf-8") as file:
            file.writelines(event.to_json() + "\n" for event in events)
        letters = [(event.queue, event.to_json().encode()) for event in events for _ in range(times)]
        for place, body in enumerate(garbage):
            letters.insert(place * (len(letters) // len(garbage)), (event_queues(1)[place % 2], body))
        with pika.BlockingConnection(self._direct()) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            for queue, body in letters:
                channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2), mandatory=True)
        self.garbage += len(garbage)

    # -- the verdict

    def settle(self) -> Verdict:
        """Stop the cameras for a moment, wait until all is at rest, and audit.

        Returns:
            The verdict.

        Raises:
            AssertionError: It does not come to rest, or something is lost, there twice, unexpected, or dead.
        """
        for camera in self.cameras:
            camera.pause()
        try:
            self.wait_until_idle()
            verdict = self.verdict()
        finally:
            for camera in self.cameras:
                camera.go_on()
        said = f"{verdict.sentence()}\n{json.dumps(verdict.to_dict(), ensure_ascii=False, indent=1)}"
        assert verdict.ok, said
        assert [sink.undelivered for sink in verdict.sinks] == [0], f"undelivered: {said}"
        # What is garbage is dead, perhaps twice if a worker was killed in between; nothing else is.
        queued = read_queues(self.rabbitmq.url, self._partitions)
        assert queued.waiting == 0, f"queued: {said}"
        assert queued.dead >= self.garbage, f"{queued.dead} dead letters of {self.garbage}: {said}"
        assert not queued.events, f"dead events: {sorted(queued.events)[:5]}: {said}"
        assert not queued.summaries, f"dead summaries: {queued.summaries[:5]}: {said}"
        return verdict

    def verdict(self, show: int = 5) -> Verdict:
        """Audit what there is now; `show` findings of each kind are written down."""
        return audit(
            Sources(
                self.journals,
                {"http-csv": ReadBack.of_file(self.csv, CSV_LINES.read)},
                redis_url=self.redis.url,
                broker_url=self.rabbitmq.url,
                partitions=self._partitions,
            ),
            show=show,
        )

    def wait_until_idle(self, patience: float = PATIENCE) -> None:
        """Wait until nothing is in a queue or in anybody's hand, and no sink lacks anything.

        RabbitMQ's numbers are as old as its statistics interval, and what a cut connection had in hand is in none of
        them until it comes again: so there has to be nothing for as long as that takes.

        Args:
            patience: Seconds within which that has to be.

        Raises:
            AssertionError: It does not come to rest; the message says what is under way.
        """
        since: list[float] = []

        def is_at_rest() -> bool:
            if self.left():
                since.clear()
            elif not since:
                since.append(time.monotonic())
            return bool(since) and time.monotonic() - since[0] >= REST_SECONDS

        try:
            eventually(is_at_rest, patience, "everything is at rest", interval=0.2)
        except AssertionError as error:
            raise AssertionError(f"{error}; under way: {self.left()}") from None

    def left(self) -> dict[str, Any]:
        """Say what is under way, or which server cannot be asked."""
        try:
            queues = self._api.queues()
            waiting = undelivered(self._client)
        except (BrokerUnavailable, redis.RedisError) as error:
            return {"away": str(error)}
        names = {name for queue in all_queues(self._partitions) for name in with_companions(queue)[:2]}
        left: dict[str, Any] = {
            name: (totals.ready, totals.unacked)
            for name, totals in queues.items()
            if name in names and (totals.ready or totals.unacked)
        }
        if missing := names - queues.keys():
            left["missing"] = sorted(missing)
        return {**left, **({"undelivered": waiting} if waiting else {})}

    def _direct(self) -> list[pika.URLParameters]:
        return [pika.URLParameters(url) for url in self.rabbitmq.url.split(";")]


def wait(seconds: float) -> None:
    """Let a fault last; the one thing here that is about time and not about a condition.

    Args:
        seconds: For how long.
    """
    time.sleep(seconds)
