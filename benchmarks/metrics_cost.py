"""What the backend's metrics cost: counting, of the workers' processor time; and the page, to whoever fetches it."""

from __future__ import annotations

import re
import statistics
import time
from typing import Any

import pika
import redis
import requests

from benchmarks.load import Load, fill, watch
from benchmarks.stage import Site, Stage
from carpark.rabbitmq.topology import declare_queues
from generators.wire import message_body
from tests.support.processes import Process
from tests.support.scraping import PAGE

PROCESSES = 2
FETCHES = 50
TOLD = re.compile(r"counting took ([\d.]+) of ([\d.]+) s")


def measure(stage: Stage, size: int) -> list[dict[str, Any]]:
    """Work off full queues, events in batches and one by one, and fetch the page meanwhile and afterwards.

    Args:
        stage: The servers.
        size: How many events there are.

    Returns:
        Per way of working: the batch, microseconds of processor time per event for counting and for everything, and
        the median milliseconds of a fetch under load and after it.
    """
    return [_measure(stage, size, 100), _measure(stage, size // 5, 1)]


def _measure(stage: Stage, size: int, batch: int) -> dict[str, Any]:
    load = Load(size)
    properties = pika.BasicProperties(content_type="application/json", delivery_mode=2)
    with stage.site(batch) as site:
        fill(site, [(event.queue, message_body(event), properties) for event in load.events], declare_queues)
        worker = _start(site, "benchmarks.timed_actors")
        watch(site, load, [worker])
        worker.terminate()
        told = TOLD.findall(worker.output)
        counting, everything = (sum(float(part[place]) for part in told) / size * 1e6 for place in (0, 1))
    with stage.site(batch) as site:
        fill(site, [(event.queue, message_body(event), properties) for event in load.events], declare_queues)
        worker = _start(site, "carpark.actors")
        url = worker.wait_for_line(PAGE, 60)[1]
        busy = []
        with redis.Redis.from_url(site.redis_url) as client:
            while client.zcard("carpark:seen:entry") < size // 2:
                busy.append(_fetch(url))
        idle = [_fetch(url) for _ in range(FETCHES)]
        worker.terminate()
    found = {"counting": counting, "everything": everything, "share": counting / everything}
    return {"batch": batch, **found, "busy": statistics.median(busy or idle), "idle": statistics.median(idle)}


def _start(site: Site, module: str) -> Process:
    return site.processes.start(
        ["dramatiq", module, "--processes", str(PROCESSES), "--threads", "4"], env=site.environ, name=module
    )


def _fetch(url: str) -> float:
    """Fetch a page; give the milliseconds that it took."""
    started = time.perf_counter()
    requests.get(url, timeout=10).raise_for_status()
    return (time.perf_counter() - started) * 1000
