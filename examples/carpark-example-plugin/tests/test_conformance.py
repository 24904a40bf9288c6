"""The suites that carpark gives to authors of plugins, and what is special here."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import pytest
from carpark_example.plates import NetherlandsPlates
from carpark_example.sink import JsonFolderSettings, JsonFolderSink, check, make_sink, read_back

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
    summary, context = make_summary("exit/1"), make_context(own=JsonFolderSettings(folder=tmp_path))
    make_sink(context).deliver([summary])
    [path] = tmp_path.iterdir()
    assert json.loads(path.read_text(encoding="utf-8")) == summary.to_dict()
    assert [list(row) for row in read_back(context).rows()] == [[str(value) for value in summary.to_dict().values()]]
    path.write_text("{}")
    assert [row.partition(":")[0] for row in read_back(context).rows()] == [path.name]


def test_a_folder_that_cannot_be_made_is_an_error_that_names_the_setting(tmp_path):
    (tmp_path / "file").touch()
    context = make_context(own=JsonFolderSettings(folder=tmp_path / "file" / "stays"))
    with pytest.raises(InvalidSetting, match="CARPARK_EXAMPLE_FOLDER"):
        make_sink(context)
    assert [finding.level for finding in check(context)] == ["problem"]
    assert [finding.level for finding in check(make_context(own=JsonFolderSettings(folder=tmp_path / "new")))] == ["ok"]


def test_carpark_finds_both_once_the_package_is_installed():
    listed = subprocess.run([sys.executable, "-m", "carpark", "plugins", "--json"], capture_output=True, check=True)
    found = {(offer["name"], offer["plugin"], offer["distribution"]) for offer in json.loads(listed.stdout)}
    assert {(name, "example", "carpark-example-plugin") for name in ("json-folder", "netherlands")} <= found
