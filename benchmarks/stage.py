"""Where benchmarks run: a RabbitMQ, a Redis and a writer of their own, emptied before each run."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pika
import redis

from carpark.rabbitmq.connection import server_version
from tests.support.processes import Processes
from tests.support.servers import RabbitmqServer, RedisServer, VirtualHost

READY = "Worker process is ready for action"


@dataclass(frozen=True)
class Site:
    """Servers as a benchmark finds them: empty.

    Args:
        broker_url: A virtual host without queues.
        redis_url: A database without keys.
        csv: The writer's file.
        writer_url: Where the writer listens.
        processes: Starts processes that end with the site.
        environ: Variables that make a process use all this.
        groups: The process groups of the servers and the writer, by name.
    """

    broker_url: str
    redis_url: str
    csv: Path
    writer_url: str
    processes: Processes
    environ: dict[str, str]
    groups: dict[str, list[int]]


class Stage:
    """A RabbitMQ and a Redis that run as long as the stage is open."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.rabbitmq, self.redis = RabbitmqServer(), RedisServer()

    def __enter__(self) -> Stage:
        for server in (self.rabbitmq, self.redis):
            server.start()
            self._stack.callback(server.close)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def versions(self) -> dict[str, str]:
        """Say which servers these are.

        Returns:
            Name to version.
        """
        with redis.Redis.from_url(self.redis.url, decode_responses=True) as client:
            found: str = client.info("server")["redis_version"]
        with pika.BlockingConnection(pika.URLParameters(self.rabbitmq.url)) as connection:
            return {"RabbitMQ": server_version(connection), "Redis": found}

    @contextlib.contextmanager
    def site(self, batch: int = 100) -> Iterator[Site]:
        """Make everything empty and start a writer.

        Args:
            batch: The backend's ``CARPARK_BATCH``.

        Yields:
            The site.
        """
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="carpark-bench-")))
            host = VirtualHost(self.rabbitmq.url, self.rabbitmq.management_url)
            stack.callback(host.close)
            with redis.Redis.from_url(self.redis.url) as client:
                client.flushall()
            processes = Processes(folder, {})
            stack.callback(processes.close)
            csv = folder / "summaries.csv"
            environ = {
                "CARPARK_BROKER_URL": host.url,
                "CARPARK_REDIS_URL": self.redis.url,
                "CARPARK_CSV": str(csv),
                "CARPARK_WRITER_PORT": "0",
                "CARPARK_METRICS_PORT": "0",
                "CARPARK_BATCH": str(batch),
            }
            writer = processes.start(["carpark", "writer"], env=environ)
            url = writer.wait_for_line(r"writer: (http://\S+)")[1]
            groups = {
                "writer": [writer.pid],
                "RabbitMQ": [self.rabbitmq.group],
                "Redis": [self.redis.group],
            }
            environ["CARPARK_WRITER_URL"] = url
            yield Site(host.url, self.redis.url, csv, url, processes, environ, groups)
