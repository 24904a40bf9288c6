"""A worker whose actors write down in which order they were called: `dramatiq tests.ordered`.

The broker, its consumers and lanes are carpark's own, only what is done with an event is the test's: its id goes to the
end of a list in Redis, which belongs to its queue.
"""

from __future__ import annotations

import os
import time
from typing import Any

import dramatiq
import redis
from dramatiq.errors import Retry

from carpark.broker import make_broker
from carpark.broker.retries import Failures
from carpark.broker.topology import EVENT_QUEUES

HELD = "held"
"""A key of Redis: when a queue's list has so many ids, whoever works on the queue waits until the key is gone."""

LEFT = "left"
"""A key of Redis: whoever finds it takes it away, and leaves the events that it has in hand."""


def _broker() -> Any:
    environ = os.environ
    return make_broker(
        environ["CARPARK_BROKER_URL"], [Failures()], queue_type=environ.get("CARPARK_QUEUE_TYPE", "classic"), batch=100
    )


def _declare(queue: str) -> None:
    def work(*events: Any) -> None:
        while (most := store.get(HELD)) and store.llen(f"order:{queue}") >= int(most):
            time.sleep(0.02)
        if store.getdel(LEFT):
            raise Retry("nobody's fault")
        store.rpush(f"order:{queue}", *(event.id for event in events))

    dramatiq.actor(broker=broker, actor_name=queue, queue_name=queue)(work)


broker = _broker()
dramatiq.set_broker(broker)
store = redis.Redis.from_url(os.environ["CARPARK_REDIS_URL"])
for name in EVENT_QUEUES:
    _declare(name)
