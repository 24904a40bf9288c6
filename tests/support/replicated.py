"""A Redis with a replica, and Sentinels that make the replica the primary when the primary dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import redis

from tests.support.helpers import eventually
from tests.support.servers import RedisServer, Server, find_program

NAME = "stays"
DOWN_AFTER_MS = 4000


class RedisReplica(RedisServer):
    """A Redis that follows another one; it is ready when it has the other one's data and hears what comes.

    Args:
        primary: The other one.
    """

    def __init__(self, primary: RedisServer) -> None:
        super().__init__(appendonly=True)
        self._primary = primary

    def _commands(self) -> list[list[str]]:
        (command,) = super()._commands()
        return [[*command, "--replicaof", f"127.0.0.1 {self._primary.port}"]]

    def is_ready(self) -> bool:
        """Tell whether it follows."""
        return super().is_ready() and self.link() == "up"

    def link(self) -> str:
        """Its link to the primary: `up` or `down`."""
        with redis.Redis.from_url(self.url, decode_responses=True) as client:
            return str(client.info("replication")["master_link_status"])


class SentinelServer(Server):
    """A Sentinel that watches a primary.

    Args:
        primary: What it watches.
        quorum: How many Sentinels have to agree that the primary is gone.
    """

    programs = ("redis-server",)

    def __init__(self, primary: RedisServer, quorum: int) -> None:
        super().__init__()
        (self.folder / "sentinel.conf").write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
            f"sentinel monitor {NAME} 127.0.0.1 {primary.port} {quorum}\n"
            f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {NAME} 10000\n",
            encoding="ascii",
        )

    @property
    def url(self) -> str:
        """Its URL."""
        return f"redis://127.0.0.1:{self.port}"

    def is_ready(self) -> bool:
        """Tell whether it answers."""
        try:
            with redis.Redis.from_url(self.url) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def _commands(self) -> list[list[str]]:
        server = find_program("redis-server") or "redis-server"
        return [[server, str(self.folder / "sentinel.conf"), "--sentinel"]]


@dataclass
class ReplicatedRedis:
    """A primary, its replica, and their Sentinels.

    Args:
        primary: The primary at the start.
        replica: The replica at the start.
        sentinels: The Sentinels.
    """

    primary: RedisServer
    replica: RedisReplica
    sentinels: list[SentinelServer]

    @property
    def url(self) -> str:
        """What CARPARK_REDIS_URL is for it."""
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)
        return f"redis+sentinel://{hosts}/{NAME}/0"

    @property
    def primary_port(self) -> int:
        """The port of the primary now, as the first Sentinel that runs says it."""
        sentinel = next(each for each in self.sentinels if each.is_running)
        with redis.Redis.from_url(sentinel.url, decode_responses=True) as client:
            return int(client.sentinel_get_master_addr_by_name(NAME)[1])  # type: ignore[no-untyped-call]

    def stop_following(self) -> None:
        """Cut the replica off from the primary: what the primary is told from now on, the replica does not hear."""
        with redis.Redis.from_url(self.replica.url) as client:
            client.config_set("masterauth", "wrong")  # so that it does not come back
            # A replica that is still being sent its first copy has no such connection, and would go on.
            assert client.client_kill_filter(_type="master") == 1
            eventually(lambda: self.replica.link() == "down", 20, "the replica is cut off")


@contextmanager
def replicated_redis(sentinels: int = 3) -> Iterator[ReplicatedRedis]:
    """Start a primary, a replica that follows it, and Sentinels that know both and each other.

    Args:
        sentinels: How many.

    Yields:
        All of them; they are ended with the block.
    """
    with ExitStack() as stack:
        primary = RedisServer(appendonly=True)
        stack.callback(primary.close)
        primary.start()
        replica = RedisReplica(primary)
        stack.callback(replica.close)
        replica.start()
        watching = []
        for _ in range(sentinels):
            watching.append(SentinelServer(primary, quorum=sentinels // 2 + 1))
            stack.callback(watching[-1].close)
            watching[-1].start()
        for each in watching:
            eventually(
                lambda each=each: _knows_all(each, sentinels), 60, "the Sentinels know the replica and each other"
            )  # type: ignore[misc]
        yield ReplicatedRedis(primary, replica, watching)


def _knows_all(sentinel: SentinelServer, sentinels: int) -> bool:
    with redis.Redis.from_url(sentinel.url, decode_responses=True) as client:
        state = client.sentinel_master(NAME)  # type: ignore[no-untyped-call]
    return int(state["num-slaves"]) == 1 and int(state["num-other-sentinels"]) == sentinels - 1
