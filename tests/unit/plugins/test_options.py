"""Commands that work with plugins: flags of the offers' own settings, and what a broken plugin does to whom."""

from __future__ import annotations

import json
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from typing import Any

import click
import pytest

from carpark.cli import carpark
from carpark.errors import InvalidSetting
from carpark.plugins import Plugins
from carpark.plugins.loading import own_options
from carpark.plugins.options import PluginCommand, plugin_options
from carpark.settings import Settings, load_settings
from carpark.settings.fields import options_of
from carpark.settings.options import CONTEXT
from tests.support.processes import RunHere

Module = Callable[[str, str], str]
Said = tuple[int, str, str]
Run = Callable[..., Said]

BELL = """
from pydantic import BaseModel, Field

from carpark import Sink, SinkType, hookimpl


class Bell(BaseModel, frozen=True):
    tone: int = Field(description="how `high`")
    made_of: str = Field("brass", description="its metal")


@hookimpl
def carpark_register_sinks():
    return [
        SinkType("door-bell", print, settings=Bell),
        SinkType("cow-bell", print, settings=Bell, prefix="DOOR_BELL_"),
    ]
"""
BROKEN = {
    "import_error": ("import nothing_of_this_name", "cannot be imported: ModuleNotFoundError: No module named"),
    "bad_hook": (
        "from carpark import hookimpl\n@hookimpl\ndef carpark_register_sink(): return []",
        "there is no hook carpark_register_sink; did you mean carpark_register_sinks?",
    ),
    "raising_hook": (
        "from carpark import hookimpl\n@hookimpl\ndef carpark_register_sinks(): return 1 / 0",
        "carpark_register_sinks failed: ZeroDivisionError: division by zero",
    ),
}
COMMANDS = {
    "run": ("sinks", "plates"),
    "worker": ("sinks",),
    "verify": ("sinks",),
    "doctor": ("sinks", "plates"),
    "generate entry": ("plates",),
    "generate exit": ("plates",),
}
"""The commands that have the flags of offers, and of which kinds."""

AWAY = {
    "CARPARK_BROKER_URL": "amqp://127.0.0.1:1",
    "CARPARK_MANAGEMENT_URL": "http://127.0.0.1:1",
    "CARPARK_REDIS_URL": "redis://127.0.0.1:1",
    "CARPARK_WRITER_URL": "http://127.0.0.1:1",
    "CARPARK_WRITER_PORT": "0",
    "CARPARK_DASHBOARD_PORT": "0",
    "CARPARK_METRICS_PORT": "0",
}


@pytest.fixture
def run(run_here: RunHere) -> Run:
    """Run a command of `carpark`, or another one: `run("doctor --json", CARPARK_RATE="2")`."""

    def run(words: str, command: click.Command = carpark, **environ: str) -> Said:
        ended = run_here(words.split(), environ, command)
        return ended.returncode, ended.stdout, ended.stderr

    return run


@pytest.fixture
def bell(module: Module) -> str:
    """The name of a module with sinks that have settings."""
    return module("bell_plugin", BELL)


@pytest.fixture(params=BROKEN)
def broken(module: Module, request: pytest.FixtureRequest) -> tuple[str, str]:
    """The name of a module that is broken, and what is said of it."""
    source, complaint = BROKEN[request.param]
    return module(f"broken_{request.param}", source), complaint


@pytest.fixture
def ring() -> tuple[click.Command, list[tuple[Settings, Mapping[str, str]]]]:
    """A command that works with plugins, and what it was given each time."""
    seen: list[tuple[Settings, Mapping[str, str]]] = []

    @click.command("ring", cls=PluginCommand, context_settings=CONTEXT)
    @plugin_options("rate", "sinks", "plugins", flags={"rate": "--pace"})
    @click.option("--json", "as_json", is_flag=True, help="Print JSON")
    def ring(settings: Settings, plugins: Plugins, as_json: bool) -> None:
        own = {name: plugins.environ.get(option.variable, "") for name, option in own_options(plugins).items()}
        seen.append((settings, {name: text for name, text in own.items() if text}))

    return ring, seen


def flat(text: str) -> str:
    return "".join(text.split())  # help breaks lines at hyphens, too


@pytest.mark.parametrize("command", COMMANDS)
def test_every_setting_of_the_built_in_offers_is_a_flag_of_the_commands_that_work_with_them(
    run: Run, command: str
) -> None:
    status, out, err = run(f"{command} --help")
    assert (status, err) == (0, "")
    plugins = Plugins()
    expected = own_options(plugins, COMMANDS[command])
    assert expected
    for name, option in own_options(plugins).items():
        default = f"; default {option.default}" if option.default else ""
        meaning = option.help[0].upper() + option.help[1:].replace("`", "")
        row = flat(f"{option.flag} {option.text.metavar} {meaning} [{option.variable}{default}]")
        assert (row in flat(out)) == (name in expected)


