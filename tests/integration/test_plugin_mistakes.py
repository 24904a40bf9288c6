"""A mistake in a plugin, or in the name of one, is one line and status 2, whichever program meets it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from carpark.cli import carpark
from carpark.settings.options import run_command
from tests.support.processes import Process, Processes

COMMANDS = {
    "run": ["run", "--writer-port", "0", "--events", "1"],
    "worker": ["worker"],
    "generate entry": ["generate", "entry", "--events", "1"],
    "plugins": ["plugins"],
}

SINK = """
from carpark import SinkType, hookimpl

@hookimpl
def {hook}():
    return [SinkType("{sink}", lambda context: None)]
"""

MISTAKES = {
    "misspelt": "there is no hook carpark_register_sink; did you mean carpark_register_sinks?",
    "unimportable": "cannot be imported: ModuleNotFoundError: No module named 'not_installed_anywhere'; install what",
    "raising": "cannot be imported: RuntimeError: no licence for this machine; fix it, or take it out",
    "taken": "offers 'sqlite', as does the plugin 'carpark.plugins.sinks.sqlite', built in; rename one",
    "twice": "offers 'mine', as does the plugin 'first', CARPARK_PLUGINS",
    "nowhere": "there is no such module, neither installed nor in this folder nor on PYTHONPATH; install or rename it",
}
"""Module, prefixed to make its name this test's own, and what is said of it."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with plugins that have mistakes in them; it is on the path."""
    sources = {
        "misspelt": SINK.format(hook="carpark_register_sink", sink="mine"),
        "unimportable": "import not_installed_anywhere\n",
        "raising": "raise RuntimeError('no licence\\nfor this machine')\n",
        "taken": SINK.format(hook="carpark_register_sinks", sink="sqlite"),
        "first": SINK.format(hook="carpark_register_sinks", sink="mine"),
        "twice": SINK.format(hook="carpark_register_sinks", sink="mine"),
    }
    for name, source in sources.items():
        (tmp_path / f"mistake_{name}.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def _environ(mistake: str) -> dict[str, str]:
    modules = f"mistake_first,mistake_{mistake}" if mistake == "twice" else f"mistake_{mistake}"
    return {
        "CARPARK_BROKER_URL": "amqp://localhost:1",
        "CARPARK_REDIS_URL": "redis://localhost:1",
        "CARPARK_PLUGINS": modules,
    }


def _said(mistake: str) -> str:
    return MISTAKES[mistake].replace("plugin 'first'", "plugin 'mistake_first'")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_command_says_it_and_ends_with_status_2(
    mistake: str,
    command: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name, value in _environ(mistake).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        run_command(carpark, COMMANDS[command])
    printed = capfd.readouterr()
    assert ended.value.code == 2
    assert printed.err.startswith(f"carpark: plugin 'mistake_{mistake}': ")
    assert _said(mistake) in printed.err
    assert printed.err.count("\n") == 1
    if command == "plugins":  # lists the others first
        assert [line.split()[0] for line in printed.out.splitlines()][:3] == ["name", "http-csv", "webhook"]
    else:
        assert printed.out == ""


@pytest.mark.slow
def test_so_does_dramatiq(processes: Processes, folder: Path) -> None:
    """Its own lines, which it prints whatever happens, have a date."""

    def start(mistake: str) -> Process:
        path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
        return processes.start(
            ["dramatiq", "carpark.actors", "--processes", "1"], env={**_environ(mistake), "PYTHONPATH": path}
        )

    started = {mistake: start(mistake) for mistake in MISTAKES}
    for mistake, worker in started.items():
        assert worker.wait(60) == 2
        [line] = [line for line in worker.output.splitlines() if not re.match(r"\[\d{4}-\d\d-\d\d ", line)]
        assert line.startswith(f"carpark: plugin 'mistake_{mistake}': ")
        assert _said(mistake) in line


@pytest.mark.parametrize(
    ("command", "variable"),
    [
        ("run", "CARPARK_SINKS"),
        ("run", "CARPARK_PLATES"),
        ("worker", "CARPARK_SINKS"),
        ("generate entry", "CARPARK_PLATES"),
        ("plugins", "CARPARK_SINKS"),
        ("plugins", "CARPARK_PLATES"),
    ],
)
def test_a_name_that_no_plugin_offers_is_said_with_those_that_there_are(
    command: str, variable: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    name, meant = {"CARPARK_SINKS": ("sqllite", "sqlite"), "CARPARK_PLATES": ("germny", "germany")}[variable]
    monkeypatch.setenv(variable, name)
    monkeypatch.setenv("CARPARK_BROKER_URL", "amqp://localhost:1")
    monkeypatch.setenv("CARPARK_REDIS_URL", "redis://localhost:1")
    with pytest.raises(SystemExit) as ended:
        run_command(carpark, COMMANDS[command])
    error = capfd.readouterr().err
    assert ended.value.code == 2
    assert error.startswith(
        f"carpark: {variable}='{name}': there is no such plugin; did you mean '{meant}'? There are: "
    )
    assert error.count("\n") == 1
