"""The settings of a process and those of its offers, read together: all that is wrong is said at once."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from carpark.errors import BrokenPlugin, ConfigurationError, InvalidSetting, UnknownPlugin
from carpark.ops.audit import LastRun
from carpark.plugins import Plugins
from carpark.plugins.loading import load, own_options
from carpark.plugins.manager import own_settings
from carpark.settings import load_settings
from carpark.settings.fields import OfFlag

Module = Callable[[str, str], str]

HORN = """
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from carpark import PlateGenerator, PlatesType, ReadBack, Sink, SinkType, hookimpl
from carpark.settings.values import secret

made = []


class Horn(BaseModel, frozen=True):
    volume: int = Field(description="how loud")
    tape: Path = Field(Path("horn.tape"), description="where it `records`")
    key: Annotated[str, secret(metavar="KEY")] = Field("", description="its key")


class HornSink(Sink):
    def deliver(self, summaries):
        pass


class Same(PlateGenerator):
    def sample(self):
        return "SAME 1"

    def is_valid(self, plate):
        return True


def make(context, *_):
    made.append(context.own)
    return HornSink() if not _ else Same()


def read_back(context):
    return ReadBack(f"{context.own.tape}, key of {len(context.own.key)}", lambda: [])


@hookimpl
def carpark_register_sinks():
    return [
        SinkType("air-horn", make, "blows", Horn, read_back=read_back),
        SinkType("fog-horn", make, "blows, too", Horn, "AIR_HORN_"),
    ]


@hookimpl
def carpark_register_plates():
    return [PlatesType("same", make, "the same", Horn)]