@pytest.mark.parametrize(
    ("words", "environ"),
    [
        ("--plugins bell_plugin", {}),
        ("--plugins=bell_plugin", {}),
        ("", {"CARPARK_PLUGINS": "bell_plugin"}),
        ("--plugins=bell_plugin", {"CARPARK_PLUGINS": "not_there"}),
        ("--plugins not_there --plugins bell_plugin", {}),
    ],
)
def test_a_module_that_is_named_adds_the_flags_of_its_offers(
    run: Run, bell: str, ring: Any, words: str, environ: dict[str, str]
) -> None:
    command, seen = ring
    given = "--sinks door-bell --door-bell-tone 440 --door-bell-made-of=tin"
    assert run(f"{given} {words}", command, **environ) == (0, "", "")
    assert run(f"{words} {given}", command, **environ) == (0, "", "")
    for settings, own in seen:
        assert (settings.sinks, settings.plugins) == (("door-bell",), ("bell_plugin",))
        assert own == {"door_bell_tone": "440", "door_bell_made_of": "tin"}
    assert len(seen) == 2
    _, out, _ = run(f"{words} --help", command, **environ)
    assert flat("--door-bell-tone TEXT How high [CARPARK_DOOR_BELL_TONE]") in flat(out)
    assert flat("--door-bell-made-of TEXT Its metal [CARPARK_DOOR_BELL_MADE_OF; default brass]") in flat(out)
    assert out.index("--plugins") < out.index("--json") < out.index("--door-bell-tone") < out.index("--help")


def test_without_the_module_its_flag_is_no_option(run: Run, bell: str, ring: Any) -> None:
    command, seen = ring
    status, _, err = run("--door-bell-tone 440", command)
    assert (status, seen) == (2, [])
    assert "No such option" in err
    assert "--door-bell-tone" in err


def test_a_flag_counts_more_than_a_variable_and_an_empty_variable_not_at_all(run: Run, bell: str, ring: Any) -> None:
    command, seen = ring
    environ = {"CARPARK_PLUGINS": bell, "CARPARK_SINKS": "door-bell", "CARPARK_RATE": ""}
    assert run("--door-bell-tone 2", command, **environ, CARPARK_DOOR_BELL_TONE="1") == (0, "", "")
    assert run("", command, **environ, CARPARK_DOOR_BELL_TONE="1", CARPARK_DOOR_BELL_MADE_OF="") == (0, "", "")
    assert [(settings.rate, own) for settings, own in seen] == [
        (5, {"door_bell_tone": "2"}),
        (5, {"door_bell_tone": "1"}),
    ]
    status, _, err = run("", command, **environ, CARPARK_DOOR_BELL_TONE="")
    assert (status, err) == (2, "carpark: CARPARK_DOOR_BELL_TONE='': wanted a value\n")


def test_all_that_is_wrong_is_a_line_each_named_as_it_was_given(run: Run, bell: str, ring: Any) -> None:
    command, seen = ring
    words = "--pace fast --sinks door-bell,webhook,kazoo --door-bell-tone high --webhook-url ftp://me:hunter2@h"
    environ = {"CARPARK_PLUGINS": f"{bell},gone", "CARPARK_CAPACITY": "-1", "CARPARK_WEBHOOK_SECRET": "hunter2 ä"}
    status, out, err = run(words, command, **environ)
    assert (status, out, seen) == (2, "", [])
    assert [line.partition(": wanted")[0].partition(";")[0] for line in err.splitlines()] == [
        "carpark: plugin 'gone': named in CARPARK_PLUGINS: there is no such module, neither installed nor in this "
        "folder nor on PYTHONPATH",
        "carpark: --pace (CARPARK_RATE)='fast'",
        "carpark: CARPARK_CAPACITY='-1'",
        "carpark: CARPARK_SINKS='kazoo': there is no such plugin",
        "carpark: --door-bell-tone (CARPARK_DOOR_BELL_TONE)='high'",
        "carpark: --webhook-url (CARPARK_WEBHOOK_URL)='ftp://me:***@h'",
        "carpark: CARPARK_WEBHOOK_SECRET='***'",
    ]
    assert "hunter2" not in err


