"""Celery as it comes, acknowledging when the work is done."""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu import Queue

from benchmarks.work import Work
from carpark.domain.events import VehicleEntered, VehicleExited
from carpark.settings import load_settings

app = Celery("benchmarks", broker=load_settings().broker_url.replace("amqp:", "pyamqp:"))
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    task_queues=[
        Queue(f"celery_{queue}", routing_key=f"celery_{queue}") for queue in ("vehicle_entry", "vehicle_exit")
    ],
)
_work: list[Work] = []


def _do(event: VehicleEntered | VehicleExited) -> None:
    if not _work:  # after the fork: connections are a process's own
        _work.append(Work())
    _work[0].do([event])


@app.task(name="vehicle_entry")
def vehicle_entry(fields: dict[str, Any]) -> None:
    """Work on an entry."""
    _do(VehicleEntered.parse(fields))


@app.task(name="vehicle_exit")
def vehicle_exit(fields: dict[str, Any]) -> None:
    """Work on an exit."""
    _do(VehicleExited.parse(fields))
