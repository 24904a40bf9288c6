"""A connection to RabbitMQ for looking after queues, and plain words for why there is none."""

from __future__ import annotations

import contextlib
import math
import os
import re
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import pika
from pika import exceptions, frame, spec
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.channel import ContentFrameAssembler

from carpark.errors import BrokerUnavailable
from carpark.rabbitmq.headers import survive_odd_headers
from carpark.settings.values import mask_urls
from carpark.web.ports import cause_of, is_tls_refusal

TIMEOUT = 5.0
"""Seconds that connecting to one URL may take."""

BLOCKED_TIMEOUT = 30.0
"""Seconds that RabbitMQ may keep a connection waiting because its memory or disk is full."""

HEARTBEAT = 10
"""Seconds between two signs of life of a worker. For twice to three times as long events wait for a process that froze,
or whose machine is gone; with the 60 that RabbitMQ proposes it would be three minutes."""

MAX_MESSAGE_BYTES = 1024 * 1024
"""The longest message that RabbitMQ takes where its configuration is ours (`max_message_size`)."""

NO_AMQP_ERRORS = (OSError, AMQPConnectorException)
"""What pika lets through when it connects, beside its AMQP errors: names that nobody knows, TLS, its own connector."""

_REFUSALS = (
    exceptions.AuthenticationError,
    exceptions.ProbableAuthenticationError,
    exceptions.ProbableAccessDeniedError,
)


def connection_parameters(
    urls: str, name: str, timeout: float | None = TIMEOUT, heartbeat: int | None = None, blocked: float | None = None
) -> list[pika.URLParameters]:
    """Read broker URLs."""
    every = []
    for url in urls.split(";"):
        parameters = pika.URLParameters(url.strip())
        parameters.client_properties = {"connection_name": f"{name} {socket.gethostname()}:{os.getpid()}"}
        if timeout is not None:
            parameters.socket_timeout = parameters.stack_timeout = timeout
        if heartbeat == 0 or parameters.heartbeat is None:
            parameters.heartbeat = heartbeat
        if parameters.blocked_connection_timeout is None:
            parameters.blocked_connection_timeout = blocked
        every.append(parameters)
    return every


def open_connection(urls: str, name: str, timeout: float = TIMEOUT, heartbeat: int | None = None) -> BlockingConnection:
    """Connect to the first RabbitMQ that answers."""
    survive_odd_headers()
    try:
        return BlockingConnection(resolvable(connection_parameters(urls, name, timeout, heartbeat, BLOCKED_TIMEOUT)))
    except Exception as error:  # pika lets through what its layers raise: files, sockets, TLS, its own connector
        raise unavailable(urls, error) from error


@contextlib.contextmanager
def connected(urls: str, name: str, heartbeat: int | None = None) -> Iterator[BlockingConnection]:
    """Have a connection for a while; whatever goes wrong on it is a `BrokerUnavailable`."""
    connection = open_connection(urls, name, heartbeat=heartbeat)
    try:
        with ours(urls):
            yield connection
    finally:
        with contextlib.suppress(exceptions.AMQPError):
            connection.close()


@contextlib.contextmanager
def ours(urls: str) -> Iterator[None]:
    """Turn pika's errors into ours."""
    try:
        yield
    except exceptions.AMQPError as error:
        raise unavailable(urls, error) from error


def look(connection: BlockingConnection, name: str) -> spec.Queue.DeclareOk | None:
    """Ask for a queue's ready messages and its consumers, without a change."""
    channel = connection.channel()
    try:
        found: spec.Queue.DeclareOk = channel.queue_declare(name, passive=True).method
    except exceptions.ChannelClosedByBroker as error:
        if error.reply_code != spec.NOT_FOUND:
            raise
        return None
    channel.close()
    return found


def unavailable(urls: str, error: BaseException) -> BrokerUnavailable:
    """Make an error of ours of one of pika's."""
    reason, remedy = explain(error)
    return BrokerUnavailable(f"RabbitMQ at {mask_urls(urls)}: {reason}; {remedy}", refuses=is_refusal(error))


def resolvable(nodes: Sequence[pika.URLParameters]) -> list[pika.URLParameters]:
    """Leave out the nodes of a cluster whose names nobody knows now, as of a container that is gone.

    Pika gives up at such a name, without a try at those that come after it.
    """
    return [node for node in nodes if len(nodes) > 1 and _has_address(node)] or list(nodes)


def _has_address(node: pika.URLParameters) -> bool:
    try:
        return bool(socket.getaddrinfo(node.host, node.port, type=socket.SOCK_STREAM))
    except OSError:
        return False


