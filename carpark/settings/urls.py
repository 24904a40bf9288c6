"""The URLs of RabbitMQ and Redis. Their options are given to the parsers of the clients that will use them: what one
does not know, or cannot use, is found before anything is connected."""

from __future__ import annotations

import difflib
import re
import socket
from ast import literal_eval
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

from carpark.settings.values import Text, Unfit, integer, number, one_of, split_url, url, word

_SCHEME = re.compile(r"rediss?\+sentinel")
_PRIMARY = re.compile(r"/([\w.-]{1,128})(/[0-9]{0,4})?")  # a primary's name as Sentinel takes it, then the database
_PORT = 26379
_OPTION = re.compile(r"[a-z_]{1,40}")

_SECONDS = number(0.001, 1_000_000, "a number of seconds")
_FROM_ZERO = number(0, 1_000_000, "a number of seconds")
_YES = one_of("yes", "no", "true", "false", "1", "0", metavar="")
_WORD = Text(word, "a word")


def _dict(text: str) -> None:
    if not isinstance(literal_eval(text), dict):
        raise ValueError


def _there(text: str) -> None:
    if Path(text).is_dir():
        next(Path(text).iterdir(), None)
    else:
        Path(text).open("rb").close()


def _file(what: str) -> Text:
    return Text(_there, f"{what} that is there and can be read")


AMQP_OPTIONS = {
    "blocked_connection_timeout": _FROM_ZERO,
    "channel_max": integer(1, 65535),
    "client_properties": Text(_dict, "a Python dict"),
    "connection_attempts": integer(1, 1000),
    "frame_max": integer(4096, 131072),
    "heartbeat": integer(0, 65535, "a whole number of seconds"),
    "locale": _WORD,
    "retry_delay": _FROM_ZERO,
    "socket_timeout": _SECONDS,
    "ssl_options": Text(_dict, "a Python dict like {'cafile': '/etc/ca.pem'}, of files that are there,"),
    "stack_timeout": _SECONDS,
    "tcp_options": Text(_dict, "a Python dict"),
}
"""The options of an AMQP URL, which are those of pika's parser."""

REDIS_OPTIONS = {
    "client_name": _WORD,
    "db": integer(0, 9999),
    "health_check_interval": integer(0, 1_000_000, "a whole number of seconds"),
    "password": _WORD,
    "protocol": integer(2, 3),
    "retry_on_timeout": _YES,
    "socket_connect_timeout": _SECONDS,
    "socket_keepalive": _YES,
    "socket_timeout": _SECONDS,
    "username": _WORD,
}
"""The options of a Redis URL: those of redis-py that can be said in text."""

TLS_OPTIONS = {
    "ssl_ca_certs": _file("a file"),
    "ssl_ca_data": Text(str, "certificates in PEM"),
    "ssl_ca_path": _file("a folder"),
    "ssl_cert_reqs": one_of("none", "optional", "required", metavar=""),
    "ssl_certfile": _file("a file"),
    "ssl_check_hostname": _YES,
    "ssl_ciphers": Text(str, "ciphers as OpenSSL names them"),
    "ssl_exclude_verify_flags": Text(str, "names of Python's ssl.VerifyFlags"),
    "ssl_include_verify_flags": Text(str, "names of Python's ssl.VerifyFlags"),
    "ssl_keyfile": _file("a file"),
    "ssl_min_version": integer(768, 772, "a number of Python's ssl.TLSVersion"),
    "ssl_password": Text(str, "the key's password"),
}
"""What a Redis URL has beside these with ``rediss://``."""

_SENTINEL_OPTIONS = {"sentinel_password": Text(str, "a password"), "sentinel_user": Text(str, "a user")}

_ELSEWHERE = {
    **dict.fromkeys(("cacertfile", "certfile", "keyfile", "verify", "server_name_indication"), "there is ssl_options"),
    **dict.fromkeys(("connection_timeout", "timeout"), "there is socket_timeout, in seconds"),
    "max_connections": "each thread has a connection of its own, which none may lack",
    "name": "each service names its connections itself",
}
"""Options of other clients, and of RabbitMQ's documentation, with what there is in their place."""


def amqp_url(text: str) -> str:
    """Read the URLs of RabbitMQ.

    Args:
        text: ``amqp://``, ``amqps://``, several of them separated by ``;``, or ``stub://``.

    Returns:
        The URLs.

    Raises:
        ValueError: One is none of these, or pika cannot use it.
    """
    found: str = _AMQP.parse(text)
    for part in found.split(";"):
        split = split_url(part)
        if split.scheme == "stub":
            continue
        if split.username is not None and split.password is None:
            raise Unfit("user and password, amqp://user:password@host")
        if "/" in split.path[1:]:
            raise Unfit("%2F for a / in the virtual host")
        _check_options(part, AMQP_OPTIONS, _open_amqp)
    return found


