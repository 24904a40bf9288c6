"""The plugin manager: finds what is there, and says which plugin is wrong and what to do."""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from carpark import __version__
from carpark.errors import BrokenPlugin, ConfigurationError, InvalidSetting, UnknownPlugin
from carpark.plugins import Plugins, Sink
from carpark.plugins.base import NoSettings
from carpark.plugins.manager import BUILTIN, HOOKS
from carpark.testing import make_context

SINK = """
from carpark.plugins import Sink, SinkType, hookimpl

class MySink(Sink):
    def deliver(self, summaries):
        pass

@hookimpl
def carpark_register_sinks():
    return [SinkType("{name}", lambda context: MySink(), "mine")]
"""


def broken(*modules: str) -> str:
    with pytest.raises(BrokenPlugin) as caught:
        Plugins(modules)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_the_built_in_plugins_are_there() -> None:
    plugins = Plugins()
    assert list(plugins.sinks) == ["http-csv", "webhook", "csv", "jsonl", "stdout", "sqlite"]
    assert list(plugins.plates) == ["alphanumeric", "uk", "singapore", "germany", "california", "file"]
    for found in [*plugins.sinks.values(), *plugins.plates.values()]:
        assert found.plugin in BUILTIN
        assert (found.origin.source, found.origin.version) == ("built in", __version__)
        assert found.offer.help
    assert HOOKS == ("carpark_register_sinks", "carpark_register_plates")


def test_a_module_in_the_current_folder_is_loaded_by_its_name(module: Callable[[str, str], str], folder: Path) -> None:
    plugins = Plugins([module("my_sinks", SINK.format(name="mine"))])
    found = plugins.sinks["mine"]
    assert (found.plugin, str(found.origin)) == ("my_sinks", f"CARPARK_PLUGINS ({folder / 'my_sinks.py'})")


def test_an_installed_plugin_is_found_by_its_entry_point(
    module: Callable[[str, str], str], install: Callable[..., None]
) -> None:
    module("their_sinks", SINK.format(name="theirs"))
    install("carpark-theirs", "4.2", "theirs = their_sinks")
    found = Plugins().sinks["theirs"]
    assert found.plugin == "theirs"
    assert found.origin.version == "4.2"
    assert str(found.origin) == "installed (carpark-theirs)"


def test_an_object_can_be_a_plugin(folder: Path, install: Callable[..., None]) -> None:
    (folder / "objects.py").write_text(
        "from carpark.plugins import PlatesType, hookimpl\n"
        "class Plugin:\n"
        "    @hookimpl\n"
        "    def carpark_register_plates(self):\n"
        "        return [PlatesType('from-an-object', lambda context, chance: None)]\n"
        "plugin = Plugin()\n"
    )
    install("carpark-objects", "1", "objects = objects:plugin")
    assert Plugins().plates["from-an-object"].plugin == "objects"


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (
            "from carpark import hookimpl\n@hookimpl\ndef carpark_register_sink(): return []",
            "there is no hook carpark_register_sink; did you mean carpark_register_sinks? "
            "The hooks are carpark_register_sinks, carpark_register_plates",
        ),
        (
            "from carpark import hookimpl\n@hookimpl\ndef unheard_of(): return []",
            "there is no hook unheard_of; the hooks are carpark_register_sinks, carpark_register_plates",
        ),
        (
            "def carpark_register_plates(): return []",
            "its carpark_register_plates is not marked; put @carpark.hookimpl above it",
        ),
        ("", "implements no hook; the hooks are carpark_register_sinks, carpark_register_plates"),
        (
            "from carpark import hookimpl\n@hookimpl\ndef carpark_register_sinks(context): return []",
            "Argument(s) {'context'} are declared in the hookimpl but can not be found in the hookspec",
        ),
        (
            "from carpark import hookimpl\n@hookimpl\ndef carpark_register_sinks(): return 1 / 0",
            "carpark_register_sinks failed: ZeroDivisionError: division by zero; fix it, or remove the plugin",
        ),
        (
            "from carpark import hookimpl\n@hookimpl\ndef carpark_register_sinks(): pass",
            "carpark_register_sinks returned None; wanted a list",
        ),
        (
            "from carpark import hookimpl\n@hookimpl\ndef carpark_register_sinks(): return ['csv']",
            "carpark_register_sinks returned 'csv'; wanted a SinkType with a name like 'my-name'",
        ),
        (
            SINK.format(name="My Sink"),
            "wanted a SinkType with a name like 'my-name'",
        ),
        (
            SINK.format(name="csv"),
            "offers 'csv', as does the plugin 'carpark.plugins.sinks.lines', built in; "
            "rename one, or uninstall a plugin",
        ),
        (
            "from carpark import hookimpl\n@hookimpl\ndef carpark_register_sinks(): raise SystemExit(3)",
            "carpark_register_sinks failed: SystemExit: 3; fix it, or remove the plugin",
        ),
        (
            "from carpark import SinkType, hookimpl\n@hookimpl\n"
            "def carpark_register_sinks(): return [SinkType('mine', print, settings=dict(colour=str))]",
            "'mine' has the settings {'colour': <class 'str'>}; wanted a class that is a pydantic.BaseModel",
        ),
        (
            "from carpark import SinkType, hookimpl\nfrom pydantic import BaseModel\n"
            "class Redis(BaseModel):\n    stream: str\n    url: str\n"
            "@hookimpl\ndef carpark_register_sinks(): return [SinkType('redis', print, settings=Redis)]",
            "'redis' has the setting CARPARK_REDIS_URL, which is carpark's own; rename the field, or give the offer a ",
        ),
        (
            "from carpark import SinkType, hookimpl\n@hookimpl\n"
            "def carpark_register_sinks(): return [SinkType(5, print)]",
            "wanted a SinkType with a name like 'my-name'",
        ),
        ("import nothing_of_this_name", "cannot be imported: ModuleNotFoundError: No module named"),
        ("def :", "cannot be imported: SyntaxError"),
        (
            "raise SystemExit('no\\nway')",
            "cannot be imported: SystemExit: no way; fix it, or take it out",
        ),
    ],
)
def test_a_broken_plugin_is_an_error_that_says_which_and_what_to_do(
    module: Callable[[str, str], str], source: str, complaint: str
) -> None:
    line = broken(module("my_plugin", source))
    assert line.startswith("plugin 'my_plugin': ")
    assert complaint in line


