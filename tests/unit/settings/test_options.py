"""Flags from the fields of settings, errors as lines, exit statuses."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from carpark.errors import BrokerUnavailable, CarparkError, InvalidSetting, PortTaken
from carpark.settings import Settings
from carpark.settings.fields import options_of
from carpark.settings.options import (
    CONTEXT,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    examples,
    fail,
    run_command,
    settings_options,
)
from tests.support.processes import Processes

OPTIONS = options_of(Settings)
NAMES = list(OPTIONS)
Command = Callable[[], object]


def make_command(*names: str, flags: dict[str, str] | None = None) -> tuple[click.Command, list[Settings]]:
    seen: list[Settings] = []

    @click.command("show", context_settings=CONTEXT, epilog=examples("carpark show --rate 3", "carpark show"))
    @click.option("--once", is_flag=True)
    @settings_options(*names, flags=flags)
    def show(settings: Settings, once: bool) -> None:
        seen.append(settings)

    return show, seen


def status_of(command: click.Command, *arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        run_command(command, arguments, "carpark")
    assert isinstance(caught.value.code, int)
    return caught.value.code


def command_that(act: Command) -> click.Command:
    return click.Command("act", callback=act)


def raising(error: BaseException) -> Command:
    def act() -> None:
        raise error

    return act


def test_a_flag_counts_more_than_a_variable_and_a_variable_more_than_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command, seen = make_command("rate", "capacity", "sink_timeout")
    monkeypatch.setenv("CARPARK_RATE", "7")
    monkeypatch.setenv("CARPARK_CAPACITY", "8")
    monkeypatch.setenv("CARPARK_MATCH_RATIO", "0.5")  # no flag of this command, a setting all the same
    assert status_of(command, "--rate", "9", "--once") == EXIT_OK
    assert (seen[0].rate, seen[0].capacity, seen[0].sink_timeout, seen[0].match_ratio) == (9, 8, 5, 0.5)


def test_an_empty_variable_counts_as_not_set_and_an_empty_flag_as_a_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command, seen = make_command("rate", "writer_token")
    monkeypatch.setenv("CARPARK_RATE", "")
    monkeypatch.setenv("CARPARK_WRITER_TOKEN", "token")
    assert status_of(command, "--writer-token", "") == EXIT_OK
    assert (seen[0].rate, seen[0].writer_token) == (5, "")
    assert status_of(command, "--rate", "") == EXIT_USAGE
    assert capsys.readouterr().err == "carpark: --rate (CARPARK_RATE)='': wanted a number from 0.000001 to 100000\n"


def test_help_shows_each_flag_with_what_it_means_its_variable_and_its_default() -> None:
    command, _ = make_command(*NAMES, flags={"writer_port": "--port"})
    result = CliRunner().invoke(command, ["--help"])
    text = "".join(result.output.split())  # lines are broken at hyphens too
    assert result.exit_code == 0
    for option in OPTIONS.values():
        flag = "--port" if option.name == "writer_port" else option.flag
        default = f"; default {option.text.shown(option.default)}" if option.default else ""
        meaning = option.help[0].upper() + option.help[1:].replace("`", "")
        row = f"{flag} {option.text.metavar} {meaning} [{option.variable}{default}]"
        assert "".join(row.split()) in text
    assert "--writer-port" not in text
    assert "guest:guest" not in text
    assert result.output.endswith("  Examples:\n    carpark show --rate 3\n    carpark show\n")
    assert max(len(line) for line in result.output.splitlines()) <= 100


def test_help_lists_flags_in_the_order_in_which_they_were_named() -> None:
    command, _ = make_command("retention", "rate", "bind")
    output = CliRunner().invoke(command, ["-h"]).output
    assert output.index("--retention") < output.index("--rate") < output.index("--bind")


def test_every_setting_can_be_given_as_a_flag() -> None:
    command, seen = make_command(*NAMES)
    arguments = [f"{option.flag}={option.default}" for option in OPTIONS.values() if option.default]
    assert status_of(command, *arguments) == EXIT_OK
    assert seen == [Settings()]


def test_a_wrong_flag_is_named_as_it_was_typed_and_beside_its_variable(capsys: pytest.CaptureFixture[str]) -> None:
    command, _ = make_command("writer_port", flags={"writer_port": "--port"})
    assert status_of(command, "--port", "70000") == EXIT_USAGE
    line = "carpark: --port (CARPARK_WRITER_PORT)='70000': wanted a port from 0 to 65535 (0 for a free one)\n"
    assert capsys.readouterr().err == line


def test_a_wrong_variable_is_named_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command, _ = make_command("rate")
    monkeypatch.setenv("CARPARK_BROKER_URL", "amqp://guest:hunter2@")
    assert status_of(command, "--rate", "5") == EXIT_USAGE
    output = capsys.readouterr()
    assert output.err.startswith("carpark: CARPARK_BROKER_URL='amqp://guest:***@': wanted amqp://")
    assert output.err.count("\n") == 1
    assert output.out == ""


def test_all_that_is_wrong_is_said_at_once_a_line_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command, seen = make_command("redis_url", "sink_retry_min", "dashboard_port", flags={"dashboard_port": "--port"})
    monkeypatch.setenv("CARPARK_BROKER_URL", "amqp://guest:hunter2@")
    monkeypatch.setenv("CARPARK_REDIS_URL", "wrong, but there is a flag")
    monkeypatch.setenv("CARPARK_WRITER_TOKEN", "hunter2 hunter2")
    monkeypatch.setenv("CARPARK_CAPACITY", "1_000")
    arguments = ["--redis-url", "http://:hunter2@h", "--port", "٣", "--sink-retry-min", "301"]
    assert status_of(command, *arguments) == EXIT_USAGE
    output = capsys.readouterr()
    lines = [
        "CARPARK_BROKER_URL='amqp://guest:***@': wanted amqp://user:password@host:port/vhost (several separated by ;), "
        "or stub://",
        "--redis-url (CARPARK_REDIS_URL)='http://:***@h': wanted redis://host:port/0, "
        "redis+sentinel://host:port,host:port/name/0, or memory://",
        "CARPARK_WRITER_TOKEN='***': wanted printable ASCII characters without spaces",
        "CARPARK_SINK_RETRY_MAX='300': wanted at least CARPARK_SINK_RETRY_MIN, which is 301",
        "CARPARK_CAPACITY='1_000': wanted a whole number from 0 to 1000000000 (0 for none)",
        "--port (CARPARK_DASHBOARD_PORT)='٣': wanted a port from 0 to 65535 (0 for a free one)",
    ]
    assert output.err.splitlines() == [f"carpark: {line}" for line in lines]
    assert (output.out, seen) == ("", [])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--nonsense"], "carpark: No such option '--nonsense'"),
        (["--rate"], "carpark: Option '--rate' requires an argument"),
        (["surplus"], "carpark: Got unexpected extra argument (surplus)"),
        (["--a\n\x1b[31mb"], "carpark: No such option"),
        (["--" + "x" * 5000], "carpark: No such option"),
    ],
)
def test_wrong_usage_is_one_line_that_points_at_the_help_and_status_2(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command, seen = make_command("rate")
    assert status_of(command, *arguments) == EXIT_USAGE
    error = capsys.readouterr().err
    assert error.startswith(line)
    assert error.removesuffix("\n").isprintable()
    assert len(error) < 1200
    assert "--help" in error or len(error) > 1000
    assert not seen


def test_a_group_without_a_command_shows_its_help_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    group = click.Group("carpark", commands={"one": click.Command("one", help="The only one.")})
    assert status_of(group) == EXIT_USAGE
    assert "The only one." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (InvalidSetting("CARPARK_RATE", "x", "a number"), EXIT_USAGE, "carpark: CARPARK_RATE='x': wanted a number\n"),
        (
            PortTaken("CARPARK_WRITER_PORT", "::1:1"),
            EXIT_USAGE,
            "carpark: CARPARK_WRITER_PORT: ::1:1 is already in use",
        ),
        (BrokerUnavailable("RabbitMQ\nis not there"), EXIT_FAILED, "carpark: RabbitMQ is not there\n"),
        (BrokerUnavailable("RabbitMQ refuses", refuses=True), EXIT_USAGE, "carpark: RabbitMQ refuses\n"),
        (CarparkError("no"), EXIT_FAILED, "carpark: no\n"),
        (click.BadParameter("wanted\n\nmore"), EXIT_USAGE, "carpark"),
        (KeyboardInterrupt(), EXIT_INTERRUPTED, ""),
        (click.Abort(), EXIT_INTERRUPTED, ""),
    ],
)
def test_an_expected_error_is_one_line_and_a_status(
    error: BaseException, status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(command_that(raising(error))) == status
    shown = capsys.readouterr().err.removeprefix("\n")  # of the terminal's ^C
    assert shown.startswith(line)
    assert shown.count("\n") == (1 if line else 0)


@pytest.mark.parametrize(
    ("returned", "status"), [(None, EXIT_OK), (0, EXIT_OK), (1, EXIT_FAILED), (2, EXIT_USAGE), ("1", EXIT_OK)]
)
def test_the_number_that_a_command_returns_is_the_status(returned: object, status: int) -> None:
    assert status_of(command_that(lambda: returned)) == status


def test_an_error_that_nobody_expected_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(command_that(raising(ZeroDivisionError())), [])


def test_fail_ends_the_process_with_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="1"):
        fail(EXIT_FAILED, "first\nsecond \x1b[31m", "third")
    assert capsys.readouterr().err == "first second \\x1b[31m\nthird\n"


PROGRAM = """
import signal, sys, time, click
from carpark.settings.options import run_command

