"""The backend with a clock around everything that counts, for `make bench`.

Comparing a backend with metrics to one without says nothing on a machine that others use: its speed changes by more
than metrics cost. So the processor time that a worker's threads spend in them is set against all of it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import dramatiq
from dramatiq.broker import Broker
from dramatiq.middleware import Middleware

from carpark.actors import backend, broker

METER = ("recorded", "processed", "rejected", "delivery", "settled")
HOOKS = ("before_process_message", "after_process_message", "after_ack", "after_nack", "after_enqueue")

spent: defaultdict[int, float] = defaultdict(float)


def timed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Put a clock around a function; the clock's own time is counted too.

    Args:
        function: What is called.

    Returns:
        The same, timed.
    """

    def call(*given: Any, **named: Any) -> Any:
        started = time.thread_time()
        try:
            return function(*given, **named)
        finally:
            spent[threading.get_ident()] += time.thread_time() - started

    return call


class Tell(Middleware):
    """Says at the end what it came to."""

    def before_worker_boot(self, broker: Broker, worker: dramatiq.Worker) -> None:
        """Begin.

        Args:
            broker: The broker.
            worker: The worker.
        """
        self.started = time.process_time()

    def before_worker_shutdown(self, broker: Broker, worker: dramatiq.Worker) -> None:
        """End, and say it.

        Args:
            broker: The broker.
            worker: The worker.
        """
        print(f"counting took {sum(spent.values()):.6f} of {time.process_time() - self.started:.6f} s", file=sys.stderr)


for thing, names in ((backend.meter, METER), (backend.prometheus, HOOKS)):
    for name in names:
        setattr(thing, name, timed(getattr(thing, name)))
broker.add_middleware(Tell())
