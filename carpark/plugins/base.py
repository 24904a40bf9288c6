"""What a sink and a plate generator are, and how a plugin offers them."""

from __future__ import annotations

import os
import random
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from carpark.domain.events import StaySummary
from carpark.settings import Settings

NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
"""What the name of a sink or a plate generator looks like: it becomes a metric's label and part of a Redis field."""


@dataclass(frozen=True)
class PluginContext:
    """What a plugin is given to work with; it may grow, so take what you need from it by name.

    Args:
        settings: The process's settings.
        environ: The environment, for settings that a plugin has of its own.
        clock: Says what time it is, as an aware datetime.
    """

    settings: Settings
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)


class Sink(ABC):
    """Takes the summaries of finished stays.

    One sink is made per process. Of all processes one calls its sink at a time; but a call that was given up, because
    it took longer than ``CARPARK_SINK_TIMEOUT`` and 5 seconds, may still be running, there or elsewhere. So it is
    called from any thread, and it is idempotent by summary id: what it holds already it takes again without effect,
    because delivery is at least once. No other sink waits for it, and no event.

    Attributes:
        batch: How many summaries a call has at most, from 1 to 1,000.
    """

    batch: int = 1000

    @abstractmethod
    def deliver(self, summaries: Sequence[StaySummary]) -> None:
        """Take summaries; when this returns they are safely kept.

        Args:
            summaries: One or more; an id may come twice, in one list too.

        Raises:
            SummaryRefused: Offering these again changes nothing; they are dead-lettered with the reason. Its ``ids``
                name the refused ones when the others are safely kept; without them the whole list is refused.
            SinkUnavailable: Not now; all of the list are offered again later, also those that were kept. Any other
                exception counts as this one.
        """

    def close(self) -> None:  # noqa: B027 - nothing to do is the ordinary case
        """Let go of connections and files; called when the process ends, and harmless when called again."""


class PlateGenerator(ABC):
    """Makes up number plates.

    Attributes:
        population: How many different plates there are, where that is few enough to run out; else None.
    """

    population: int | None = None

    @abstractmethod
    def sample(self) -> str:
        """Make up the next plate.

        Returns:
            A plate as people write it; `carpark.canonical_plate` takes it. It need not be new: whether a
            vehicle with this plate is inside is for the caller to find out.
        """

    @abstractmethod
    def is_valid(self, plate: str) -> bool:
        """Say whether a plate could be one of these.

        Args:
            plate: A plate, canonical or as people write it.

        Returns:
            True for everything that `sample` returns, and for its canonical form.
        """


@dataclass(frozen=True)
class SinkType:
    """An offer of a sink.

    Args:
        name: What ``CARPARK_SINKS`` calls it: lower-case letters, digits and hyphens.
        make: Makes the sink; called once per process that delivers, and only if the sink is in use. A
            `ConfigurationError` that it raises ends the process with that line and status 2.
        help: One line for ``carpark plugins``.
    """

    name: str
    make: Callable[[PluginContext], Sink]
    help: str = ""


@dataclass(frozen=True)
class PlatesType:
    """An offer of a plate generator.

    Args:
        name: What ``CARPARK_PLATES`` calls it: lower-case letters, digits and hyphens.
        make: Makes the generator; all its chance comes from the given `random.Random`, so that a seed repeats it.
        help: One line for ``carpark plugins``.
    """

    name: str
    make: Callable[[PluginContext, random.Random], PlateGenerator]
    help: str = ""
