"""Which rights a user of RabbitMQ needs, service by service, and a try of each that changes nothing.

RabbitMQ looks at rights before anything else. So each is tried with a request that it cannot grant: 403 means that the
right is missing, any other answer that it is there. Its log has a line for each. What a service declares anyway says as
much without one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import pika
from dramatiq.common import xq_name
from pika import exceptions, spec
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection

from carpark.domain.routing import event_queues
from carpark.errors import BrokerUnavailable, InvalidSetting, named
from carpark.rabbitmq.connection import connected
from carpark.rabbitmq.topology import CLASSIC, EXCHANGE, QUORUM, all_queues, declare_queue, with_companions
from carpark.settings.values import mask_urls

if TYPE_CHECKING:
    from carpark.settings import Settings

CONFIGURE, WRITE, READ = "configure", "write", "read"

DEFAULT = "amq.default"
"""What RabbitMQ calls the exchange without a name, when it comes to rights."""

CAMERAS, WORKER, DASHBOARD, VERIFY = "cameras", "worker and queues", "dashboard", "verify"


class Right(NamedTuple):
    """What a user may do, and with what."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def rights_of(partitions: int) -> Mapping[str, Sequence[Right]]:
    """Say who needs which rights; docs/reference/rights.md says why."""
    queues = [name for queue in all_queues(partitions) for name in with_companions(queue)]
    return {
        CAMERAS: [Right(WRITE, EXCHANGE)],
        WORKER: [
            *(Right(CONFIGURE, name) for name in (*queues, EXCHANGE)),
            *(Right(WRITE, name) for name in (*event_queues(partitions), DEFAULT)),
            *(Right(READ, name) for name in (*queues, EXCHANGE) if name == EXCHANGE or name != xq_name(name)),
        ],
        DASHBOARD: [Right(WRITE, DEFAULT), *(Right(READ, name) for name in queues)],
        VERIFY: [Right(READ, name) for name in queues],
    }


def denied(connection: BlockingConnection, rights: Iterable[Right]) -> list[Right]:
    """Try rights."""
    return [right for right in rights if not _is_there(connection, right)]


def _is_there(connection: BlockingConnection, right: Right) -> bool:
    # A binding takes a right to write to the queue, and one to read from the exchange.
    if right == Right(READ, EXCHANGE):
        return any(_refused(connection, right, queue) is None for queue in event_queues(1))
    return _refused(connection, right) != right.name


def _refused(connection: BlockingConnection, right: Right, queue: str = "") -> str | None:
    """Try a right, by a binding of a queue where it is one to read from an exchange; give what it was refused for."""
    channel = connection.channel()
    try:
        _try(channel, *right, queue or right.name)
    except exceptions.ChannelClosedByBroker as error:
        names = re.findall("'([^']+)'", error.reply_text)
        return str(names[0]) if error.reply_code == spec.ACCESS_REFUSED and names else None
    channel.close()
    return None


def _try(channel: BlockingChannel, kind: str, name: str, queue: str) -> None:
    is_exchange = name in (EXCHANGE, DEFAULT)
    if kind == WRITE and is_exchange:
        channel.confirm_delivery()
        channel.basic_publish("" if name == DEFAULT else name, "", b"", pika.BasicProperties(expiration="none"))
    elif kind == CONFIGURE and is_exchange:
        channel.exchange_declare(name, "direct", durable=True, arguments={"alternate-exchange": 0})
    elif kind == CONFIGURE:
        channel.queue_declare(name, durable=True, arguments={"x-message-ttl": "none"})
    elif kind == READ and not is_exchange:
        channel.basic_consume(name, lambda *_: None, arguments={"x-priority": "none"})
    else:
        channel.queue_unbind(queue, EXCHANGE, "carpark.rights")  # which is not bound


def require(
    urls: str, name: str, rights: Iterable[Right] = (), queues: Collection[str] = (), queue_type: str = CLASSIC
) -> None:
    """See at a service's start that RabbitMQ lets it in and grants what it needs, so that it need not wait in vain."""
    try:
        with connected(urls, name) as connection:
            shown, refusal = {*queues, *([EXCHANGE] if queues else [])}, None
            try:
                channel = connection.channel()
                for each in queues:
                    declare_queue(channel, each, queue_type)
            except exceptions.ChannelClosedByBroker as error:
                shown, refusal = set(), error
            missing = denied(connection, (each for each in rights if each.kind == READ or each.name not in shown))
            if refusal and not missing:
                raise refusal
    except BrokerUnavailable as error:
        if error.refuses:
            raise InvalidSetting("CARPARK_BROKER_URL", mask_urls(urls), f"one that does not refuse: {error}") from error
        return
    if missing:
        wanted = f"a user with the right to {named(missing)} (docs/reference/rights.md)"
        raise InvalidSetting("CARPARK_BROKER_URL", mask_urls(urls), wanted)


def require_worker(settings: Settings) -> None:
    """See at a worker's start to its user and its queues.

    Rights are patterns over names: what is not shown by declaring is tried on the names of one partition, the last.
    """
    last = settings.partitions - 1
    earlier = {name for queue in event_queues(last) for name in with_companions(queue)}
    queues = [name for queue in all_queues(settings.partitions) for name in with_companions(queue)]
    if settings.queue_type == QUORUM:
        # In a cluster the node with the dead letters may be away, and RabbitMQ 4 takes minutes to say so.
        queues = [name for name in queues if name != xq_name(name)]
    rights = [right for right in rights_of(settings.partitions)[WORKER] if right.name not in earlier]
    require(settings.broker_url, "carpark backend", rights, queues, settings.queue_type)
