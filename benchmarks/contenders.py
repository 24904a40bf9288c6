"""Who works on the events: carpark, the same without batches, a bare loop, Dramatiq and Celery as they come."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pika

from benchmarks.load import Letter
from benchmarks.stage import Site
from carpark.domain.events import EVENT_OF_QUEUE, Event
from carpark.rabbitmq.topology import SINGLE_ACTIVE, declare_queues, queue_arguments, with_companions
from generators.wire import message_body
from tests.support.processes import ROOT, Process

CELERY = ROOT / ".venv" / "bench"
PROCESSES, THREADS = 2, 2


@dataclass(frozen=True)
class Contender:
    """One way of working on the events.

    Args:
        name: What the table calls it.
        start: Starts it.
        letter: Writes the message of an event.
        declare: Declares the queues.
        slow: Whether it gets fewer events, so that it is done in the same time.
        batch: Its ``CARPARK_BATCH``.
    """

    name: str
    start: Callable[[Site], list[Process]]
    letter: Callable[[Event], Letter]
    declare: Callable[[Any], None] = declare_queues
    slow: bool = False
    batch: int = 100


def _persistent(event: Event) -> Letter:
    properties = pika.BasicProperties(content_type="application/json", delivery_mode=2)
    return event.queue, message_body(event), properties


def _celery(event: Event) -> Letter:
    """Write a message of Celery's protocol 2."""
    id_ = str(uuid.uuid4())
    headers = {"lang": "py", "task": event.queue, "id": id_, "root_id": id_, "parent_id": None, "group": None}
    body = [[event.to_dict()], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
    properties = pika.BasicProperties(
        content_type="application/json", content_encoding="utf-8", correlation_id=id_, headers=headers, delivery_mode=2
    )
    return f"celery_{event.queue}", json.dumps(body).encode(), properties


def _declare_plain(channel: Any) -> None:
    """Declare the queues as Dramatiq does, so that all processes take from them."""
    for queue in EVENT_OF_QUEUE:
        for name in with_companions(queue):
            arguments = {key: value for key, value in queue_arguments(name).items() if key != SINGLE_ACTIVE}
            channel.queue_declare(name, durable=True, arguments=arguments)


def _declare_celery(channel: Any) -> None:
    for queue in EVENT_OF_QUEUE:
        channel.queue_declare(f"celery_{queue}", durable=True)


def carpark_worker(site: Site) -> list[Process]:
    """Start the backend as docs/explanation/performance.md says.

    Args:
        site: Where.

    Returns:
        Its process.
    """
    command = ["carpark", "worker", "--processes", str(PROCESSES), "--threads", str(THREADS)]
    return [site.processes.start(command, env=site.environ)]


def _alone(site: Site) -> list[Process]:
    """Without batches more threads are needed: each waits for one event's round trips."""
    return [site.processes.start(["carpark", "worker", "--processes", str(PROCESSES)], env=site.environ)]


def _bare(site: Site) -> list[Process]:
    command = ["python", "-m", "benchmarks.bare"]
    return [site.processes.start(command, env=site.environ) for _ in range(PROCESSES)]


def _plain(site: Site) -> list[Process]:
    command = ["dramatiq", "benchmarks.plain", "--processes", str(PROCESSES)]
    return [site.processes.start(command, env={**site.environ, "PYTHONPATH": str(ROOT)})]


def _celery_worker(site: Site) -> list[Process]:
    command = ["python", "-m", "celery", "-A", "benchmarks.celery_app", "worker", "--concurrency", str(PROCESSES)]
    environ = {**site.environ, "PYTHONPATH": f"{ROOT}:{CELERY}"}
    if not Path(CELERY).is_dir():
        raise SystemExit("bench: Celery is not installed: make bench installs it")
    return [site.processes.start(command, env=environ)]


OURS, ALONE, BARE, PLAIN, CELERY_AS_IT_COMES = "carpark", "carpark, each alone", "bare pika", "Dramatiq", "Celery"

CONTENDERS = (
    Contender(OURS, carpark_worker, _persistent),
    Contender(BARE, _bare, _persistent, _declare_plain),
    Contender(ALONE, _alone, _persistent, slow=True, batch=1),
    Contender(PLAIN, _plain, _persistent, _declare_plain, slow=True),
    Contender(CELERY_AS_IT_COMES, _celery_worker, _celery, _declare_celery, slow=True),
)
"""All of them, in the order of the table."""