def test_a_module_that_does_not_exist_is_an_error_that_says_where_it_was_looked_for(folder: Path) -> None:
    line = broken("not_there.at_all")
    assert "plugin 'not_there.at_all': named in CARPARK_PLUGINS: there is no such module" in line
    assert "nor in this folder" in line


def test_an_installed_plugin_that_cannot_be_imported_is_named_with_its_distribution(
    module: Callable[[str, str], str], install: Callable[..., None]
) -> None:
    module("their_sinks", "raise OSError('no such luck')")
    install("carpark-theirs", "4.2", "theirs = their_sinks")
    assert broken() == (
        "plugin 'theirs': their_sinks cannot be loaded: OSError: no such luck; fix it, or uninstall carpark-theirs"
    )


def test_two_plugins_of_one_name_are_an_error_that_names_both(
    module: Callable[[str, str], str], install: Callable[..., None]
) -> None:
    module("one", SINK.format(name="one"))
    module("other", SINK.format(name="other"))
    install("carpark-one", "1", "same = one")
    install("carpark-other", "1", "same = other")
    line = broken()
    assert line.startswith("plugin 'same': there are two of this name")
    assert "installed (carpark-one)" in line
    assert "installed (carpark-other)" in line


def test_one_plugin_that_is_named_twice_is_an_error_that_says_so(
    module: Callable[[str, str], str], install: Callable[..., None]
) -> None:
    module("their_sinks", SINK.format(name="theirs"))
    install("carpark-theirs", "4.2", "theirs = their_sinks")
    line = broken("their_sinks")
    assert "is the plugin 'theirs' again, installed (carpark-theirs); name it once" in line


@pytest.mark.parametrize(
    ("name", "hint"),
    [("sqllite", "did you mean 'sqlite'? There are: csv, http-csv,"), ("qqq", "there is no such plugin; there are: ")],
)
def test_a_sink_that_nobody_offers_is_an_error_with_the_closest_name(name: str, hint: str) -> None:
    with pytest.raises(UnknownPlugin, match=f"CARPARK_SINKS='{name}'") as caught:
        Plugins().make_sinks(make_context({"CARPARK_SINKS": f"stdout,{name}"}))
    assert hint in str(caught.value)