"""
NO_VOLUME = "a value"
NO_INTEGER = "a valid integer, unable to parse string as an integer"


@pytest.fixture
def horn(module: Module) -> dict[str, str]:
    """Variables that name a module with two sinks of the same variables, and plates."""
    return {"CARPARK_PLUGINS": module("horn_plugin", HORN)}


def lines_of(environ: dict[str, str], flags: Mapping[str, str] | None = None, **more: object) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(environ, flags, **more)  # type: ignore[arg-type]
    return [str(each) for each in caught.value.findings]


def test_all_that_is_wrong_is_said_at_once_a_line_each_without_secrets(module: Module, horn: dict[str, str]) -> None:
    module("broken_plugin", "raise OSError('no such luck')")
    environ = {
        "CARPARK_PLUGINS": "broken_plugin,horn_plugin,not_there",
        "CARPARK_RATE": "fast",
        "CARPARK_BROKER_URL": "http://me:hunter2@host",
        "CARPARK_SINKS": "webhook,air-horn,kazoo",
        "CARPARK_WEBHOOK_SECRET": "hunter2 \t",
        "CARPARK_AIR_HORN_VOLUME": "loud",
        "CARPARK_AIR_HORN_KEY": "hunter2 \t",
        "CARPARK_SAME_VOLUME": "of no use: the plates are others",
        "CARPARK_PLATES": "file",
    }
    lines = lines_of(environ)
    assert [line.split("; ")[0] for line in lines] == [
        "plugin 'broken_plugin': named in CARPARK_PLUGINS: cannot be imported: OSError: no such luck",
        "plugin 'not_there': named in CARPARK_PLUGINS: there is no such module, neither installed nor in this folder "
        "nor on PYTHONPATH",
        "CARPARK_BROKER_URL='http://me:***@host': wanted amqp://user:password@host:port/vhost "
        "(several separated by ;), or stub://",
        "CARPARK_RATE='fast': wanted a number from 0.000001 to 100000",
        "CARPARK_SINKS='kazoo': there is no such plugin",
        "CARPARK_WEBHOOK_URL='': wanted http://host/path, because CARPARK_SINKS names webhook",
        "CARPARK_WEBHOOK_SECRET='***': wanted printable ASCII characters",
        f"CARPARK_AIR_HORN_VOLUME='loud': wanted {NO_INTEGER}",
        "CARPARK_AIR_HORN_KEY='***': wanted printable ASCII characters",
        "CARPARK_PLATES_FILE='': wanted a file with a plate a line, because CARPARK_PLATES is file",
    ]
    assert "hunter2" not in "".join(lines)


def test_a_required_field_a_plain_type_and_a_path_are_read_as_pydantic_reads_them(horn: dict[str, str]) -> None:
    environ = {**horn, "CARPARK_SINKS": "air-horn", "CARPARK_AIR_HORN_VOLUME": "7", "CARPARK_AIR_HORN_TAPE": "a b"}
    settings, plugins = load(environ)
    own = own_settings(plugins.sinks["air-horn"].offer, environ)
    assert (own.volume, own.tape, own.key) == (7, Path("a b"), "")
    assert lines_of({**environ, "CARPARK_AIR_HORN_VOLUME": ""}) == [f"CARPARK_AIR_HORN_VOLUME='': wanted {NO_VOLUME}"]
    assert lines_of({**environ, "CARPARK_AIR_HORN_VOLUME": "7.5"})[0].startswith("CARPARK_AIR_HORN_VOLUME='7.5'")
    plugins.make_sinks(plugins.context(settings))
    assert import_made() == [own]


def import_made() -> list[object]:
    import horn_plugin  # type: ignore[import-not-found] # made by the fixture

    made: list[object] = horn_plugin.made
    return made


def test_offers_are_given_what_flags_say(horn: dict[str, str]) -> None:
    environ = {**horn, "CARPARK_SINKS": "stdout", "CARPARK_AIR_HORN_VOLUME": "7", "CARPARK_SAME_VOLUME": "1"}
    flags = {"sinks": "air-horn", "plates": "same", "air_horn_volume": "8", "same_volume": "9"}
    settings, plugins = load(environ, flags)
    assert (settings.sinks, settings.plates) == (("air-horn",), "same")
    plugins.make_sinks(plugins.context(settings))
    plugins.make_plates(plugins.context(settings), random.Random(0))
    assert [each.volume for each in import_made()] == [8, 9]  # type: ignore[attr-defined]


def test_a_wrong_flag_is_called_as_it_is_said_and_a_wrong_variable_under_a_right_flag_does_no_harm(
    horn: dict[str, str],
) -> None:
    environ = {**horn, "CARPARK_SINKS": "air-horn", "CARPARK_AIR_HORN_VOLUME": "7", "CARPARK_RATE": "fast"}
    flags = {"air_horn_volume": OfFlag("loud", "--air-horn-volume"), "rate": OfFlag("faster", "--pace")}
    assert lines_of(environ, flags) == [
        "--pace (CARPARK_RATE)='faster': wanted a number from 0.000001 to 100000",
        f"--air-horn-volume (CARPARK_AIR_HORN_VOLUME)='loud': wanted {NO_INTEGER}",
    ]
    settings, _ = load({**environ, "CARPARK_AIR_HORN_VOLUME": "loud"}, {"air_horn_volume": "7", "rate": "1"})
    assert settings.rate == 1


def test_an_empty_variable_counts_as_not_set_and_an_empty_flag_as_a_value(horn: dict[str, str]) -> None:
    environ = {**horn, "CARPARK_SINKS": "", "CARPARK_RATE": "", "CARPARK_AIR_HORN_VOLUME": "", "CARPARK_SINK_CSV": ""}
    settings, _ = load(environ)
    assert (settings, settings.sinks) == (load_settings({"CARPARK_PLUGINS": "horn_plugin"}), ("http-csv",))
    assert load({**environ, "CARPARK_SINKS": "csv"})[0].sinks == ("csv",)
    flags = {"sinks": "csv", "rate": "", "sink_csv": ""}
    assert lines_of(environ, flags) == [
        "CARPARK_RATE='': wanted a number from 0.000001 to 100000",
        "CARPARK_SINK_CSV='': wanted a file name",
    ]


def test_an_empty_flag_of_plugins_takes_away_those_of_the_variable(horn: dict[str, str]) -> None:
    assert "air-horn" in load(horn)[1].sinks
    assert "air-horn" not in load(horn, {"plugins": ""})[1].sinks


def test_the_kinds_that_a_process_does_not_work_with_are_not_looked_at(horn: dict[str, str]) -> None:
    environ = {**horn, "CARPARK_SINKS": "kazoo", "CARPARK_PLATES": "same"}
    assert lines_of(environ, kinds=("plates",)) == [f"CARPARK_SAME_VOLUME='': wanted {NO_VOLUME}"]
    assert [line.partition(":")[0] for line in lines_of(environ, kinds=("sinks",))] == ["CARPARK_SINKS='kazoo'"]
    assert load({**environ, "CARPARK_SAME_VOLUME": "1"}, kinds=("plates",))[0].plates == "same"


def test_offers_in_use_are_looked_at_though_core_settings_are_wrong(horn: dict[str, str]) -> None:
    environ = {**horn, "CARPARK_SINKS": " , ", "CARPARK_PLATES": "same", "CARPARK_RATE": "x"}
    assert [line.partition("=")[0] for line in lines_of(environ)] == [
        "CARPARK_SINKS",
        "CARPARK_RATE",
        "CARPARK_SAME_VOLUME",
    ]


@pytest.mark.parametrize(
    ("environ", "flags", "error"),
    [
        ({"CARPARK_RATE": "x"}, {}, InvalidSetting),
        ({"CARPARK_SINKS": "kazoo"}, {}, UnknownPlugin),
        ({"CARPARK_PLUGINS": "not_there"}, {}, BrokenPlugin),
        ({}, {"plugins": "not_there"}, BrokenPlugin),
    ],
)
def test_one_thing_that_is_wrong_is_its_own_error(
    folder: Path, environ: dict[str, str], flags: dict[str, str], error: type[ConfigurationError]
) -> None:
    with pytest.raises(error):
        load(environ, flags)


def test_the_variables_of_the_process_are_the_default(horn: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {**horn, "CARPARK_SINKS": "air-horn", "CARPARK_AIR_HORN_VOLUME": "3"}.items():
        monkeypatch.setenv(name, text)
    settings, plugins = load()
    plugins.make_sinks(plugins.context(settings))
    assert [each.volume for each in import_made()] == [3]  # type: ignore[attr-defined]


def test_two_offers_of_one_variable_share_it_and_have_one_flag(horn: dict[str, str]) -> None:
    environ = {**horn, "CARPARK_SINKS": "air-horn,fog-horn", "CARPARK_AIR_HORN_VOLUME": "5"}
    settings, plugins = load(environ)
    plugins.make_sinks(plugins.context(settings))
    assert [each.volume for each in import_made()] == [5, 5]  # type: ignore[attr-defined]
    options = own_options(plugins)
    assert [name for name in options if name.startswith(("air", "fog"))] == [
        "air_horn_volume",
        "air_horn_tape",
        "air_horn_key",
    ]
    assert "same_volume" not in own_options(plugins, ("sinks",))


def test_what_is_wrong_for_two_offers_is_said_once(horn: dict[str, str]) -> None:
    environ = {**horn, "CARPARK_SINKS": "air-horn,fog-horn", "CARPARK_AIR_HORN_VOLUME": "loud"}
    assert lines_of(environ) == [f"CARPARK_AIR_HORN_VOLUME='loud': wanted {NO_INTEGER}"]


def test_plugins_that_are_broken_are_kept_aside_and_the_others_are_there(module: Module, horn: dict[str, str]) -> None:
    good_and_bad = """
        from carpark import SinkType, hookimpl

        @hookimpl
        def carpark_register_sinks():
            return [SinkType("good", print), SinkType("csv", print), 5]
    """
    module("half", good_and_bad)
    module("misspelt", "from carpark import hookimpl\n@hookimpl\ndef carpark_register_sink(): return []")
    plugins = Plugins(["misspelt", "horn_plugin", "half", "gone"], {}, lenient=True)
    assert {"air-horn", "good"} <= set(plugins.sinks)
    assert [str(error).partition(":")[0] for error in plugins.broken] == [
        "plugin 'misspelt'",
        "plugin 'gone'",
        "plugin 'half'",
        "plugin 'half'",
    ]
    with pytest.raises(ConfigurationError) as caught:
        Plugins(["misspelt", "horn_plugin", "half", "gone"], {})
    assert [str(each) for each in caught.value.findings] == [str(each) for each in plugins.broken]


def test_the_last_run_can_be_read_back_wherever_and_with_whatever_is_set_later(
    horn: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {
        **horn,
        "CARPARK_SINKS": "stdout,air-horn",
        "CARPARK_AIR_HORN_VOLUME": "7",
        "CARPARK_AIR_HORN_KEY": "hunter2",
    }
    settings, plugins = load(environ)
    csv = folder / "stays.csv"
    run = LastRun.begin(csv.with_name("stays.csv.run"), "2026-11-23T18:00:00.000000Z", settings, plugins)
    run.folder.mkdir()
    run.save()
    assert "hunter2" not in (run.folder / "run.json").read_text()
    monkeypatch.setenv("CARPARK_SINKS", "sqlite")
    monkeypatch.setenv("CARPARK_RATE", "nonsense")
    monkeypatch.setenv("CARPARK_AIR_HORN_VOLUME", "nonsense")
    monkeypatch.setenv("CARPARK_AIR_HORN_TAPE", "another")
    monkeypatch.setenv("CARPARK_AIR_HORN_KEY", "hunter2")  # a secret is in no file, so it is asked for again
    sinks = LastRun.load(csv).sources().sinks
    assert {name: back.place for name, back in sinks.items()} == {"air-horn": f"{folder / 'horn.tape'}, key of 7"}
