"""The built-in plate generators run the suite that outside packages run."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from carpark.plugins import PlateGenerator, Plugins
from carpark.testing import PlatesConformance, make_context

PLUGINS = Plugins()


class BuiltinPlates(PlatesConformance):
    name = ""

    def make_plates(self, chance: random.Random) -> PlateGenerator:
        return PLUGINS.make_plates(make_context({"CARPARK_PLATES": self.name}), chance)


class TestAlphanumeric(BuiltinPlates):
    name = "alphanumeric"


class TestUk(BuiltinPlates):
    name = "uk"


class TestSingapore(BuiltinPlates):
    name = "singapore"


class TestGermany(BuiltinPlates):
    name = "germany"


class TestCalifornia(BuiltinPlates):
    name = "california"


class TestFile(PlatesConformance):
    lines = "".join(f"B-AB {number}\n" for number in range(1, 51))

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        self.path = tmp_path / "plates.txt"
        self.path.write_text(self.lines)

    def make_plates(self, chance: random.Random) -> PlateGenerator:
        environ = {"CARPARK_PLATES": "file", "CARPARK_PLATES_FILE": str(self.path)}
        return PLUGINS.make_plates(make_context(environ), chance)


class TestFileOfOnePlate(TestFile):
    lines = "B-AB 1"


def test_every_generator_on_offer_runs_the_suite() -> None:
    assert {case.name for case in BuiltinPlates.__subclasses__()} | {"file"} == set(PLUGINS.plates)
