"""Every setting, what it takes, what it refuses, and what is said then."""

from __future__ import annotations

import math
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from carpark.errors import InvalidSetting
from carpark.settings import Settings, load_settings
from carpark.settings.fields import Option, options_of, shown
from carpark.settings.values import MASK, as_text
from tests.support.texts import ANY_TEXT, DAMAGES, FILES, NO_FILES, NO_HTTP, NO_URLS, SECRET, damaged, rows

OPTIONS = options_of(Settings)
EACH = pytest.mark.parametrize("option", OPTIONS.values(), ids=lambda option: option.name)
PORTS = [("0", 0), ("40000", 40000), (" 65535 ", 65535)]
NO_PORTS = [
    "",
    "-1",
    "65536",
    "x",
    "1.0",
    "1e3",
    "1_000",
    "٣",
    "\N{FULLWIDTH DIGIT ZERO}",
    "0x10",
    "nan",
    "1 2",
    "9" * 5000,
]
NO_NUMBERS = ["", " ", "x", "nan", "NaN", "inf", "-inf", "infinity", "1_0", "٣", "\N{FULLWIDTH DIGIT ONE}", "0x1p3",
              "1,5", "1 2", "1e", "e3", "--1", "½", "²", "1e9999", "9" * 5000, "\x001"]  # fmt: skip
NO_INTEGERS = [*NO_NUMBERS, "1.0", "1e3", "0.5"]
NAMES = [("http-csv", ("http-csv",)), (" a, b ,a,,", ("a", "b"))]
SECONDS = [("0.001", 0.001), ("5", 5.0), ("2.5", 2.5), (" 1e2 ", 100.0), ("+7", 7.0), (".5", 0.5), ("5.", 5.0)]

