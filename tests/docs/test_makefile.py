"""The front door: what `make help` says, and what each target takes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import ROOT, Processes

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = re.findall(r"^([a-z-]+):.* ## ", MAKEFILE, re.MULTILINE)
PHONY = set(re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[0].split())
SETTINGS = re.findall(r"^##: (\S+) ", MAKEFILE, re.MULTILINE)

FAKE_PROGRAM = """#!/bin/sh
printf '[%s]' "$@"
exit ${STATUS:-0}
"""


@pytest.fixture
def fake_venv(tmp_path: Path) -> Path:
    """A virtual environment that is ready, with programs that show their arguments."""
    folder = tmp_path / "venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("carpark", "ruff", "mypy", "pytest", "python"):
        (folder / name).write_text(FAKE_PROGRAM, encoding="utf-8")
        (folder / name).chmod(0o755)
    (tmp_path / "venv" / ".ready").touch()
    return tmp_path / "venv"


def make(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run make as a user does, whatever make runs these tests."""
    inherited = {name: text for name, text in os.environ.items() if "MAKE" not in name and name not in SETTINGS}
    given = {**inherited, "PYTHON": sys.executable, **environ}
    return subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True, env=given)


@pytest.mark.parametrize("arguments", [(), ("help",)])
def test_help_lists_every_target_with_a_line_of_its_own(arguments: tuple[str, ...]) -> None:
    said = make(*arguments)
    assert said.returncode == 0
    assert said.stderr == ""
    listed = re.findall(r"^  (\S+) +\S", said.stdout, re.MULTILINE)
    assert listed == [*TARGETS, *SETTINGS]


def test_every_target_has_a_line_in_help() -> None:
    assert set(TARGETS) == PHONY


def test_help_is_aligned_and_fits_a_terminal() -> None:
    rows = [line for line in make("help").stdout.splitlines() if line.startswith("  ")]
    assert {re.match(r"  \S+ +", row).end() for row in rows} == {14}  # type: ignore[union-attr]
    assert [row for row in rows if len(row) > 100] == []


def test_help_is_coloured_only_on_a_terminal(processes: Processes) -> None:
    assert "\033" not in make("help", TERM="xterm").stdout
    for environ, coloured in (({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)):
        script = "import pty, sys; sys.exit(pty.spawn(['make', 'help']))"
        given = {"TERM": "xterm", "NO_COLOR": "", "MAKEFLAGS": "", "MAKEOVERRIDES": "", **environ}
        shown = processes.start(["python", "-c", script], given)
        assert shown.wait() == 0
        assert "make run" in shown.output
        assert ("\033[36m" in shown.output) == coloured


def test_run_passes_only_the_settings_that_were_given(fake_venv: Path) -> None:
    venv = f"VENV={fake_venv}"
    assert make("run", venv).stdout == "[run]"
    given = make("run", venv, "RATE=0", "SEED=7", "CSV=it's a file.csv", "SINKS=http-csv,sqlite")
    assert given.stdout == "[run][--rate][0][--seed][7][--csv][it's a file.csv][--sinks][http-csv,sqlite]"
    rest = make("run", venv, "EVENTS=300", "DURATION=60", "PLATES=uk", "ARGS=--json")
    assert rest.stdout == "[run][--events][300][--duration][60][--plates][uk][--json]"
    assert rest.stderr == ""


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ("run RAET=5", "run does not take RAET (did you mean RATE?)"),
        ("run rate=5", "run does not take rate (did you mean RATE?)"),
        ("run CAPACITTY=5", "run does not take CAPACITTY (did you mean CARPARK_CAPACITY?)"),
        ("run CAPACITY=5", "run does not take CAPACITY (did you mean CARPARK_CAPACITY?)"),
        ("run CARPARK_RAET=5", "run does not take CARPARK_RAET (did you mean CARPARK_RATE?)"),
        ("run ROUNDS=5", "run does not take ROUNDS"),
        ("run RATE=5 SEEDS=x", "run does not take SEEDS (did you mean SEED?)"),
        ("test FOO=1", "test does not take FOO."),
        ("soak ROUND=1", "soak does not take ROUND (did you mean ROUNDS?)"),
        ("entry RATE=5", "entry does not take RATE (did you mean CARPARK_RATE?)"),
        ("lint ARGS=carpark", "lint does not take ARGS"),
        ("sbom FORMAT=x", "sbom does not take FORMAT."),
        ("clean ALL:=1", "clean does not take ALL"),
        ("help QUICK=1", "help does not take QUICK"),
        ("QUICK=1", "help does not take QUICK"),
        ("run RAET=5 PYTHON=no-such-python", "run does not take RAET"),
    ],
)
def test_a_variable_that_the_target_does_not_take_is_an_error_with_a_suggestion(
    fake_venv: Path, words: str, wrong: str
) -> None:
    ended = make(*words.split(), f"VENV={fake_venv}")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert len(ended.stderr.splitlines()) == 1
    assert f"make {wrong}" in ended.stderr


def test_what_another_program_takes_and_settings_of_ours_and_of_plugins_are_no_mistake(fake_venv: Path) -> None:
    ours = ("CARPARK_RATE=5", "CARPARK_BROKER_URL_FILE=x", "CARPARK_PLATES_FILE=x", "CARPARK_TEST_REDIS_URL=x")
    assert make("run", f"VENV={fake_venv}", *ours, "CARPARK_AIR_HORN_VOLUME=1", FOO="1", RATES="5").stdout == "[run]"
    assert make("check", "test", f"VENV={fake_venv}", "ARGS=-x").returncode == 0