def redis_url(text: str) -> str:
    """Read the URL of Redis.

    Args:
        text: ``redis://``, ``rediss://``, ``unix://``, ``memory://``, or ``redis+sentinel://`` with hosts separated by
            commas and the primary's name as the path.

    Returns:
        The URL.

    Raises:
        ValueError: It is none of these, or redis-py cannot use it.
    """
    text = text.strip()
    if is_sentinel_url(text):
        sentinels_of(text)
        return text
    found = str(_DIRECT.parse(text))
    scheme = split_url(found).scheme
    if scheme != "memory":
        _check_options(found, REDIS_OPTIONS | (TLS_OPTIONS if scheme == "rediss" else {}), _open_redis)
    return found


_AMQP = url("", "amqp", "amqps", "stub", several=True)
_DIRECT = url("", "redis", "rediss", "unix", "memory")


def _check_options(text: str, known: Mapping[str, Text], open_: Callable[[str], None] | None = None) -> dict[str, str]:
    """Read the options of a URL: each by its own rule, then all of them by the client that will use them.

    Args:
        text: The URL.
        known: Name to how its value is written.
        open_: Gives a URL to the client, which raises whatever it likes.

    Returns:
        Name to value.

    Raises:
        ValueError: One is not known, or has a wrong value.
    """
    split = split_url(text)
    if split.fragment or text.endswith("#"):
        raise Unfit("%23 for a #")
    if not split.query:
        return {}
    try:
        # A plus is a plus, as in the rest of the URL; only forms write a space so.
        pairs = parse_qsl(split.query.replace("+", "%2B"), keep_blank_values=True, strict_parsing=True)
    except ValueError:
        raise Unfit("its options as name=value, separated by &") from None
    options = dict(pairs)
    if len(options) < len(pairs):
        raise Unfit("each of its options once")
    for name, value in pairs:
        if name not in known:
            raise Unfit(_unknown(name, known))
        with suppress(Exception):  # literal_eval raises what it likes, too
            known[name].parse(value)
            if value:
                continue
        raise Unfit(_fit(known[name], name))
    if open_ is not None and (reason := _reason(open_, text)) is not None:
        alone = {
            name
            for name, value in pairs
            if _reason(open_, split._replace(query=urlencode([(name, value)], quote_via=quote)).geturl()) is not None
        }
        raise Unfit(" and ".join(_fit(known[name], name) for name in options if name in (alone or options)) + reason)
    return options


def _fit(text: Text, name: str) -> str:
    return f"{text.wanted} for its option {name}"


def _unknown(name: str, known: Mapping[str, Text]) -> str:
    if not _OPTION.fullmatch(name):  # it may be anything, a part of a password too
        return f"only options that there are: {', '.join(known)}"
    if name in TLS_OPTIONS:
        return f"no option {name}, which is one of rediss://"
    close = difflib.get_close_matches(name, known, 1)
    there = _ELSEWHERE.get(name) or (f"there is {close[0]}" if close else f"there are {', '.join(known)}")
    return f"no option {name}; {there}"


def _reason(open_: Callable[[str], None], text: str) -> str | None:
    """Give a URL to a client; say in its words why it cannot use it, if it cannot."""
    try:
        open_(text)
    except OSError as error:  # of a file, or of what is in it; other words may have a part of a password in them
        said = getattr(error, "reason", None) or error.strerror
        said = re.sub(r"\[[^]]*\]|\(.*\)", "", said or "").replace("_", " ").strip().lower()
        return f" ({said})" if said else ""
    except Exception:  # whatever its parts raise
        return ""
    return None


def _open_amqp(text: str) -> None:
    import pika  # here, because what only checks its settings need not wait for it
    from pika.tcp_socket_opts import set_sock_opts

    parameters = pika.URLParameters(text)
    with socket.socket() as unconnected:
        set_sock_opts(parameters.tcp_options, unconnected)


def _open_redis(text: str) -> None:
    import redis

    connection: Any = redis.ConnectionPool.from_url(text).make_connection()
    if hasattr(connection, "_wrap_socket_with_ssl"):  # by which it reads the files, when it connects
        with socket.socket() as unconnected:
            connection._wrap_socket_with_ssl(unconnected).close()


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
    query = _check_options(split[0].geturl(), _SENTINEL_OPTIONS)
    path = _PRIMARY.fullmatch(split[0].path)
    if not slashes or path is None:
        raise ValueError
    return Sentinels(
        tuple((each.hostname or "", each.port or _PORT) for each in split),
        path[1],
        int((path[2] or "/")[1:] or 0),
        unquote(split[0].username or "") or None,
        unquote(split[0].password or "") or None,
        query.get("sentinel_user"),
        query.get("sentinel_password"),
        head.lower().startswith("rediss"),
    )
