"""The doctor without servers: settings, files, plugins, ports, and how checks are run and shown."""

import contextlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner
from prometheus_client import CollectorRegistry

from carpark.errors import CarparkError, InvalidSetting, UnknownPlugin
from carpark.ops.doctor import command, doctor
from carpark.ops.doctor.findings import (
    Check,
    Finding,
    Level,
    ok,
    problem,
    run_checks,
    split_error,
    status_of,
    warning,
    wrong,
)
from carpark.ops.doctor.given import Given, read_given
from carpark.ops.doctor.local import check_files, check_offer, check_plugins, check_ports
from carpark.plugins import Plugins, Sink, SinkType
from carpark.rabbitmq.metrics import QueueMetrics
from carpark.services import SERVICES
from carpark.settings import Settings, load_settings
from carpark.settings.fields import options_of
from carpark.telemetry.page import MetricsPage


def by_check(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


def read_all(environ: dict[str, str], flags: dict[str, str] | None = None) -> Given:
    return read_given(environ, flags or {}, Plugins())


# Settings.


def test_all_wrong_settings_are_named_at_once_each_as_it_was_given() -> None:
    given = read_all({"CARPARK_RATE": "fast", "CARPARK_SINK_RETRIES": "-1"}, {"redis_url": "ftp://me:hidden@host"})
    assert given.unusable == {"rate", "sink_retries", "redis_url"}
    found = " ".join(finding.found for finding in given.findings)
    for text in ("CARPARK_RATE='fast'", "CARPARK_SINK_RETRIES='-1'", "CARPARK_REDIS_URL='ftp://me:***@host'"):
        assert text in found
    assert all(finding.setting and finding.advice.startswith("wanted ") for finding in given.findings)
    assert "hidden" not in found
    assert given.settings == load_settings({})


def test_a_flag_counts_more_than_a_variable() -> None:
    given = read_all({"CARPARK_RATE": "fast"}, {"rate": "7"})
    assert given.settings.rate == 7
    assert given.unusable == set()


def test_right_settings_are_one_line_that_shows_what_was_given_without_secrets() -> None:
    environ = {"CARPARK_WRITER_TOKEN": "hidden", "CARPARK_BROKER_URL": "amqp://me:hidden@host", "CARPARK_RATE": "2"}
    (finding,) = read_all(environ).findings
    assert finding.level is Level.OK
    assert f"{len(Settings.model_fields)} are right" in finding.found
    assert "CARPARK_RATE=2" in finding.found
    assert "hidden" not in finding.found


def test_so_are_those_of_the_offers_in_use() -> None:
    environ = {"CARPARK_SINKS": "webhook", "CARPARK_WEBHOOK_SECRET": "hidden", "CARPARK_SINK_CSV": "not-in-use.csv"}
    (finding,) = read_all(environ, {"webhook_url": "http://me:hidden@host"}).findings
    assert finding.level is Level.OK
    assert finding.found == (
        f"{len(Settings.model_fields) + 2} are right; given are CARPARK_SINKS=webhook, CARPARK_WEBHOOK_SECRET=***, "
        "CARPARK_WEBHOOK_URL=http://me:***@host"
    )


def test_two_settings_that_do_not_fit_are_named() -> None:
    given = read_all({"CARPARK_SINK_RETRY_MIN": "9", "CARPARK_SINK_RETRY_MAX": "3", "CARPARK_RATE": "2"})
    assert [finding.setting for finding in given.findings] == [True]
    assert "CARPARK_SINK_RETRY_MAX" in given.findings[0].found
    assert given.settings.rate == 2


def test_a_management_url_made_of_a_wrong_broker_url_is_not_usable_either() -> None:
    assert read_all({"CARPARK_BROKER_URL": "x"}).unusable == {"broker_url", "management_url"}
    both = {"CARPARK_BROKER_URL": "x", "CARPARK_MANAGEMENT_URL": "http://host:15672"}
    assert read_all(both, {}).unusable == {"broker_url"}


@pytest.mark.parametrize(
    ("name", "meant"), [("CARPARK_BROKER_ULR", "CARPARK_BROKER_URL"), ("carpark_redis_url", "CARPARK_REDIS_URL")]
)
def test_a_variable_that_is_nearly_a_setting_is_a_warning(name: str, meant: str) -> None:
    (finding,) = read_all({name: "x"}).findings
    assert (finding.level, finding.advice) == (Level.WARNING, f"did you mean {meant}?")


def test_so_is_one_with_our_prefix_that_is_like_none() -> None:
    (finding,) = read_all({"CARPARK_MY_PLUGIN_COLOUR": "x"}).findings
    assert (finding.level, finding.advice) == (Level.WARNING, "`carpark doctor --help` lists all settings")


@pytest.mark.parametrize("name", ["CARPARK_TEST_REDIS_URL", "CARPARK_REDIS_SERVICE_HOST", "HOME"])
def test_other_variables_are_nobodys_business(name: str) -> None:
    assert [finding.level for finding in read_all({name: "x"}).findings] == [Level.OK]


# Running checks.


@pytest.mark.slow
def test_a_check_that_hangs_or_fails_holds_up_no_other(make_settings: Callable[..., Settings]) -> None:
    never = threading.Event()

    def hang(settings: Settings) -> list[Finding]:
        never.wait()
        return []

    def fail(settings: Settings) -> list[Finding]:
        raise RuntimeError("at amqp://me:hidden@host")

    def leave(settings: Settings) -> list[Finding]:
        raise SystemExit(3)

    checks = [
        Check("hanging", (), hang, "wait no more"),
        Check("failing", (), fail, "mend it"),
        Check("leaving", (), leave, "stay"),
        Check("unread", ("rate",), fail, ""),
        Check("good", (), lambda settings: [ok("good", "well")], ""),
    ]
    try:
        findings = by_check(run_checks(checks, make_settings(), {"rate"}, 3.0))
    finally:
        never.set()
    assert list(findings) == ["hanging", "failing", "leaving", "unread", "good"]
    assert findings["hanging"] == problem("hanging", "no result within 3 s", "wait no more")
    assert findings["failing"].found == "the check failed: RuntimeError: at amqp://***@host"
    assert findings["leaving"].level is Level.PROBLEM
    assert findings["unread"] == warning("unread", "not checked", "correct CARPARK_RATE first")
    assert findings["good"] == ok("good", "well")


@pytest.mark.parametrize(
    ("findings", "status"),
    [
        ([ok("a", "x"), warning("b", "x", "y")], 0),
        ([problem("a", "x", "y"), warning("b", "x", "y")], 1),
        ([problem("a", "x", "y"), wrong("b", "x", "y")], 2),
    ],
)
def test_the_status_says_what_is_worst(findings: list[Finding], status: int) -> None:
    assert status_of(findings) == status


def test_an_error_is_split_into_what_was_found_and_what_to_do() -> None:
    error = UnknownPlugin("CARPARK_PLATES", "germny", ["germany", "uk"])
    found, advice = split_error(error)
    assert found == "CARPARK_PLATES='germny': there is no such plugin"
    assert advice.startswith("did you mean 'germany'?")
    assert split_error(ValueError("no advice")) == ("no advice", "")


def test_the_report_is_plain_lines_or_json_outside_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = [
        Check("python", (), lambda settings: [ok("python", "Python 3")], ""),
        Check("redis", (), lambda settings: [problem("redis", "gone [bold]", "start it")], ""),
    ]
    monkeypatch.setattr(command, "checks_of", lambda plugins, given: checks)
    result = CliRunner().invoke(doctor, ["--plates", "uk"], standalone_mode=False)
    assert result.return_value == 1
    lines = result.output.splitlines()
    assert lines[0] == "ok       python: Python 3"
    assert lines[1].startswith("ok       settings: ")
    assert lines[2:] == ["problem  redis: gone [bold]; start it", "doctor: 1 problem"]
    result = CliRunner().invoke(doctor, ["--json", "--rate", "x"], standalone_mode=False)
    report = json.loads(result.output)
    assert result.return_value == report["status"] == 2
    assert [(each["check"], each["level"]) for each in report["checks"]] == [
        ("python", "ok"),
        ("settings", "problem"),
        ("redis", "problem"),
    ]


def test_the_report_is_a_table_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    checks = [Check("redis", (), lambda _: [warning("redis", "[red]", "do it")], "")]
    monkeypatch.setattr(command, "checks_of", lambda plugins, given: checks)
    output = CliRunner().invoke(doctor, [], standalone_mode=False).output
    assert "what to do" in output
    assert "[red]" in output
    assert output.endswith("doctor: 1 warning\n")


def test_every_setting_has_a_flag() -> None:
    flags = {option for parameter in doctor.params for option in parameter.opts}
    assert {option.flag for option in options_of(Settings).values()} <= flags


# Files and plugins.


@pytest.mark.parametrize(
    ("name", "level", "words"),
    [
        ("new.csv", Level.OK, "GB free"),
        ("not/yet/there.csv", Level.OK, "GB free"),
        ("", Level.PROBLEM, "is not a file"),
        ("file.txt/below.csv", Level.PROBLEM, "is not a folder"),
        ("x" * 256, Level.PROBLEM, "file name too long"),
        ("x" * 240, Level.PROBLEM, "file name too long"),  # of what stands beside it
    ],
)
def test_the_csv_can_be_written_or_it_is_said_why_not(
    make_settings: Callable[..., Settings], tmp_path: Path, name: str, level: Level, words: str
) -> None:
    (tmp_path / "file.txt").touch()
    (finding,) = check_files(make_settings(csv=tmp_path / name))
    assert finding.level is level
    assert words in finding.found
    assert finding.setting is (level is Level.PROBLEM)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.txt"]


def test_files_that_this_user_may_not_write_are_wrong(
    make_settings: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kept.csv").touch()
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write everything
    for name in ("kept.csv", "new.csv"):
        (finding,) = check_files(make_settings(csv=tmp_path / name))
        assert finding.setting
        assert "by this user" in finding.found


def test_little_space_is_a_warning(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("carpark.plugins.findings.LITTLE_SPACE", 1 << 70)
    (finding,) = check_files(make_settings())
    assert finding.level is Level.WARNING
    assert "MB left" in finding.found


def checked(settings: Settings, *names: str) -> list[Finding]:
    """What the offers in use find, as the doctor has them look."""
    plugins = Plugins(settings.plugins)
    offers = [found.offer for found in plugins.in_use(settings) if found.offer.check]
    assert [offer.name for offer in offers] == list(names)
    return [finding for offer in offers for finding in check_offer(offer, settings, plugins)]


@pytest.mark.parametrize("name", ["csv", "jsonl", "sqlite"])
def test_the_files_of_sinks_in_use_are_looked_at_too(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    variable = f"CARPARK_SINK_{name.upper()}"
    settings = make_settings(sinks=f"stdout,{name}")
    monkeypatch.setenv(variable, str(tmp_path / "new"))
    assert [finding.level for finding in checked(settings, name)] == [Level.OK]
    monkeypatch.setenv(variable, str(tmp_path))
    (finding,) = checked(settings, name)
    assert (finding.level, finding.setting) == (Level.PROBLEM, True)
    assert variable in finding.found
    assert list(tmp_path.iterdir()) == []


def test_an_offer_whose_settings_are_wrong_is_not_asked_to_look(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARPARK_SINK_SQLITE", "~nobody-of-this-name/x")
    assert checked(make_settings(sinks="sqlite"), "sqlite") == []  # `read_given` has said it


@pytest.mark.parametrize(
    ("error", "level", "setting", "said"),
    [
        (
            *(InvalidSetting("CARPARK_MINE_COLOUR", "red", "green; paint it"), Level.PROBLEM, True),
            ("CARPARK_MINE_COLOUR='red'", "wanted green; paint it"),
        ),
        (CarparkError("the shed is locked; open it"), Level.PROBLEM, False, ("the shed is locked", "open it")),
    ],
)
def test_an_error_that_a_check_raises_is_a_finding(
    make_settings: Callable[..., Settings], error: CarparkError, level: Level, setting: bool, said: tuple[str, str]
) -> None:
    def check(context: object) -> list[Finding]:
        raise error

    look = partial(check_offer, SinkType("mine", raising, check=check), plugins=Plugins())
    (finding,) = run_checks([Check("mine", (), look, "")], make_settings(), set(), 30.0)
    assert (finding.check, finding.level, finding.setting) == ("mine", level, setting)
    assert (finding.found, finding.advice) == said


def raising(context: object) -> Sink:
    raise AssertionError("a check makes nothing")


def test_a_check_of_an_offer_with_the_name_of_a_servers_stands_beside_it(
    make_settings: Callable[..., Settings],
) -> None:
    checks = [
        Check("redis", (), lambda settings: [ok("redis", "the server")], ""),
        Check("redis", (), lambda settings: [ok("redis", "the sink")], ""),
    ]
    assert [each.found for each in run_checks(checks, make_settings(), set(), 3.0)] == ["the server", "the sink"]


@pytest.mark.parametrize(
    ("given", "check", "words"),
    [
        ({"sinks": "http-cvs"}, "sinks", "CARPARK_SINKS='http-cvs'"),
        ({"plates": "germny"}, "plates", "CARPARK_PLATES='germny'"),
        ({"plates": "file"}, "plates", "CARPARK_PLATES_FILE"),
        ({"plugins": "no_such_module"}, "plugins", "no_such_module"),
    ],
)
def test_plugins_that_cannot_be_used_are_named(
    make_settings: Callable[..., Settings], given: dict[str, str], check: str, words: str
) -> None:
    settings = make_settings(**given)
    finding = by_check(check_plugins(settings, Plugins(settings.plugins, lenient=True)))[check]
    assert finding.setting
    assert words in finding.found


@pytest.mark.parametrize(
    ("environ", "flags", "found", "advice"),
    [
        (
            {"CARPARK_SINKS": "webhook"}, {},
            "CARPARK_WEBHOOK_URL=''", "wanted http://host/path, because CARPARK_SINKS names webhook",
        ),
        (
            {"CARPARK_PLATES": "file"}, {},
            "CARPARK_PLATES_FILE=''", "wanted a file with a plate a line, because CARPARK_PLATES is file",
        ),
        (
            {}, {"sinks": "webhook", "webhook_url": "ftp://me:hidden@host"},
            "CARPARK_WEBHOOK_URL='ftp://me:***@host'", "wanted http://host/path, because CARPARK_SINKS names webhook",
        ),
        (
            {"CARPARK_SINKS": "csv"}, {"sink_csv": ""},
            "CARPARK_SINK_CSV=''", "wanted a file name",
        ),
    ],
)  # fmt: skip
def test_a_wrong_setting_of_an_offer_in_use_is_named_as_those_of_the_core_are(
    environ: dict[str, str], flags: dict[str, str], found: str, advice: str
) -> None:
    given = read_all(environ, flags)
    assert [(each.setting, each.found, each.advice) for each in given.findings] == [(True, found, advice)]
    assert given.unusable == set()


def test_a_wrong_setting_of_an_offer_that_is_not_in_use_is_nobodys_business() -> None:
    (finding,) = read_all({"CARPARK_WEBHOOK_URL": "nonsense", "CARPARK_PLATES_FILE": "~nobody-of-this-name"}).findings
    assert finding.level is Level.OK


def test_an_empty_flag_is_a_value_and_an_empty_variable_is_none() -> None:
    assert read_all({"CARPARK_RATE": ""}).unusable == set()
    assert read_all({}, {"rate": ""}).unusable == {"rate"}


def test_the_default_plugins_are_well(make_settings: Callable[..., Settings]) -> None:
    assert {finding.level for finding in check_plugins(make_settings(), Plugins())} == {Level.OK}


# Ports.


@contextlib.contextmanager
def foreign_server(handler: type[http.server.BaseHTTPRequestHandler] | None = None) -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler or _Silent) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


class _Silent(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


class _EmptyMetrics(_Silent):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", "0")
        self.end_headers()


def test_a_free_port_is_well_and_so_is_zero(make_settings: Callable[..., Settings], free_port: int) -> None:
    findings = check_ports(make_settings(writer_port=free_port))
    assert findings[0] == ok(f"port {free_port}", "free for the writer")
    assert [finding.found for finding in findings[1:]] == [
        "the dashboard takes a free one",
        "the page of metrics takes a free one",
    ]


def test_a_port_held_by_a_stranger_is_wrong(make_settings: Callable[..., Settings]) -> None:
    with foreign_server() as port:
        finding = check_ports(make_settings(writer_port=port))[0]
    assert finding.setting
    assert finding.found == "meant for the writer, held by another program"
    assert "CARPARK_WRITER_PORT" in finding.advice


def test_a_backend_that_has_counted_nothing_yet_is_not_a_stranger(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    with foreign_server(_EmptyMetrics) as port:
        monkeypatch.setattr("carpark.ops.doctor.local.ON_METRICS_PORT", [replace(SERVICES["backend"], port=port)])
        finding = check_ports(make_settings(metrics_port=""))[2]
    assert finding == ok(f"port {port}", "held by carpark, for the backend")


def test_a_port_held_by_the_service_it_is_meant_for_is_well(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = CollectorRegistry()
    QueueMetrics(registry, [])
    with MetricsPage(registry, "127.0.0.1", 0) as page:
        port = page.port
        monkeypatch.setattr("carpark.ops.doctor.local.ON_METRICS_PORT", [replace(SERVICES["queues"], port=port)])
        settings = make_settings(metrics_port="", writer_port=port)
        writer, _, queues = check_ports(settings)
    assert queues == ok(f"port {port}", "held by the queue configurator, which runs")
    assert writer.setting
    assert writer.found == "meant for the writer, held by carpark's queue configurator"


def test_a_metrics_port_of_ones_own_may_be_held_by_any_service(make_settings: Callable[..., Settings]) -> None:
    registry = CollectorRegistry()
    QueueMetrics(registry, [])
    with MetricsPage(registry, "127.0.0.1", 0) as page:
        finding = check_ports(make_settings(metrics_port=page.port))[2]
    assert finding.level is Level.OK


def test_an_address_that_is_not_this_machines_is_said_once(make_settings: Callable[..., Settings]) -> None:
    (finding,) = run_checks([Check("ports", (), check_ports, "")], make_settings(bind="9.9.9.9"), set(), 30.0)
    assert finding.setting
    assert "CARPARK_BIND='9.9.9.9'" in finding.found