def close_in_place(connection: BlockingConnection) -> None:
    """Close a connection so that what it has not acknowledged is in its queues again, each message in its place.

    Pika's own close sends basic.cancel first. RabbitMQ then goes on with the next consumer before the messages are
    back, and that one overtakes them.
    """
    for channel in connection._impl._channels.values():
        channel._get_cookie()._consumer_infos.clear()
        channel._cancelled.update(channel._consumers)  # taken for cancelled: what still arrives is dropped
    connection.close()


def acknowledge(channel: BlockingChannel, done: set[int], in_hand: set[int]) -> None:
    """Acknowledge deliveries, in one word where it can be: many a quorum queue forgets when the channel closes."""
    oldest = min(in_hand, default=math.inf)
    together = {tag for tag in done if tag < oldest}
    if together:
        channel.basic_ack(max(together), multiple=True)
    for tag in sorted(done - together):
        channel.basic_ack(tag)


class Beginning(bytes):
    """The beginning of a body, the rest of which was not kept. Its length is that of the whole body."""

    size = 0

    def __len__(self) -> int:
        return self.size


class _Beginnings(ContentFrameAssembler):
    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def _handle_body_frame(self, body_frame: frame.Body) -> Any:
        header: Any = self._header_frame
        if header.body_size <= self._most:
            return super()._handle_body_frame(body_frame)
        self._body_fragments.append(body_frame.fragment[: max(0, self._most - self._seen_so_far)])
        self._seen_so_far += len(body_frame.fragment)
        if self._seen_so_far < header.body_size:
            return None
        method, _, body = self._finish()
        beginning = Beginning(body)
        beginning.size = header.body_size
        return method, header, beginning


def keep_beginnings(channel: BlockingChannel, most: int) -> None:
    """Have a channel keep no more than the beginning of each body that comes, however long it is."""
    channel._impl._content_assembler = _Beginnings(most)


def is_refusal(error: BaseException) -> bool:
    """Tell whether RabbitMQ is there and refuses, so that waiting does not help whoever starts."""
    is_missing_right = getattr(error, "reply_code", None) == spec.ACCESS_REFUSED
    return isinstance(error, _REFUSALS) or is_missing_right or is_tls_refusal(_innermost(error))


def explain(error: BaseException) -> tuple[str, str]:
    """Say why RabbitMQ cannot be used."""
    if isinstance(error, exceptions.ProbableAccessDeniedError):
        return _words(error), "create the virtual host or give the user its permissions, or change CARPARK_BROKER_URL"
    if isinstance(error, _REFUSALS):
        return "it refuses the user or the password", "check both in CARPARK_BROKER_URL"
    if isinstance(error, exceptions.IncompatibleProtocolError):
        return (
            "what listens there does not speak AMQP",
            "check host and port in CARPARK_BROKER_URL; one for TLS takes amqps://",
        )
    if isinstance(error, exceptions.ConnectionBlockedTimeout):
        return "it takes no messages, its memory or disk is full", "make room, or give it more"
    if isinstance(error, exceptions.UnroutableError):
        return "it has no queue for a message, or the queue's node is away", "`carpark queues` declares what is missing"
    if isinstance(error, exceptions.NackError):
        return "it refuses a message", "`carpark doctor` says whether a policy bounds the queue"
    if isinstance(error, exceptions.ChannelClosedByBroker):
        return _words(error), "give the user of CARPARK_BROKER_URL its permissions (docs/reference/rights.md)"
    if is_tls_refusal(_innermost(error)):
        return _words(error), "name its port for TLS, or its CA, in CARPARK_BROKER_URL (docs/how-to/tls.md)"
    return _words(error), "start RabbitMQ, or name another one in CARPARK_BROKER_URL"


def server_version(connection: BlockingConnection) -> str:
    """Say which RabbitMQ this is."""
    properties: dict[str, Any] = getattr(connection._impl, "server_properties", None) or {}
    version = properties.get("version", "")
    return version.decode("utf-8", "replace") if isinstance(version, bytes) else str(version)


def _innermost(error: BaseException) -> Any:
    # pika wraps: a connection error holds the connector's errors in its arguments, which hold the socket's.
    inner: Any = error
    while True:
        below = getattr(inner, "exception", None)
        if below is None:
            below = next((each for each in reversed(inner.args) if isinstance(each, BaseException)), None)
        if below is None:
            return inner
        inner = below


def _words(error: BaseException) -> str:
    inner = _innermost(error)
    if isinstance(inner, (exceptions.ConnectionClosed, exceptions.ChannelClosed)):
        text = inner.reply_text
    elif isinstance(inner, exceptions.StreamLostError):
        text = "the connection was lost"
    elif type(inner).__name__ == "AMQPConnectorStackTimeout":
        text = "no answer in time"
    elif isinstance(inner, exceptions.AMQPError):
        text = str(inner)
    else:
        return cause_of(inner)
    said = re.search(r"(['\"]?)\b[A-Z_]+ - (.+?)\1$", " ".join(text.split()))
    return said[2] if said else " ".join(text.split()) or type(inner).__name__
