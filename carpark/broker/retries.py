"""Dramatiq's retries, made safe for the moment in which the retry itself cannot be queued."""

from __future__ import annotations

import time
from typing import Any

from dramatiq.broker import Broker, MessageProxy
from dramatiq.errors import BrokerConnectionError
from dramatiq.middleware import Retries as BaseRetries

RETURN_DELAY = 1.0
"""Seconds before a message whose retry could not be queued goes back to its queue."""


class Retries(BaseRetries):
    """Queues a failed message again; where the broker does not take it, the original goes back to its queue.

    Dramatiq would log the failure and then acknowledge the original: the message would be lost.
    """

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
        try:
            super().after_process_message(broker, message, result=result, exception=exception)  # type: ignore[no-untyped-call]
        except BrokerConnectionError as error:
            self.logger.warning("%s: its retry could not be queued (%s); it goes back to its queue", message, error)
            time.sleep(RETURN_DELAY)
            message.returned = True  # type: ignore[attr-defined]
