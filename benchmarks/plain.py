"""Dramatiq as it comes: its own RabbitMQ broker and middleware, an actor per queue, one message at a time."""

from __future__ import annotations

from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from benchmarks.work import Work
from carpark.domain.events import VehicleEntered, VehicleExited
from carpark.settings import load_settings

broker = RabbitmqBroker(url=load_settings().broker_url)
dramatiq.set_broker(broker)
work = Work()


@dramatiq.actor(queue_name=VehicleEntered.queue)
def vehicle_entry(**fields: Any) -> None:
    """Work on an entry."""
    work.do([VehicleEntered.parse(fields)])


@dramatiq.actor(queue_name=VehicleExited.queue)
def vehicle_exit(**fields: Any) -> None:
    """Work on an exit."""
    work.do([VehicleExited.parse(fields)])
