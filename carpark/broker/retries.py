"""What becomes of events whose actor failed: each goes its own way, and none is queued again."""

from __future__ import annotations

from typing import Any

import dramatiq
from dramatiq.broker import Broker, MessageProxy
from dramatiq.errors import Retry
from dramatiq.middleware import Middleware

from carpark.broker.batches import Batch, parts_of


class Failures(Middleware):
    """Decides what becomes of a message whose actor raised an error.

    What says `Retry` is nobody's fault: the process stops while a server is away, and its events stay in their queue.
    After any other error a single event is given up, and of a batch those at the error's ``places``, or all, are worked
    on again, each alone.
    """

    def __init__(self) -> None:
        self._worker: dramatiq.Worker | None = None

    @property
    def actor_options(self) -> set[str]:
        """Names the option with which an actor says what it raises on purpose: Dramatiq logs that in a line."""
        return {"throws"}

    def before_worker_boot(self, broker: Broker, worker: dramatiq.Worker) -> None:
        """Remember who works.

        Args:
            broker: The broker.
            worker: The process's worker.
        """
        self._worker = worker

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        """Say what becomes of a message that failed.

        Args:
            broker: The broker.
            message: The message that was worked on.
            result: What its actor returned.
            exception: What its actor raised.
        """
        if exception is None:
            return
        if isinstance(exception, Retry):
            for part in parts_of(message):
                part.returned = True  # type: ignore[attr-defined]
        elif isinstance(message, Batch) and len(message.parts) > 1:
            self._work_alone(message, getattr(exception, "places", None))
        else:
            message.fail()

    def _work_alone(self, batch: Batch, places: tuple[int, ...] | None) -> None:
        assert self._worker is not None  # noqa: S101 - it has worked on the batch
        for part in batch.leave(range(len(batch.parts)) if places is None else places):
            # As if it had just arrived: it is acknowledged or dead-lettered on its own.
            self._worker.consumers[part.queue_name].handle_message(part)
