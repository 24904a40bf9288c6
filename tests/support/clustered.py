"""Three RabbitMQ nodes on this machine that are one cluster; each can be killed and started again."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import requests

from tests.support.guard import GUARD
from tests.support.helpers import eventually, find_free_port, is_listening
from tests.support.servers import RabbitmqServer, find_program


class RabbitmqNode(RabbitmqServer):
    """One node of a cluster.

    Args:
        epmd_port: Where the cluster's epmd listens.
        cookie: The secret that nodes of a cluster share.
    """

    def __init__(self, epmd_port: int, cookie: str) -> None:
        super().__init__()
        self._epmd_port = epmd_port
        path = self.folder / ".erlang.cookie"
        path.write_text(cookie, encoding="ascii")
        path.chmod(0o400)

    @property
    def name(self) -> str:
        """What it is called in the cluster."""
        return f"{self.folder.name}@localhost"

    def join(self, names: Sequence[str]) -> None:
        """Name the nodes that it forms a cluster with when it starts for the first time.

        Args:
            names: All nodes, itself included.
        """
        with (self.folder / "rabbitmq.conf").open("a", encoding="ascii") as file:
            file.write("cluster_formation.peer_discovery_backend = classic_config\n")
            file.writelines(f"cluster_formation.classic_config.nodes.{i} = {name}\n" for i, name in enumerate(names, 1))
            file.write("cluster_partition_handling = pause_minority\n")

    def _commands(self) -> list[list[str]]:
        return super()._commands()[1:]


class RabbitmqCluster:
    """The nodes of one cluster. `url` names all of them.

    Args:
        size: How many nodes.
    """

    def __init__(self, size: int = 3) -> None:
        port, cookie = find_free_port(), secrets.token_hex(16)
        self.nodes = [RabbitmqNode(port, cookie) for _ in range(size)]
        for node in self.nodes:
            node.join([each.name for each in self.nodes])
        epmd = [find_program("epmd") or "epmd", "-port", str(port), "-address", "127.0.0.1"]
        self._epmd = subprocess.Popen(epmd, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0)
        GUARD.watch("group", self._epmd.pid)
        eventually(lambda: is_listening(port), 10, "epmd listens")

    @property
    def url(self) -> str:
        """The AMQP URLs of all nodes."""
        return ";".join(node.url for node in self.nodes)

    @property
    def management_url(self) -> str:
        """The management API of the first node that runs."""
        return next(node.management_url for node in [*(n for n in self.nodes if n.is_running), *self.nodes])

    def start(self) -> None:
        """Start what does not run, and wait until all nodes are one cluster."""
        self.nodes[0].start()
        with ThreadPoolExecutor() as pool:
            list(pool.map(RabbitmqNode.start, self.nodes[1:]))
        eventually(lambda: self.running() == len(self.nodes), 60, "all nodes are one cluster")

    def running(self) -> int:
        """Count the nodes that run, as the first of them sees it.

        Returns:
            How many.
        """
        try:
            answer = requests.get(f"{self.management_url}/api/nodes?columns=name,running", timeout=10)
        except requests.RequestException:
            return 0
        return sum(node["running"] for node in answer.json()) if answer.ok else 0

    def kill(self) -> None:
        """End all nodes with SIGKILL."""
        for node in self.nodes:
            node.kill()

    def close(self) -> None:
        """End everything and remove the folders."""
        for node in self.nodes:
            node.close()
        self._epmd.kill()
        self._epmd.wait(10)
        GUARD.forget("group", self._epmd.pid)


@contextmanager
def rabbitmq_cluster(size: int = 3) -> Iterator[RabbitmqCluster]:
    """Start a cluster.

    Args:
        size: How many nodes.

    Yields:
        The cluster; it is ended with the block.
    """
    cluster = RabbitmqCluster(size)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()