@pytest.mark.parametrize("words", ["worker", "run --events 1", "verify", "plugins"])
def test_modules_in_quotes_are_one_line_and_no_traceback(run: Run, words: str) -> None:
    status, out, err = run(words, **AWAY, CARPARK_PLUGINS="'mine'")
    assert (status, out) == (2, "")
    assert err.startswith("""carpark: CARPARK_PLUGINS="'mine'": wanted it without the quotes around it""")
    assert err.count("\n") == 1


def test_an_empty_flag_is_a_value_which_may_be_wrong(run: Run, bell: str, ring: Any) -> None:
    command, seen = ring
    words = [*f"--plugins {bell} --sinks door-bell".split(), "--pace", "", "--door-bell-tone", ""]
    environ = {"CARPARK_RATE": "7", "CARPARK_DOOR_BELL_TONE": "1"}

    @click.command(context_settings={"ignore_unknown_options": True})
    def given() -> None:
        command.main(words, standalone_mode=False)

    status, _, err = run("", given, **environ)
    assert (status, seen) == (2, [])
    assert [line.partition(": wanted")[0] for line in err.splitlines()] == [
        "carpark: --pace (CARPARK_RATE)=''",
        "carpark: --door-bell-tone (CARPARK_DOOR_BELL_TONE)=''",
    ]


def test_offers_of_one_variable_have_one_flag(run: Run, bell: str, ring: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # click warns of a flag that is there twice
        for command in ("run", "worker"):
            status, out, _ = run(f"{command} --plugins {bell} --help")
            assert status == 0
            assert out.count("--door-bell-tone ") == 1
    command, seen = ring
    assert run(f"--plugins {bell} --sinks cow-bell,door-bell --door-bell-tone 9", command) == (0, "", "")
    assert seen[0][1] == {"door_bell_tone": "9"}
    status, _, err = run(f"--plugins {bell} --sinks cow-bell,door-bell --door-bell-tone high", command)
    assert (status, err.count("\n")) == (2, 1), "two are wrong for one reason"


@pytest.mark.parametrize("command", [*COMMANDS, "plugins"])
def test_a_broken_plugin_does_not_break_help(run: Run, broken: tuple[str, str], command: str) -> None:
    status, out, err = run(f"{command} --help", CARPARK_PLUGINS=broken[0])
    assert (status, err) == (0, "")
    assert "--plugins" in out
    assert "Examples:" in out


def test_a_broken_plugin_does_not_break_the_flags_of_others(run: Run, broken: tuple[str, str], bell: str) -> None:
    status, out, _ = run(f"worker --plugins {broken[0]},{bell} --help")
    assert status == 0
    assert "--door-bell-tone" in out
    assert "--sink-sqlite" in out


def test_doctor_names_a_broken_plugin_and_looks_at_all_the_rest(
    run: Run, broken: tuple[str, str], bell: str, module: Module
) -> None:
    name, complaint = broken
    environ = {**AWAY, "CARPARK_PLUGINS": f"{name},{bell}", "CARPARK_SINKS": "door-bell,webhook"}
    status, out, err = run("doctor --json --webhook-url nowhere", **environ)
    report = json.loads(out)
    assert (status, err, report["status"]) == (2, "", 2)
    found = {each["check"]: each for each in report["checks"]}
    assert found["plugins"]["level"] == "problem"
    assert f"{found['plugins']['found']}; {found['plugins']['advice']}".startswith(f"plugin '{name}': ")
    assert complaint in f"{found['plugins']['found']}; {found['plugins']['advice']}"
    assert [each["found"] for each in report["checks"] if each["check"] == "settings"] == [
        "CARPARK_DOOR_BELL_TONE=''",
        "--webhook-url (CARPARK_WEBHOOK_URL)='nowhere'",
    ]
    assert found["sinks"]["level"] == "ok"
    assert {"python", "rabbitmq", "redis", "plates"} <= set(found)


def test_plugins_lists_what_there_is_and_then_names_a_broken_one(run: Run, broken: tuple[str, str], bell: str) -> None:
    name, complaint = broken
    status, out, err = run("plugins --json", CARPARK_PLUGINS=f"{name},{bell}", CARPARK_PLATES="kazoo")
    assert status == 2
    listed = [row["name"] for row in json.loads(out)]
    assert {"door-bell", "http-csv", "uk"} <= set(listed)
    first, second = err.splitlines()
    assert first.startswith(f"carpark: plugin '{name}': ")
    assert complaint in first
    assert second.startswith("carpark: CARPARK_PLATES='kazoo': there is no such plugin")


@pytest.mark.parametrize("command", ["run --events 1", "worker", "generate entry --events 1", "verify"])
def test_a_broken_plugin_ends_a_command_that_works_with_plugins(
    run: Run, broken: tuple[str, str], command: str
) -> None:
    name, complaint = broken
    for words in (command, f"{command} --of-the-broken-one 5"):
        if words.startswith("worker --"):
            continue  # its further options are Dramatiq's
        status, out, err = run(words, **AWAY, CARPARK_PLUGINS=name)
        assert (status, out) == (2, "")
        assert err.startswith(f"carpark: plugin '{name}': ")
        assert complaint in err
        assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["queues --once", "writer", "dlq list", "metrics", "dashboard"])
