"""From a URL to a Redis client, and what its errors mean."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carpark.errors import InvalidSetting, RecordsUnavailable, named
from carpark.settings.urls import is_sentinel_url, sentinels_of
from carpark.settings.values import mask_url
from carpark.web.ports import cause_of, is_tls_refusal

if TYPE_CHECKING:
    import redis

TIMEOUT = 5.0
"""Seconds that connecting, and each answer, may take."""

SENTINEL_TIMEOUT = 1.0
"""Seconds that one Sentinel may take to say where the primary is, before the next one is asked."""


def connect(url: str, *, database: int | None = None, attempts: int = 3, timeout: float = TIMEOUT) -> redis.Redis:
    """Make a client; it connects when it is first used."""
    # Imported here: redis takes 0.25 s to import, which a command that only checks its settings need not wait for.
    import redis
    from redis.backoff import ExponentialBackoff
    from redis.exceptions import ConnectionError as LostConnection
    from redis.retry import Retry

    options: dict[str, Any] = {
        "decode_responses": True,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(ExponentialBackoff(cap=1.0, base=0.05), attempts, (LostConnection,)),
        **({} if database is None else {"db": database}),
    }
    client: redis.Redis = _primary(url, options) if is_sentinel_url(url) else redis.Redis.from_url(url, **options)
    return client


def address(client: redis.Redis) -> str:
    """Say where a client's Redis is: ``host:port``, a socket's path, or the primary's name at its Sentinels."""
    pool = client.connection_pool
    known = pool.connection_kwargs
    if name := getattr(pool, "service_name", None):
        return f"{name} (by Sentinel)"
    return str(known.get("path") or f"{known.get('host')}:{known.get('port', '')}")


_PASSING = ("BUSY ", "MISCONF ", "NOREPLICAS ")
"""How answers of Redis begin that only say how it is now, where redis-py has no exception for them."""


def is_refusal(error: BaseException) -> bool:
    """Tell whether Redis refuses a password, a right, an option or all writes, or is something else than a Redis.

    Then waiting does not help whoever starts.
    """
    from redis import exceptions

    # Of these redis-py leaves out the word that the answer began with. A replica without its primary is one of them.
    if isinstance(error, (exceptions.OutOfMemoryError, exceptions.ClusterDownError, exceptions.TryAgainError)):
        return False
    if isinstance(error, exceptions.ResponseError):
        return not str(error).startswith(_PASSING)
    if isinstance(error, (exceptions.AuthenticationError, exceptions.AuthorizationError)):
        return True
    if isinstance(error, (exceptions.ConnectionError, exceptions.TimeoutError)):
        return is_tls_refusal(error)
    return True


def is_denied(error: BaseException) -> bool:
    """Tell whether it is a right that this user lacks."""
    from redis.exceptions import NoPermissionError

    return isinstance(error, NoPermissionError) or isinstance(error.__cause__, NoPermissionError)


def require(url: str, ask: Callable[[], Sequence[str] | None]) -> None:
    """See at a service's start that Redis lets it in and grants what it needs, so that it need not wait in vain.

    It is asked for something, or which rights are missing. While it cannot be reached it is waited for; where it
    refuses, or a right is missing, `InvalidSetting` is raised.
    """
    try:
        missing = ask()
    except RecordsUnavailable as error:
        if error.refuses:
            advice = f"; {remedy(error)}" if is_tls_refusal(error) else ""
            raise InvalidSetting(
                "CARPARK_REDIS_URL", mask_url(url), f"one that does not refuse: {error}{advice}"
            ) from error
        return
    if missing:
        wanted = f"a user with the right to run {named(missing)} (docs/reference/rights.md)"
        raise InvalidSetting("CARPARK_REDIS_URL", mask_url(url), wanted)


def words(error: BaseException) -> str:
    """Say what Redis or its connection said; or that a mistake, of ours or of the client, is no word of Redis."""
    from redis import RedisError

    if is_tls_refusal(error):
        return cause_of(error)
    said = " ".join(str(error).split())
    if isinstance(error, RedisError):
        return said
    said = f"{type(error).__name__}: {said}"
    if isinstance(error, OSError):
        return said
    places = [f", at {Path(each.filename).name}:{each.lineno}" for each in traceback.extract_tb(error.__traceback__)]
    return f"no error of its own, but {said}{places[-1] if places else ''}"


def is_for_now(error: BaseException) -> bool:
    """Tell whether Redis is there, and refuses something only for now."""
    from redis.exceptions import ResponseError

    said = error if isinstance(error, ResponseError) else error.__cause__
    return isinstance(said, ResponseError) and not is_refusal(said)


def remedy(error: BaseException) -> str:
    """Say in one line what to do about what the client raised, or what was made of it."""
    from redis.exceptions import BusyLoadingError, RedisError

    said = error if isinstance(error, RedisError) else error.__cause__ or error
    if is_tls_refusal(said):
        return "name its port for TLS, or its CA, in CARPARK_REDIS_URL (docs/how-to/tls.md)"
    if is_refusal(said):
        return "check user, password and permissions in CARPARK_REDIS_URL"
    if is_for_now(said) or isinstance(said, BusyLoadingError):
        return "it refuses that for now: wait, or see to what it says"
    return "start Redis, or name another one in CARPARK_REDIS_URL"


def _primary(url: str, options: dict[str, Any]) -> redis.Redis:
    from redis.backoff import NoBackoff
    from redis.retry import Retry
    from redis.sentinel import Sentinel

    where = sentinels_of(url)
    asking = {
        "username": where.sentinel_user,
        "password": where.sentinel_password,
        "ssl": where.tls,
        "socket_timeout": SENTINEL_TIMEOUT,
        "socket_connect_timeout": SENTINEL_TIMEOUT,
        "retry": Retry(NoBackoff(), 0),
    }
    reaching = {"db": where.database, "username": where.user, "password": where.password, "ssl": where.tls, **options}
    sentinel = Sentinel(list(where.hosts), sentinel_kwargs=asking)  # type: ignore[no-untyped-call]
    client: redis.Redis = sentinel.master_for(where.name, **reaching)  # type: ignore[no-untyped-call]
    return client
