"""What becomes of a message that failed. An event never leaves its place in its queue, but as a dead letter."""

from __future__ import annotations

import logging
from typing import Any

from dramatiq.broker import MessageProxy
from dramatiq.errors import BrokerConnectionError, Retry
from dramatiq.middleware import Middleware

from carpark.broker.batches import EventBatch
from carpark.broker.dispatch import MustWait
from carpark.errors import ServiceError

log = logging.getLogger(__name__)


class Failures(Middleware):
    """Leaves a message in its queue where it is not at fault, and gives it up where it is.

    What says `MustWait` is tried again in a moment. What says `Retry`, and a service that is away, are nobody's fault:
    the event, or the batch, is neither acknowledged nor put back, so that nothing overtakes it. After any other error a
    batch is taken apart: the events at the error's ``places``, or all, are worked on again, each alone, before what
    came after them.
    """

    @property
    def actor_options(self) -> set[str]:
        """Names the option with which an actor says what it raises on purpose: Dramatiq logs that in a line."""
        return {"throws"}

    def after_process_message(
        self, broker: Any, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        """Decide what becomes of a message that failed."""
        if exception is None:
            return
        if isinstance(exception, MustWait):
            message.is_held = True  # type: ignore[attr-defined]
        elif isinstance(exception, Retry | ServiceError | BrokerConnectionError):
            log.info("%s: left in its queue: %s", message, exception)
            message.is_left = True  # type: ignore[attr-defined]
        elif isinstance(message, EventBatch) and len(message.parts) > 1:
            places = getattr(exception, "places", range(len(message.parts)))
            broker.dispatchers.of(message.queue_name).add_first(message.leave(places))
        else:
            message.fail()
