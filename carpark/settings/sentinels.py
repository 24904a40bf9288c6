"""The URL of a Redis whose primary is found by asking Sentinels, among the other URLs of Redis."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote

from carpark.settings.values import split_url, url

_SCHEME = re.compile(r"rediss?\+sentinel")
_PRIMARY = re.compile(r"/([\w.-]{1,128})(/[0-9]{0,4})?")  # a primary's name as Sentinel takes it, then the database
_PORT = 26379
_DIRECT = url("", "redis", "rediss", "unix", "memory")


def redis_url(text: str) -> str:
    """Read the URL of Redis.

    Args:
        text: ``redis://``, ``rediss://``, ``unix://``, ``memory://``, or ``redis+sentinel://`` with hosts separated by
            commas and the primary's name as the path.

    Returns:
        The URL.

    Raises:
        ValueError: It is none of these.
    """
    text = text.strip()
    if is_sentinel_url(text):
        sentinels_of(text)
        return text
    return str(_DIRECT.parse(text))


@dataclass(frozen=True)
class Sentinels:
    """Where a primary's address is asked for.

    Args:
        hosts: Host and port of each Sentinel.
        name: What they call the primary.
        database: The number of the database.
        user: Redis's user, or None for its default one.
        password: Redis's password, or None.
        sentinel_user: The Sentinels' own user, or None.
        sentinel_password: The Sentinels' own password, or None.
        tls: Whether Redis and the Sentinels are spoken to over TLS.
    """

    hosts: tuple[tuple[str, int], ...]
    name: str
    database: int
    user: str | None
    password: str | None
    sentinel_user: str | None
    sentinel_password: str | None
    tls: bool


def is_sentinel_url(text: str) -> bool:
    """Tell whether a URL names Sentinels.

    Args:
        text: A URL.

    Returns:
        Whether its scheme says so.
    """
    return _SCHEME.fullmatch(text.partition(":")[0].lower()) is not None


def sentinels_of(text: str) -> Sentinels:
    """Read a URL that names Sentinels.

    Args:
        text: ``redis+sentinel://user:password@host:port,host:port/name/0?sentinel_password=...``; the port is 26379
            where it is left out, the database 0.

    Returns:
        What it says.

    Raises:
        ValueError: It is not such a URL.
    """
    head, slashes, rest = text.partition("://")
    userinfo, at, rest = rest.rpartition("@")
    hosts, slash, tail = rest.partition("/")
    # One URL a host is what urlsplit understands; it is as strict with each as with any other URL.
    split = [split_url(f"redis-sentinel://{userinfo}{at}{host}{slash}{tail}") for host in hosts.split(",")]
    # A plus is a plus, as in the rest of the URL; only forms write a space so.
    query = parse_qs(split[0].query.replace("+", "%2B"), strict_parsing=bool(split[0].query), keep_blank_values=True)
    path = _PRIMARY.fullmatch(split[0].path)
    if not slashes or path is None or split[0].fragment or query.keys() - {"sentinel_user", "sentinel_password"}:
        raise ValueError
    return Sentinels(
        tuple((each.hostname or "", each.port or _PORT) for each in split),
        path[1],
        int((path[2] or "/")[1:] or 0),
        unquote(split[0].username or "") or None,
        unquote(split[0].password or "") or None,
        query.get("sentinel_user", [None])[0],
        query.get("sentinel_password", [None])[0],
        head.lower().startswith("rediss"),
    )
