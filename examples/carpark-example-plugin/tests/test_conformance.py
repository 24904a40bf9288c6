"""The suites that carpark gives to authors of plugins, and what is special here."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import pytest
from carpark_example.plates import NetherlandsPlates
from carpark_example.sink import JsonFolderSink, make_sink

from carpark import InvalidSetting, PlateGenerator, Sink
from carpark.testing import PlatesConformance, SinkConformance, make_context, make_summary


class TestJsonFolderSink(SinkConformance):
    def make_sink(self) -> Sink:
        return JsonFolderSink(self.folder / "stays")

    def stored_ids(self) -> list[str]:
        files = (self.folder / "stays").glob("*.json")
        return [json.loads(path.read_text(encoding="utf-8"))["id"] for path in files]

    def break_sink(self) -> None:
        (self.folder / "stays").rename(self.folder / "aside")

    def mend_sink(self) -> None:
        (self.folder / "aside").rename(self.folder / "stays")


class TestNetherlandsPlates(PlatesConformance):
    def make_plates(self, chance: random.Random) -> PlateGenerator:
        return NetherlandsPlates(chance)


def test_a_file_holds_the_summary(tmp_path):
    summary = make_summary("exit/1")
    make_sink(make_context({"EXAMPLE_FOLDER": str(tmp_path)})).deliver([summary])
    [path] = tmp_path.iterdir()
    assert json.loads(path.read_text(encoding="utf-8")) == summary.to_dict()


def test_a_folder_that_cannot_be_made_is_an_error_that_names_the_setting(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InvalidSetting, match="EXAMPLE_FOLDER"):
        make_sink(make_context({"EXAMPLE_FOLDER": str(tmp_path / "file" / "stays")}))


def test_carpark_finds_both_once_the_package_is_installed():
    listed = subprocess.run([sys.executable, "-m", "carpark", "plugins", "--json"], capture_output=True, check=True)
    found = {(offer["name"], offer["plugin"], offer["distribution"]) for offer in json.loads(listed.stdout)}
    assert {(name, "example", "carpark-example-plugin") for name in ("json-folder", "netherlands")} <= found