# Tests that a shell runs in the background have this signal ignored, and so have their children.
signal.signal(signal.SIGINT, signal.default_int_handler)

@click.command()
def talk():
    if sys.argv[1] == "echo":
        while True:
            click.echo("x" * 1000)
    elif sys.argv[1] == "print":
        sys.stdout.write("x" * 100)
    else:
        click.echo("ready")
        time.sleep(60)

run_command(talk, [])
"""


@pytest.mark.parametrize("way", ["echo", "print"])
def test_a_reader_that_has_seen_enough_is_no_reason_for_a_traceback(way: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    process = subprocess.Popen(
        [sys.executable, str(program), way], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr:
        errors = process.stderr.read()
    assert process.wait(30) == EXIT_FAILED
    assert errors == ""


def test_ctrl_c_ends_a_command_without_a_traceback(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    with subprocess.Popen(
        [sys.executable, str(program), "sleep"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(2)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == EXIT_INTERRUPTED
    assert errors.strip() == ""


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("utf-8", "✓ ✗ … · é 京 😀"), ("iso-8859-1", r"ok x ... · é \u4eac \ud83d\ude00")],
)
def test_what_a_stream_lacks_is_spelled_and_half_a_character_of_a_files_name_too(encoding: str, shown: str) -> None:
    script = (
        "import click; from carpark.settings.options import run_command\n"
        "run_command(click.Command('c', callback=lambda: [click.echo('✓ ✗ … · é 京 😀 \\udcff', err=err) "
        "for err in (False, True)]))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, encoding=encoding, env={"PYTHONIOENCODING": encoding}
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, *[shown + " \\udcff\n"] * 2)


@pytest.mark.parametrize("name", ["PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"])
@pytest.mark.parametrize("program", ["carpark writer", "python -m writer", "carpark queues", "carpark generate entry"])
@pytest.mark.slow
def test_the_folder_of_another_programs_numbers_is_left_alone(
    processes: Processes, tmp_path: Path, program: str, name: str
) -> None:
    environ = {"CARPARK_CSV": str(tmp_path / "stays.csv"), "CARPARK_WRITER_PORT": "0", "CARPARK_METRICS_PORT": "0"}
    away = {"CARPARK_BROKER_URL": "amqp://127.0.0.1:1", "CARPARK_REDIS_URL": "redis://127.0.0.1:1"}
    for folder in (tmp_path / "missing", tmp_path):
        service = processes.start(program.split(), env={**environ, **away, name: str(folder)})
        service.wait_for_line(r"^writer: http|metrics at http")
        service.kill()
    assert list(tmp_path.glob("*.db")) == []