def test_plates_that_nobody_offers_are_an_error_with_the_closest_name() -> None:
    with pytest.raises(UnknownPlugin, match=r"CARPARK_PLATES='german'.*did you mean 'germany'\?"):
        Plugins().make_plates(make_context({"CARPARK_PLATES": "german"}), random.Random())


def test_sinks_are_made_in_the_order_of_the_setting(tmp_path: Path) -> None:
    environ = {"CARPARK_SINKS": "stdout,csv,http-csv", "CARPARK_SINK_CSV": str(tmp_path / "stays.csv")}
    sinks = Plugins().make_sinks(make_context(environ))
    assert list(sinks) == ["stdout", "csv", "http-csv"]


def test_a_sink_that_is_not_in_use_is_not_made(module: Callable[[str, str], str]) -> None:
    source = SINK.format(name="mine").replace("lambda context: MySink()", "lambda context: 1 / 0")
    plugins = Plugins([module("my_sinks", source)])
    assert list(plugins.make_sinks(make_context({"CARPARK_SINKS": "stdout"}))) == ["stdout"]


@pytest.mark.parametrize(
    ("make", "error", "complaint"),
    [
        ("lambda context: 1 / 0", BrokenPlugin, "'mine' cannot be made: ZeroDivisionError: division by zero"),
        ("lambda context: 'sink'", BrokenPlugin, "'mine' made str; wanted a Sink"),
        ("refuse", InvalidSetting, "MY_SETTING='5': wanted six"),
    ],
)
def test_a_sink_that_cannot_be_made_is_an_error_and_the_others_are_closed(
    module: Callable[[str, str], str], make: str, error: type[ConfigurationError], complaint: str
) -> None:
    mine = SINK.format(name="mine").replace("lambda context: MySink()", make) + textwrap.dedent(
        """
        from carpark.errors import InvalidSetting

        def refuse(context):
            raise InvalidSetting("MY_SETTING", "5", "six")
        """
    )
    other = SINK.format(name="other") + "\nclosed = []\nMySink.close = lambda self: closed.append(self)\n"
    plugins = Plugins([module("my_sinks", mine), module("other_sinks", other)])
    with pytest.raises(error) as caught:
        plugins.make_sinks(make_context({"CARPARK_SINKS": "other,mine"}))
    assert complaint in str(caught.value)
    assert len(sys.modules["other_sinks"].closed) == 1


def test_a_plugin_gets_the_settings_and_the_environment(module: Callable[[str, str], str]) -> None:
    name = module(
        "my_sinks",
        SINK.format(name="mine").replace("MySink(), ", "made.append(context) or MySink(), ") + "\nmade = []\n",
    )
    context = make_context({"CARPARK_SINKS": "mine", "MY_SETTING": "5"})
    sinks = Plugins([name]).make_sinks(context)
    assert isinstance(sinks["mine"], Sink)
    [given] = sys.modules[name].made
    assert given == context
    assert given.own == NoSettings()
    assert (given.settings.sinks, given.environ["MY_SETTING"]) == (("mine",), "5")
    assert given.clock().tzinfo is not None


@pytest.mark.parametrize(
    ("read_back", "error", "complaint"),
    [
        ("lambda context: 1 / 0", BrokenPlugin, "'mine' cannot be read back: ZeroDivisionError: division by zero"),
        ("refuse", InvalidSetting, "MY_SETTING='5': wanted six"),
    ],
)
def test_a_sink_that_cannot_be_read_back_is_an_error_that_names_it(
    module: Callable[[str, str], str], read_back: str, error: type[ConfigurationError], complaint: str
) -> None:
    source = SINK.format(name="mine").replace('"mine")', f'"mine", read_back={read_back})') + textwrap.dedent(
        """
        from carpark.errors import InvalidSetting

        def refuse(context):
            raise InvalidSetting("MY_SETTING", "5", "six")
        """
    )
    plugins = Plugins([module("my_sinks", source)], {})
    with pytest.raises(error) as caught:
        plugins.read_back(make_context({"CARPARK_SINKS": "stdout,mine"}).settings)
    assert complaint in str(caught.value)


def test_finding_the_plugins_imports_nothing_that_only_a_sink_in_use_needs() -> None:
    heavy: Sequence[str] = ("requests", "urllib3", "rich", "dramatiq", "pika", "redis", "flask", "pytest")
    source = (
        f"import sys; from carpark.plugins import Plugins; Plugins(); print([n for n in {heavy} if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
