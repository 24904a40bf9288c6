"""From a URL to a Redis client: a real one, or the one that lives in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import fakeredis
    import redis

TIMEOUT = 5.0
"""Seconds that connecting, and each answer, may take."""

_memory: dict[str, fakeredis.FakeServer] = {}


def connect(url: str, *, database: int | None = None, attempts: int = 3) -> redis.Redis:
    """Make a client; it connects when it is first used.

    Args:
        url: ``redis://host:port/0``, ``rediss://…``, ``unix://…``; ``memory://`` or ``memory://name`` for a store in
            this process, the same one for the same name.
        database: Which database, where it is not the URL's own.
        attempts: How often a command is tried again after a lost connection, with 0.05 s to 1 s between. After
            `TIMEOUT` it is not: a Redis that hangs has the command already and does it when it goes on.

    Returns:
        A client that gives text, not bytes, safe to use from several threads.
    """
    # Imported here: redis takes 0.25 s to import, which a command that only checks its settings need not wait for.
    if urlsplit(url).scheme == "memory":
        import fakeredis

        server = _memory.setdefault(url, fakeredis.FakeServer())
        return fakeredis.FakeRedis(server=server, db=database or 0, decode_responses=True)

    import redis
    from redis.backoff import ExponentialBackoff
    from redis.exceptions import ConnectionError as LostConnection
    from redis.retry import Retry

    client: redis.Redis = redis.Redis.from_url(
        url,
        decode_responses=True,
        socket_timeout=TIMEOUT,
        socket_connect_timeout=TIMEOUT,
        retry=Retry(ExponentialBackoff(cap=1.0, base=0.05), attempts, (LostConnection,)),
        **({} if database is None else {"db": database}),
    )
    return client


def forget_memory(url: str) -> None:
    """Let go of an in-process store.

    Args:
        url: The ``memory://`` URL that it was made with.
    """
    _memory.pop(url, None)
