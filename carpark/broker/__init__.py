"""From a URL to a Dramatiq broker whose consumers read bodies: ours, bare events, and garbage."""

from __future__ import annotations

from dramatiq.middleware import Middleware

from carpark.broker.rabbitmq import RabbitmqBroker
from carpark.broker.stub import StubBroker
from carpark.broker.topology import CLASSIC, QUEUES

STUB = "stub://"

__all__ = ["QUEUES", "STUB", "RabbitmqBroker", "StubBroker", "make_broker"]


def make_broker(url: str, middleware: list[Middleware], queue_type: str = CLASSIC) -> RabbitmqBroker | StubBroker:
    """Make a broker; it connects when it is first used.

    Args:
        url: AMQP URLs separated by ``;``, or ``stub://`` for the in-process broker.
        middleware: What Dramatiq shall call on the way.
        queue_type: How RabbitMQ keeps the queues, classic or quorum.

    Returns:
        The broker.
    """
    return StubBroker(middleware) if url.startswith(STUB) else RabbitmqBroker(url, middleware, queue_type)
