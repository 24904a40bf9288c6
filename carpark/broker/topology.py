"""The queues as they are declared: one truth for the backend, the generators and the queue configurator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dramatiq.brokers.rabbitmq import DEAD_MESSAGE_TTL
from dramatiq.common import dq_name, q_name, xq_name

from carpark.events import EVENT_OF_QUEUE

if TYPE_CHECKING:
    from pika.adapters.blocking_connection import BlockingChannel

QUEUES: tuple[str, ...] = tuple(EVENT_OF_QUEUE)
"""The two queues; each has a companion for delayed messages (``.DQ``) and one for dead ones (``.XQ``)."""


def queue_arguments(name: str) -> dict[str, Any]:
    """Say with which arguments a queue is declared; they are those of Dramatiq's own broker.

    Args:
        name: A queue or one of its companions.

    Returns:
        The AMQP arguments. RabbitMQ refuses to declare an existing queue with any others.
    """
    if name == xq_name(name):
        return {"x-message-ttl": DEAD_MESSAGE_TTL}
    return {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": xq_name(name)}


def with_companions(name: str) -> tuple[str, str, str]:
    """Name the three queues that belong together.

    Args:
        name: A queue or one of its companions.

    Returns:
        The queue, its delay queue, its dead letters.
    """
    return q_name(name), dq_name(name), xq_name(name)


def declare_queue(channel: BlockingChannel, name: str) -> int:
    """Declare one queue of RabbitMQ, durable.

    Args:
        channel: An open channel; RabbitMQ closes it when the queue exists with other arguments.
        name: A queue or one of its companions.

    Returns:
        How many messages are ready in it.

    Raises:
        pika.exceptions.AMQPError: RabbitMQ refused, or is gone.
    """
    declared = channel.queue_declare(queue=name, durable=True, arguments=queue_arguments(name))
    count: int = declared.method.message_count
    return count


def declare_queues(channel: BlockingChannel, names: tuple[str, ...] = QUEUES) -> None:
    """Declare queues with their companions.

    Args:
        channel: An open channel.
        names: The queues, without companions.

    Raises:
        pika.exceptions.AMQPError: RabbitMQ refused, or is gone.
    """
    for name in names:
        for each in with_companions(name):
            declare_queue(channel, each)