def test_a_command_that_works_with_no_plugin_does_not_care_about_a_broken_one(
    run: Run, broken: tuple[str, str], command: str
) -> None:
    """None gets further than its own mistake: a port or a server that is not there."""
    environ = {**AWAY, **({} if command == "metrics" else {"CARPARK_BIND": "192.0.2.1"})}
    without = run(command, **environ)
    assert run(command, **environ, CARPARK_PLUGINS=broken[0], CARPARK_SINKS="kazoo") == without
    assert "plugin" not in without[1] + without[2]


def test_a_variable_with_the_prefix_of_an_installed_plugins_name_is_no_slip(
    run: Run, monkeypatch: pytest.MonkeyPatch, module: Module
) -> None:
    module("ports_plugin", "from carpark import hookimpl\n@hookimpl\ndef carpark_register_sinks(): return []\n")
    environ = {**AWAY, "CARPARK_WRITER_PORTS": "1", "CARPARK_DASHBOARD_PORTS": "2"}

    def warned() -> list[str]:
        checks = json.loads(run("doctor --json", **environ)[1])["checks"]
        return [each["found"] for each in checks if each["level"] == "warning" and each["check"] == "settings"]

    slips = ["CARPARK_DASHBOARD_PORTS is not a setting", "CARPARK_WRITER_PORTS is not a setting"]
    assert warned() == slips
    entry_points = [metadata.EntryPoint("writer", "ports_plugin", "carpark")]
    monkeypatch.setattr(metadata, "entry_points", lambda group: entry_points if group == "carpark" else [])
    assert warned() == slips[:1]
    entry_points[:] = [metadata.EntryPoint("dash-board", "ports_plugin", "carpark")]
    assert warned() == slips
    environ["CARPARK_DASH_BOARD_PORT"] = environ.pop("CARPARK_DASHBOARD_PORTS")
    assert warned() == slips[1:]
    entry_points[:] = [metadata.EntryPoint("dash-board", "not_there_at_all", "carpark")]
    assert warned() == slips[1:], "also where it cannot be loaded"
    entry_points.clear()
    assert warned() == ["CARPARK_DASH_BOARD_PORT is not a setting", *slips[1:]]


SAYS_SLIPS = (
    *("run --rate x", "worker --rate x --sinks kazoo", "verify --journal missing", "generate entry --rate x"),
    *("generate exit --rate x", "forget ''", "queues --interval x", "dlq purge", "metrics", "plugins"),
    *("dashboard --bind 0.0.0.0", "writer --bind 0.0.0.0"),
)


@pytest.mark.parametrize("words", SAYS_SLIPS)
def test_a_variable_that_is_no_setting_is_said_in_a_line_at_the_start(run: Run, bell: str, words: str) -> None:
    right = {"CARPARK_PLUGINS": bell, "CARPARK_DOOR_BELL_TONE": "1", "CARPARK_WEBHOOK_URL": "http://h"}
    wrong = {"CARPARK_RAET": "5", "CARPARK_DOOR_BELL_TOME": "1", "CARPARK_FOO": "1"}
    said = run(words, **AWAY, **right, **wrong)[2].splitlines()
    assert said[:3] == [
        "carpark: warning: CARPARK_DOOR_BELL_TOME is not a setting; did you mean CARPARK_DOOR_BELL_TONE?",
        "carpark: warning: CARPARK_FOO is not a setting; `carpark doctor --help` lists all settings",
        "carpark: warning: CARPARK_RAET is not a setting; did you mean CARPARK_RATE?",
    ]
    assert not any("warning" in line for line in said[3:])
    assert "warning" not in run(words, **AWAY, **right)[2]


def _commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for each in command.list_commands(context):
            found = command.get_command(context, each)
            assert found is not None
            yield from _commands(found, f"{name} {each}")
    else:
        yield name, command


def test_the_flag_of_a_setting_is_its_variable_in_every_command() -> None:
    settings = {option.argument: option.flag for option in options_of(Settings).values()}
    seen = [
        (name, parameter.opts, settings[str(parameter.name)])
        for name, command in _commands(carpark, "carpark")
        for parameter in command.params
        if parameter.name in settings and parameter.param_type_name == "option"
    ]
    assert {name for name, _, _ in seen} >= {"carpark verify", "carpark dlq purge", "carpark generate entry"}
    assert [each for each in seen if each[1] not in ([each[2]], ["--port"])] == []


