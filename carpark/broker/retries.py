"""Dramatiq's retries, for events alone and in batches; safe for the moment in which a retry itself cannot be queued."""

from __future__ import annotations

import time
from typing import Any

import dramatiq
from dramatiq.broker import Broker, MessageProxy
from dramatiq.errors import BrokerConnectionError, Retry
from dramatiq.middleware import Retries as BaseRetries

from carpark.broker.batches import Batch

RETURN_DELAY = 1.0
"""Seconds before a message whose retry could not be queued goes back to its queue."""


class Retries(BaseRetries):
    """Queues a failed message again; where the broker does not take it, the original goes back to its queue.

    Dramatiq would log the failure and then acknowledge the original: the message would be lost.

    A batch that fails is taken apart. What says `Retry` is nobody's fault: each of its events is queued again. After
    any other error the events at the error's ``places``, or all, are worked on again, each alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self._worker: dramatiq.Worker | None = None

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
        """Queue a retry if the message failed.

        Args:
            broker: The broker.
            message: The message that was worked on.
            result: What its actor returned.
            exception: What its actor raised.
        """
        if exception is None:
            return
        if not isinstance(message, Batch) or len(message.parts) == 1:
            self._retry([message], broker, exception)
        elif isinstance(exception, Retry):
            self._retry(message.parts, broker, exception)
        else:
            self._work_alone(message, getattr(exception, "places", None))

    def _retry(self, messages: list[MessageProxy], broker: Broker, exception: BaseException) -> None:
        for place, message in enumerate(messages):
            try:
                super().after_process_message(broker, message, exception=exception)  # type: ignore[no-untyped-call]
            except Exception as error:  # whatever it is: the retry is not queued, and the original must not go
                left = messages[place:]
                self.logger.warning(
                    "%s: retries could not be queued (%s); %d messages go back to their queue",
                    message,
                    error,
                    len(left),
                    exc_info=not isinstance(error, BrokerConnectionError),
                )
                time.sleep(RETURN_DELAY)
                for each in left:
                    each.returned = True  # type: ignore[attr-defined]
                return

    def _work_alone(self, batch: Batch, places: tuple[int, ...] | None) -> None:
        assert self._worker is not None  # noqa: S101 - it has worked on the batch
        for part in batch.leave(range(len(batch.parts)) if places is None else places):
            # As if it had just arrived: it is acknowledged, tried again or dead-lettered on its own.
            self._worker.consumers[part.queue_name].handle_message(part)
