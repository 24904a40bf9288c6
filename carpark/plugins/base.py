"""What a sink and a plate generator are, and how a plugin offers them."""

from __future__ import annotations

import os
import random
import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from carpark.domain.events import StaySummary
from carpark.plugins.findings import Finding
from carpark.settings import Settings
from carpark.settings.fields import PREFIX

NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
"""What the name of a sink or a plate generator looks like: it becomes a metric's label and part of a Redis field."""


class NoSettings(BaseModel, frozen=True, extra="forbid"):
    """The settings of an offer that has none of its own."""


@dataclass(frozen=True)
class PluginContext:
    """What a plugin is given to work with; it may grow, so take what you need from it by name.

    Args:
        settings: The process's settings.
        environ: The environment, with what flags say of the offers' own settings.
        clock: Says what time it is, as an aware datetime.
        own: The offer's own settings: an object of the model that it named.
    """

    settings: Settings
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    own: Any = field(default_factory=NoSettings, repr=False)


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
class ReadBack:
    """What a sink keeps, as the audit reads it.

    Args:
        place: Where that is, in words for people: the name of a file, an address without secrets.
        rows: Reads all of it from its beginning. A row is five texts, in the order of `StaySummary`'s fields: id,
            canonical plate, canonical times of entry and exit, duration in seconds; a single text is something that
            is no row. Raises OSError or ValueError where it cannot be read.
        exists: Whether there is anything to read.
        size: How many bytes it has, as far as that is known, for the progress bar.
    """

    place: str
    rows: Callable[[], Iterable[Sequence[str] | str]]
    exists: bool = True
    size: int = 0

    @classmethod
    def of_file(cls, path: Path, read: Callable[[Path], Iterable[Sequence[str] | str]]) -> ReadBack:
        """Say what is in a file of this machine.

        Args:
            path: The file, which need not be there.
            read: Reads all of its rows, as `rows` does.

        Returns:
            Its rows. One that is not there has none.
        """
        try:
            status = path.stat()
        except OSError:
            return cls(str(path), lambda: (), exists=False)
        return cls(str(path), lambda: read(path), stat.S_ISREG(status.st_mode), status.st_size)


@dataclass(frozen=True)
class Offer:
    """What is the same for all offers of plugins.

    Args:
        name: What the settings call it: lower-case letters, digits and hyphens.
        make: Makes it; called once per process that works with it, and only if it is in use. A `ConfigurationError`
            that it raises ends the process with that line and status 2.
        help: One line for ``carpark plugins``.
        settings: The model of its own settings: a variable ``CARPARK_<NAME>_<FIELD>`` and a flag for each field. What
            was given is in `PluginContext.own`.
        prefix: What its variables begin with after ``CARPARK_``, where that is not its name.
        check: Looks whether it would work, for ``carpark doctor``; it changes nothing. An error that it raises is a
            finding, too.
    """

    name: str
    make: Callable[..., Any]
    help: str = ""
    settings: type[BaseModel] = NoSettings
    prefix: str = ""
    check: Callable[[PluginContext], Iterable[Finding]] | None = None

    @property
    def variables(self) -> str:
        """What the names of its variables begin with."""
        return PREFIX + (self.prefix or self.name.replace("-", "_").upper() + "_")


@dataclass(frozen=True)
class SinkType(Offer):
    """An offer of a sink, which ``CARPARK_SINKS`` names. `make` is given a `PluginContext`.

    Args:
        read_back: Says what the sink keeps, for ``carpark verify``; without it the audit leaves the sink out.
        service: The service of carpark that it posts to (`carpark.services`); an embedded run starts it.
    """

    make: Callable[[PluginContext], Sink]
    read_back: Callable[[PluginContext], ReadBack] | None = None
    service: str = ""


@dataclass(frozen=True)
class PlatesType(Offer):
    """An offer of a plate generator, which ``CARPARK_PLATES`` names.

    `make` is given a `PluginContext` and a `random.Random`, from which all its chance comes, so that a seed repeats it.
    """

    make: Callable[[PluginContext, random.Random], PlateGenerator]
