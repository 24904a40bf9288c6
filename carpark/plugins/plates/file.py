"""Plates from a file of one's own."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from carpark.domain.events import canonical_plate
from carpark.errors import InvalidSetting
from carpark.plugins.base import PlateGenerator, PlatesType, PluginContext
from carpark.plugins.spec import hookimpl
from carpark.settings import values
from carpark.settings.values import Text


class FilePlates(PlateGenerator):
    """Gives the plates of a list in a random order, all of them before any comes again, and then in another order.

    Args:
        plates: The plates: canonical form to what people write.
        chance: Where the order comes from.
    """

    def __init__(self, plates: Mapping[str, str], chance: random.Random) -> None:
        self._plates, self._chance = plates, chance
        self._waiting: list[str] = []
        self.population = len(plates)

    def sample(self) -> str:
        """Give the next plate.

        Returns:
            A plate as the file has it.
        """
        if not self._waiting:
            self._waiting = self._chance.sample([*self._plates.values()], len(self._plates))
        return self._waiting.pop()

    def is_valid(self, plate: str) -> bool:
        """Say whether a plate is in the list.

        Args:
            plate: A plate, canonical or as people write it.

        Returns:
            True when it is.
        """
        with suppress(ValueError):
            return canonical_plate(plate) in self._plates
        return False


def parse_plates(lines: Iterable[str]) -> dict[str, str]:
    """Read a list of plates.

    Args:
        lines: A plate each; what follows a ``#`` is a comment, empty lines are skipped.

    Returns:
        Canonical form to what is written, in the order of the lines.

    Raises:
        ValueError: A line is not a plate, a plate comes twice, or there is none. The line's number is said.
    """
    plates: dict[str, str] = {}
    numbers: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not (text := line.partition("#")[0].strip()):
            continue
        try:
            canonical = canonical_plate(text)
        except ValueError as error:
            raise ValueError(f"line {number}, {text!r}: {error}") from None
        if canonical in plates:
            raise ValueError(f"line {number}, {text!r}, is the plate of line {numbers[canonical]} again")
        plates[canonical], numbers[canonical] = text, number
    if not plates:
        raise ValueError("there is no plate in it")
    return plates


class FileSettings(BaseModel, frozen=True, extra="forbid"):
    """The settings of the plate generator ``file``."""

    file: Annotated[Path, Text(values.path, "a file with a plate a line, because CARPARK_PLATES is file", "FILE")] = (
        Field(description="the plates of the generator `file`, one a line")
    )


def _make(context: PluginContext, chance: random.Random) -> FilePlates:
    path: Path = context.own.file
    try:
        with path.open(encoding="utf-8-sig") as lines:
            return FilePlates(parse_plates(lines), chance)
    except UnicodeDecodeError:
        reason = "it is not UTF-8"
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
    raise InvalidSetting("CARPARK_PLATES_FILE", str(path), f"a file with a plate a line, each once ({reason})")


@hookimpl
def carpark_register_plates() -> Sequence[PlatesType]:
    """Offer ``file``.

    Returns:
        The one offer.
    """
    said = "your own plates, one a line in the file CARPARK_PLATES_FILE"
    return [PlatesType("file", _make, said, FileSettings, "PLATES_")]