def test_every_command_is_among_those_that_say_it_or_is_the_doctor() -> None:
    assert {words.split()[0] for words in SAYS_SLIPS} | {"doctor"} == set(carpark.list_commands(click.Context(carpark)))


def test_a_variable_of_a_plugin_that_a_flag_names_is_none(run: Run, bell: str) -> None:
    said = run(f"worker --plugins {bell} --sinks kazoo", **AWAY, CARPARK_DOOR_BELL_TONE="1", CARPARK_DOOR_BELL="1")[2]
    assert [line.partition(";")[0] for line in said.splitlines() if "warning" in line] == [
        "carpark: warning: CARPARK_DOOR_BELL is not a setting"
    ]


KUBERNETES = {
    "CARPARK_WRITER_SERVICE_HOST": "10.96.0.7",
    "CARPARK_WRITER_SERVICE_PORT": "40000",
    "CARPARK_WRITER_SERVICE_PORT_HTTP": "40000",
    "CARPARK_WRITER_PORT": "tcp://10.96.0.7:40000",
    "CARPARK_WRITER_PORT_40000_TCP": "tcp://10.96.0.7:40000",
    "CARPARK_WRITER_PORT_40000_TCP_PROTO": "tcp",
    "CARPARK_WRITER_PORT_40000_TCP_PORT": "40000",
    "CARPARK_WRITER_PORT_40000_TCP_ADDR": "10.96.0.7",
    "CARPARK_SERVICE_HOST": "10.96.0.8",
    "CARPARK_PORT": "udp://10.96.0.8:53",
    "CARPARK_PORT_53_UDP": "udp://10.96.0.8:53",
    "CARPARK_RABBIT_MQ_SERVICE_PORT_AMQP": "5672",
}


def test_what_kubernetes_sets_is_no_slip_and_no_port_of_ours(run: Run) -> None:
    assert run("metrics", **AWAY | KUBERNETES)[2] == ""
    assert load_settings(KUBERNETES) == load_settings({})
    alone = {name: KUBERNETES[name] for name in ("CARPARK_WRITER_PORT", "CARPARK_WRITER_SERVICE_HOST")}
    with pytest.raises(InvalidSetting, match=r"^CARPARK_WRITER_PORT='tcp://10.96.0.7:40000': wanted a port"):
        load_settings(alone)  # nothing repeats it, so somebody meant it
    named = {"CARPARK_WRITER_PORT": "8080"}
    assert load_settings(KUBERNETES | named).writer_port == 8080


def test_a_variable_that_is_nearly_one_of_an_offers_is_a_slip(run: Run, bell: str) -> None:
    environ = {**AWAY, "CARPARK_PLUGINS": bell, "CARPARK_DOOR_BELL_TOME": "1", "CARPARK_WEBHOOK_ULR": "http://h"}
    checks = json.loads(run("doctor --json", **environ)[1])["checks"]
    said = [f"{each['found']}; {each['advice']}" for each in checks if each["check"] == "settings"]
    assert said == [
        "CARPARK_DOOR_BELL_TOME is not a setting; did you mean CARPARK_DOOR_BELL_TONE?",
        "CARPARK_WEBHOOK_ULR is not a setting; did you mean CARPARK_WEBHOOK_URL?",
    ]


def test_a_worker_is_handed_the_flags_as_variables(run: Run, module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    source = BELL.replace('"door-bell", print', '"door-bell", lambda context: Quiet()') + textwrap.dedent(
        """
        class Quiet(Sink):
            def deliver(self, summaries):
                pass
        """
    )
    handed: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr("os.execve", lambda program, command, environ: handed.append((command, environ)))
    name = module("bell_plugin", source)
    words = f"worker --plugins {name} --sinks door-bell --door-bell-tone 3 --sink-retries 4 --processes 1"
    assert run(words, **AWAY, CARPARK_DOOR_BELL_TONE="1") == (0, "", "")
    [(command, environ)] = handed
    assert command[1:] == ["-m", "dramatiq", "carpark.actors", "--processes", "1"]
    assert (environ["CARPARK_PLUGINS"], environ["CARPARK_SINKS"]) == (name, "door-bell")
    assert (environ["CARPARK_DOOR_BELL_TONE"], environ["CARPARK_SINK_RETRIES"]) == ("3", "4")
    assert environ["CARPARK_BROKER_URL"] == AWAY["CARPARK_BROKER_URL"]