def test_each_setting_that_help_shows_is_taken_and_no_other() -> None:
    groups = re.findall(r"^##@ Settings of (make .*)\n((?:##: .*\n)+)", MAKEFILE, re.MULTILINE)
    shown = {
        target: set(re.findall(r"^##: ([A-Z]+)|; ([A-Z]+) ", lines, re.MULTILINE))
        for heading, lines in groups
        for target in re.findall(r"make ([a-z-]+)", heading.partition(",")[0])
    }
    taken = {
        target: set(names.split()) for target, names in re.findall(r"^TAKES_(\w+) := (.*)$", MAKEFILE, re.MULTILINE)
    }
    taken["faults"] = taken["soak"]
    for target, names in shown.items():
        assert {name for pair in names for name in pair if name} == taken[target] - {"ARGS"}


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("queues", "[queues]"),
        ("entry", "[generate][entry]"),
        ("exit", "[generate][exit]"),
        ("worker", "[worker]"),
        ("writer", "[writer]"),
        ("dashboard", "[dashboard]"),
        ("metrics", "[metrics]"),
        ("doctor", "[doctor]"),
        ("plugins", "[plugins]"),
        ("verify", "[verify]"),
    ],
)
def test_a_service_takes_its_options_from_args(fake_venv: Path, target: str, command: str) -> None:
    ended = make(target, f"VENV={fake_venv}", "ARGS=--one 'two three'")
    assert ended.stdout == f"{command}[--one][two three]"
    assert ended.stderr == ""


def test_check_is_lint_types_and_the_tests_that_are_fast_and_need_no_server(fake_venv: Path) -> None:
    ended = make("check", f"VENV={fake_venv}", "ARGS=tests/unit -k canonical")
    lint = "[check][.][format][--check][.][]"  # the last is mypy, which has its arguments from pyproject.toml
    fast = "[--numprocesses][auto][-m][not servers and not slow and not soak]"
    assert ended.stdout == f"{lint}{fast}[tests/unit][-k][canonical]"
    assert ended.stderr == ""


def test_bytecode_is_kept_whatever_the_environment_says(fake_venv: Path) -> None:
    (fake_venv / "bin" / "carpark").write_text('#!/bin/sh\nprintf "[$PYTHONDONTWRITEBYTECODE]"\n', encoding="utf-8")
    assert make("run", f"VENV={fake_venv}", PYTHONDONTWRITEBYTECODE="1").stdout == "[]"


def test_soak_takes_the_settings_of_faults(fake_venv: Path) -> None:
    ended = make("soak", f"VENV={fake_venv}", "ROUNDS=2", "SEED=7", "ARGS=--only faults")
    servers = "[-m][tests.support.servers]"
    assert ended.stdout == f"{servers}[-m][tests.soak][--rounds][2][--seed][7][--only][faults]"
    assert ended.stderr == ""


def test_a_failed_command_fails_make(fake_venv: Path) -> None:
    assert make("run", f"VENV={fake_venv}", STATUS="1").returncode != 0


def test_setup_installs_by_hashes_and_then_ours_which_has_none(fake_venv: Path) -> None:
    os.utime(fake_venv / ".ready", (0, 0))
    said = make("setup", f"VENV={fake_venv}").stdout
    pip = "[-m][pip][install][--quiet][--disable-pip-version-check][--no-deps]"
    assert said.count("[pip]") == 2
    assert f"{pip}[--require-hashes][-r][requirements.lock]{pip}[--no-build-isolation][--editable][.]" in said


def test_sbom_is_made_of_the_locks_which_have_the_hashes(fake_venv: Path) -> None:
    (fake_venv / "sbom").mkdir()
    (fake_venv / "sbom" / ".ready").touch()
    said = make("sbom", f"VENV={fake_venv}").stdout
    made = re.findall(r"\[cyclonedx_py\]\[requirements\].*\[--output-file\]\[([^]]+)\]\[([^]]+)\]", said)
    assert made == [("sbom.json", "requirements.lock"), ("sbom-image.json", "deploy/image.lock")]


def test_setup_says_nothing_when_there_is_nothing_to_do(fake_venv: Path) -> None:
    ended = make("setup", f"VENV={fake_venv}")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("python", "wanted"),
    [
        ("#!/bin/sh\ncase $1 in -V) echo Python 3.9.2;; *) exit 1;; esac\n", "Python 3.11 or newer is needed"),
        ("#!/bin/sh\ncase $2 in *ensurepip*) exit 1;; esac\n", "apt-get install python3-venv"),
        (None, "install Python 3.11 or newer"),
    ],
)
def test_setup_says_in_one_line_what_is_missing(tmp_path: Path, python: str | None, wanted: str) -> None:
    program = tmp_path / "python"
    if python is not None:
        program.write_text(python, encoding="utf-8")
        program.chmod(0o755)
    ended = make("setup", f"VENV={tmp_path / 'venv'}", f"PYTHON={program}")
    assert ended.returncode == 2
    lines = [line for line in ended.stderr.splitlines() if not line.startswith("make: ***")]
    assert len(lines) == 1
    assert wanted in lines[0]
    assert ended.stdout == ""


def test_the_targets_that_a_machine_runs_are_there() -> None:
    assert re.findall(r"\bmake ([a-z-]+)", (ROOT / ".ci/run").read_text(encoding="utf-8")) == ["check", "test"]
