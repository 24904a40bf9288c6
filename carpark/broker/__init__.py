"""Dramatiq's side: a broker whose consumers read bodies for their own queue, ours, bare events and garbage.

Dispatchers keep each queue's order, batches fold what has arrived, failures decide what becomes of a message that
failed, and what is given up becomes a dead letter.
"""

from __future__ import annotations

from dramatiq.middleware import Middleware

from carpark.broker.rabbitmq import RabbitmqBroker
from carpark.broker.stub import StubBroker
from carpark.rabbitmq.topology import CLASSIC

STUB = "stub://"

__all__ = ["STUB", "RabbitmqBroker", "StubBroker", "make_broker"]


def make_broker(
    url: str, middleware: list[Middleware], *, queue_type: str = CLASSIC, batch: int = 1
) -> RabbitmqBroker | StubBroker:
    """Make a broker; it connects when it is first used."""
    if url.startswith(STUB):
        return StubBroker(middleware, batch)
    return RabbitmqBroker(url, middleware, queue_type=queue_type, batch=batch)
