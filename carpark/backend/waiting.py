"""Waiting in place for a server that is away, so that nothing changes its order."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from dramatiq.errors import BrokerConnectionError, Retry

from carpark.errors import RecordsUnavailable
from carpark.rabbitmq.outage import backoff

log = logging.getLogger(__name__)

PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.0)
"""Seconds between two attempts; the last one repeats."""

Result = TypeVar("Result")


class Waiting:
    """Does steps that can be repeated, each again and again while a server is away, which is said once."""

    def __init__(self, stopping: threading.Event, away: str, back: str) -> None:
        self._stopping, self._away, self._back = stopping, away, back
        self._is_away = False

    def until_done(self, step: Callable[[], Result]) -> Result:
        """Do a step."""
        for pause in backoff(*PAUSES):
            try:
                result = step()
                break
            except (RecordsUnavailable, BrokerConnectionError) as error:
                if not self._is_away:
                    self._is_away = True
                    log.warning("%s: %s", self._away, error)
                if self._stopping.wait(pause):
                    raise Retry(str(error)) from error
        if self._is_away:
            self._is_away = False
            log.warning("%s", self._back)
        return result
