"""Queues and exchange as they are declared: one truth for the backend, the generators and the queue configurator."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from dramatiq.brokers.rabbitmq import DEAD_MESSAGE_TTL
from dramatiq.common import dq_name, q_name, xq_name
from pika import spec
from pika.exceptions import ChannelClosedByBroker

from carpark.domain.routing import WORK, event_queues, is_event_queue
from carpark.errors import BrokerUnavailable, ExchangeMismatch, QueueMismatch
from carpark.rabbitmq.connection import explain, look

if TYPE_CHECKING:
    from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection

    from carpark.rabbitmq.management import ManagementApi

log = logging.getLogger(__name__)


EXCHANGE = "vehicle_events"
"""The direct exchange that events are published through, with the queue's name as the routing key.

RabbitMQ gives rights by exchange: who may write to this one can reach the queues of events, and no other.
"""

ASIDE = ".migrating"
"""The end of the name of the queue that has a queue's messages while that one gets other arguments."""

SINGLE_ACTIVE, TYPE = "x-single-active-consumer", "x-queue-type"

CLASSIC, QUORUM = "classic", "quorum"

DELIVERY_LIMIT = 100
"""How often a message of a quorum queue is delivered before RabbitMQ itself makes it a dead letter.

Each crash of a worker delivers all that it had in hand once more. RabbitMQ 4's own limit of 20 is soon reached by a
worker that cannot start, for no fault of the messages.
"""

_QUORUM = {
    "x-delivery-limit": DELIVERY_LIMIT,
    # What the limit makes a dead letter stays in its queue until it is in the other; this is the overflow it wants.
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}


def all_queues(partitions: int) -> tuple[str, ...]:
    """Name all queues; each has a companion for delayed messages (``.DQ``) and one for dead ones (``.XQ``)."""
    return (*event_queues(partitions), WORK)


def queue_arguments(name: str, queue_type: str = CLASSIC) -> dict[str, Any]:
    """Say with which arguments a queue is declared.

    A queue of events has one active consumer at a time: the first; RabbitMQ takes the next one when that one is gone,
    and it begins with all that was not acknowledged. Otherwise classic queues are those of Dramatiq's own broker.

    Dead letters are always in a classic queue: looking at a message of a quorum queue counts as a delivery, and after
    some of these the message would be gone. The type is always said, because a virtual host may have another default.
    """
    if name == xq_name(name):
        return {TYPE: CLASSIC, "x-message-ttl": DEAD_MESSAGE_TTL}
    arguments: dict[str, Any] = {
        TYPE: queue_type,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": xq_name(name),
    }
    if is_event_queue(name):
        arguments[SINGLE_ACTIVE] = True
    return {**arguments, **_QUORUM} if queue_type == QUORUM else arguments


def with_companions(name: str) -> tuple[str, str, str]:
    """Name the three queues that belong together."""
    return q_name(name), dq_name(name), xq_name(name)


def declare_queue(
    channel: BlockingChannel, name: str, queue_type: str = CLASSIC, *, bind: bool = True
) -> spec.Queue.DeclareOk | None:
    """Declare one queue of RabbitMQ, durable; a queue of events with its exchange, bound to it.

    Dead letters are in a classic queue, which lives on one node of a cluster. While that node is away RabbitMQ refuses
    it and closes the channel; the other queues work on, and so shall who uses them: it has a channel of its own.
    """
    is_dead = name == xq_name(name)
    with channel.connection.channel() if is_dead else contextlib.nullcontext(channel) as used:
        try:
            arguments = queue_arguments(name, queue_type)
            declared: spec.Queue.DeclareOk = used.queue_declare(name, durable=True, arguments=arguments).method
        except ChannelClosedByBroker as error:
            if error.reply_code == spec.PRECONDITION_FAILED:
                raise QueueMismatch(name, explain(error)[0]) from error
            if error.reply_code != spec.NOT_FOUND or not is_dead:
                raise
            log.warning("%s: its node is away; dead letters wait for it", name)
            return None
    if bind and is_event_queue(name):
        declare_exchange(channel)
        channel.queue_bind(name, EXCHANGE, name)
    return declared


def declare_exchange(channel: BlockingChannel) -> None:
    """Declare the exchange that events are published through, durable."""
    try:
        channel.exchange_declare(EXCHANGE, "direct", durable=True)
    except ChannelClosedByBroker as error:
        if error.reply_code == spec.PRECONDITION_FAILED:
            raise ExchangeMismatch(EXCHANGE, explain(error)[0]) from error
        raise


def declare_queues(channel: BlockingChannel, names: Iterable[str] = all_queues(1), queue_type: str = CLASSIC) -> None:
    """Declare queues with their companions."""
    for name in names:
        for each in with_companions(name):
            declare_queue(channel, each, queue_type)


def why_not_to_look(connection: BlockingConnection, name: str, management: ManagementApi | None = None) -> str:
    """Say why the messages of a queue cannot be looked at: it is not a classic one, whatever it was meant to be.

    Who looks takes messages out and puts them back. All but classic queues count that as a delivery, of which they
    allow few (a quorum queue of RabbitMQ 4 by default 20); then the message is gone, or a dead letter.
    """
    if look(connection, name) is None:
        return ""
    if kind := _kind(name, management):
        return "" if kind == CLASSIC else f"it is a {kind} queue"
    try:
        with connection.channel() as channel:
            channel.queue_declare(name, durable=True, arguments=queue_arguments(name))
    except ChannelClosedByBroker as error:
        if error.reply_code == spec.PRECONDITION_FAILED:
            return explain(error)[0]
        if error.reply_code != spec.ACCESS_REFUSED:
            raise
        wanted = f"give the user the right to configure {name}, or name the management API in CARPARK_MANAGEMENT_URL"
        raise BrokerUnavailable(f"RabbitMQ does not say of what type {name} is; {wanted}") from error
    return ""


def _kind(name: str, management: ManagementApi | None) -> str:
    """Say of what type a queue is; nothing if the management API does not say it."""
    if management is not None:
        with contextlib.suppress(BrokerUnavailable, KeyError):
            return management.queues()[name].kind
    return ""