GOOD: dict[str, list[tuple[str, Any]]] = {
    "broker_url": [
        ("amqp://h", "amqp://h"),
        (" amqps://u:p%40ss@h:5671/v%2Fhost?heartbeat=5 ", "amqps://u:p%40ss@h:5671/v%2Fhost?heartbeat=5"),
        ("amqp://a ; amqp://[::1]:5672", "amqp://a;amqp://[::1]:5672"),
        ("stub://", "stub://"),
    ],
    "queue_type": [("classic", "classic"), (" Quorum ", "quorum")],
    "partitions": [("1", 1), ("64", 64)],
    "management_url": [("http://u:p@h:15672", "http://u:p@h:15672"), ("https://h/rabbit", "https://h/rabbit")],
    "redis_url": [
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("rediss://:secret@h", "rediss://:secret@h"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
        ("memory://", "memory://"),
        ("memory://one", "memory://one"),
        (" redis+sentinel://:p%40ss@a:1,[::1]:2,c/stays/0 ", "redis+sentinel://:p%40ss@a:1,[::1]:2,c/stays/0"),
        ("rediss+sentinel://h/stays?sentinel_password=x", "rediss+sentinel://h/stays?sentinel_password=x"),
    ],
    "writer_url": [("http://localhost:40000", "http://localhost:40000"), ("https://h/base/", "https://h/base/")],
    "writer_token": [("", ""), ("abc.~!", "abc.~!")],
    "csv": FILES,
    "sinks": NAMES,
    "sink_timeout": [*SECONDS, ("600", 600.0)],
    "sink_retries": [("0", 0), ("1000000", 1_000_000)],
    "sink_retry_min": SECONDS,
    "sink_retry_max": [("1", 1.0), ("1200", 1200.0)],
    "plates": [("uk", "uk"), (" singapore ", "singapore")],
    "plugins": [("", ()), ("a.b, c", ("a.b", "c"))],
    "match_ratio": [("0", 0.0), ("1", 1.0), ("0.8", 0.8), ("-0", 0.0)],
    "rate": [("0.000001", 1e-6), ("5", 5.0), ("1e5", 100_000.0)],
    "capacity": [("0", 0), ("+10", 10), ("1000000000", 10**9)],
    "retention": [("1", 1.0), ("172800", 172_800.0), ("1e9", 1e9)],
    "batch": [("1", 1), ("100", 100), ("1000", 1000)],
    "bind": [("0.0.0.0", "0.0.0.0"), ("::1", "::1"), ("localhost", "localhost")],
    "writer_port": PORTS,
    "dashboard_port": PORTS,
    "dashboard_login": [("", ""), ("me:two words:", "me:two words:")],
    "dashboard_links": [
        ("", ()),
        (
            " Our Grafana = http://h:3000/d?a=b , Writer=https://w",
            ("Our Grafana=http://h:3000/d?a=b", "Writer=https://w"),
        ),
    ],
    "metrics_port": [("", None), *PORTS],
}
BAD: dict[str, list[str]] = {
    "broker_url": [*NO_URLS, "http://h", "amqp://h;", ";", "amqp://h;stub://", "stub://;stub://", "amqp:///vhost",
                   "amqp://h,amqp://i", "memory://"],
    "queue_type": ["", "stream", "classic,quorum"],
    "partitions": ["0", "65", "-1", "1.5", "many"],
    "management_url": [url for url in NO_HTTP if url.strip()],
    "redis_url": [*NO_URLS, "http://h", "stub://", "redis:///0", "redis://h/zero", "redis://h/1/2", "redis://h/99999",
                  "unix://", "unix:///", "redis+sentinel://h", "redis+sentinel://h/", "redis+sentinel:///stays",
                  "redis+sentinel://h,/stays", "redis+sentinel://h:0/stays", "redis+sentinel://h/stays/zero",
                  "redis+sentinel://h/st ays", "redis+sentinel:h/stays", "redis://a:1,b:2/0",
                  "unix+sentinel://h/stays", "redis://a..b/0", f"redis://{'a' * 64}.example/0"],
    "writer_url": NO_HTTP,
    "writer_token": ["a b", "a\n", "ä", "\x7f", "\ud800"],
    "csv": NO_FILES,
    "sinks": ["", " ", ",", " , "],
    "sink_timeout": [*NO_NUMBERS, "0", "-1", "0.0009", "600.1", "1e-400"],
    "sink_retries": [*NO_INTEGERS, "-1", "1000001"],
    "sink_retry_min": [*NO_NUMBERS, "0", "-1", "1201"],
    "sink_retry_max": [*NO_NUMBERS, "0", "-1", "1201", "0.5"],
    "plates": ["", " ", "two words", "a\nb"],
    "plugins": [],
    "match_ratio": [*NO_NUMBERS, "-0.1", "1.0001", "80", "80%"],
    "rate": [*NO_NUMBERS, "0", "-5", "100001", "1e-7", "1e-320"],
    "capacity": [*NO_INTEGERS, "-1", "1000000001"],
    "retention": [*NO_NUMBERS, "0", "0.99", "-1", "1e10"],
    "batch": [*NO_INTEGERS, "0", "-1", "1001"],
    "bind": ["", " ", "a b", "::1\n::2"],
    "writer_port": NO_PORTS,
    "dashboard_port": NO_PORTS,
    "dashboard_login": ["me", "me:", ":secret", "me:ä", "me:a\nb"],
    "dashboard_links": ["Grafana", "=http://h", "Grafana=javascript:alert(1)", "Grafana=http://", "a\x07=http://h"],
    "metrics_port": [port for port in NO_PORTS if port],
}  # fmt: skip


def test_every_setting_is_tested() -> None:
    assert list(Settings.model_fields) == list(OPTIONS) == list(GOOD) == list(BAD)


@pytest.mark.parametrize(("name", "row"), rows(GOOD))
def test_a_right_value_is_taken_as_a_flag_and_as_a_variable(name: str, row: tuple[str, Any]) -> None:
    text, value = row
    room = {"CARPARK_SINK_RETRY_MAX": "1200"}  # which sink_retry_min has to fit under
    read = getattr(load_settings(room, {name: text}), name)
    assert (read, type(read)) == (value, type(value))
    if text:
        assert getattr(load_settings({**room, OPTIONS[name].variable: text}), name) == value


@pytest.mark.parametrize(("name", "text"), rows(BAD))
def test_a_wrong_value_is_refused_with_the_variable_the_value_and_what_was_wanted(name: str, text: str) -> None:
    option = OPTIONS[name]
    with pytest.raises(InvalidSetting) as caught:
        load_settings({}, {name: text})
    line = str(caught.value)
    assert line.startswith(f"{option.variable}=")
    assert ": wanted " in line
    assert line.isprintable()
    assert len(line) < 250
    assert caught.value.name == option.variable
    if text != "0.5":  # which is right for sink_retry_max, and less than sink_retry_min
        assert line.endswith(f": wanted {option.text.wanted}")
    if text:
        with pytest.raises(InvalidSetting):
            load_settings({option.variable: text})


@EACH
def test_a_default_is_right_by_its_own_rule_and_every_setting_is_explained(option: Option) -> None:
    assert load_settings({}, {option.name: option.default}) == load_settings({})
    assert option.variable == f"CARPARK_{option.name.upper()}"
    assert option.flag == "--" + option.name.replace("_", "-")
    assert option.help
    assert option.text.wanted
    assert option.text.metavar.isupper()


def test_the_contracts_defaults() -> None:
    assert shown(load_settings({})) == {
        "CARPARK_BROKER_URL": "amqp://guest:***@localhost:5672",
        "CARPARK_QUEUE_TYPE": "classic",
        "CARPARK_PARTITIONS": "1",
        "CARPARK_MANAGEMENT_URL": "http://guest:***@localhost:15672",
        "CARPARK_REDIS_URL": "redis://localhost:6379/0",
        "CARPARK_WRITER_URL": "http://localhost:40000",
        "CARPARK_WRITER_TOKEN": "",
        "CARPARK_CSV": "data/summaries.csv",
        "CARPARK_SINKS": "http-csv",
        "CARPARK_SINK_TIMEOUT": "5",
        "CARPARK_SINK_RETRIES": "20",
        "CARPARK_SINK_RETRY_MIN": "1",
        "CARPARK_SINK_RETRY_MAX": "300",
        "CARPARK_PLATES": "alphanumeric",
        "CARPARK_PLUGINS": "",
        "CARPARK_MATCH_RATIO": "0.8",
        "CARPARK_RATE": "5",
        "CARPARK_CAPACITY": "1000",
        "CARPARK_RETENTION": "172800",
        "CARPARK_BATCH": "100",
        "CARPARK_BIND": "127.0.0.1",
        "CARPARK_WRITER_PORT": "40000",
        "CARPARK_DASHBOARD_PORT": "40001",
        "CARPARK_DASHBOARD_LOGIN": "",
        "CARPARK_DASHBOARD_LINKS": "",
        "CARPARK_METRICS_PORT": "",
    }


def test_a_flag_counts_more_than_a_variable_and_a_variable_more_than_the_default() -> None:
    environ = {"CARPARK_RATE": "7", "CARPARK_CAPACITY": "8"}
    read = load_settings(environ, {"rate": "9", "capacity": None})
    assert (read.rate, read.capacity, read.retention) == (9, 8, 172_800)


def test_a_wrong_variable_under_a_right_flag_does_no_harm() -> None:
    assert load_settings({"CARPARK_RATE": "x"}, {"rate": "9"}).rate == 9


@EACH
def test_an_empty_variable_counts_as_not_set(option: Option) -> None:
    assert load_settings({option.variable: ""}) == load_settings({})


def test_variables_of_others_are_not_looked_at() -> None:
    others = {"RATE": "x", "carpark_rate": "x", "CARPARK_": "x", "CARPARK_UNKNOWN": "x"}
    assert load_settings(others) == load_settings({})


def test_the_processs_own_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARPARK_RATE", "11")
    assert load_settings().rate == 11


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_settings({}).rate = 1  # type: ignore[misc]


def test_the_longest_wait_between_retries_is_not_shorter_than_the_first() -> None:
    assert load_settings({"CARPARK_SINK_RETRY_MIN": "300"}).sink_retry_max == 300
    with pytest.raises(InvalidSetting) as caught:
        load_settings({"CARPARK_SINK_RETRY_MIN": "300.5"})
    line = "CARPARK_SINK_RETRY_MAX='300': wanted at least CARPARK_SINK_RETRY_MIN, which is 300.5"
    assert str(caught.value) == line


def test_a_wrong_first_wait_is_not_held_against_the_longest_too() -> None:
    with pytest.raises(InvalidSetting, match=r"^CARPARK_SINK_RETRY_MIN='many'"):
        load_settings({"CARPARK_SINK_RETRY_MIN": "many", "CARPARK_SINK_RETRY_MAX": "0.5"})


def test_settings_are_made_in_python_by_the_same_rules() -> None:
    assert Settings(rate=7, csv=Path("a.csv"), sinks=("csv",)) == load_settings(
        {"CARPARK_RATE": "7", "CARPARK_CSV": "a.csv", "CARPARK_SINKS": "csv"}
    )
    with pytest.raises(ValidationError) as caught:
        Settings(rate=-7, writer_token="hunter2 hunter2")
    assert "a number from 0.000001 to 100000" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_the_home_folder_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_settings({"CARPARK_CSV": "~/stays.csv"}).csv == tmp_path / "stays.csv"


def test_an_undecodable_variable_is_refused_in_printable_text() -> None:
    with pytest.raises(InvalidSetting) as caught:
        load_settings({"CARPARK_BIND": "host\udcff"})
    assert str(caught.value) == r"CARPARK_BIND='host\udcff': wanted an address of this machine"


HOLDERS = {
    "broker_url": "amqp://user:{}@h;amqp://user:{}@i:1",
    "management_url": "http://user:{}@h:15672",
    "redis_url": "redis://:{}@h",
    "writer_url": "http://user:{}@h",
    "writer_token": "{}",
    "dashboard_login": "me:{}",
}


@pytest.mark.parametrize("name", HOLDERS)
def test_a_secret_is_kept_but_never_shown(name: str) -> None:
    text = HOLDERS[name].replace("{}", SECRET)
    read = load_settings({}, {name: text})
    assert SECRET in getattr(read, name)
    assert all(SECRET not in value for value in shown(read).values())
    assert MASK in shown(read)[OPTIONS[name].variable]


@pytest.mark.parametrize("name", HOLDERS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_secret_is_not_shown_by_an_error_either(name: str, damage: str) -> None:
    for text in damaged(HOLDERS[name], damage):
        try:
            read = load_settings({}, {name: text})
        except InvalidSetting as error:
            assert SECRET not in str(error) + error.value + repr(error)  # noqa: PT017
        else:
            assert all(SECRET not in value for value in shown(read).values())


def test_every_setting_that_may_hold_a_secret_is_masked() -> None:
    for name, option in OPTIONS.items():
        held = any(word in name for word in ("url", "token", "secret", "login"))
        assert bool(option.text.mask) == held
        assert (name in HOLDERS) == held


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(list(OPTIONS)),
    ANY_TEXT,
)
def test_any_text_is_taken_or_refused_in_one_line(name: str, text: str) -> None:
    try:
        read = load_settings({}, {name: text})
    except InvalidSetting as error:
        assert str(error).isprintable()  # noqa: PT017
        return
    value = getattr(read, name)
    if isinstance(value, int | float):
        assert math.isfinite(value)
        assert load_settings({}, {name: as_text(value)}) == read


@pytest.mark.parametrize(
    ("where", "beginnings"),
    [
        ("carpark.embedded.command:run", ("sink", "plates", "plugins")),
        ("carpark.backend.worker:worker", ("sink", "plugins")),
        ("generators.cli:entry", ("plates", "plugins")),
        ("generators.cli:exit_", ("plates", "plugins")),
    ],
)
def test_what_plugins_are_told_is_a_flag_wherever_they_run(where: str, beginnings: tuple[str, ...]) -> None:
    module, _, name = where.partition(":")
    flags = {parameter.name for parameter in getattr(import_module(module), name).params}
    assert {name for name in OPTIONS if name.startswith(beginnings)} <= flags
