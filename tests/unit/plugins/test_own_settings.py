"""Every setting of the built-in offers, what it takes, what it refuses, and what is said then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from carpark.errors import ConfigurationError, InvalidSetting
from carpark.plugins import Plugins
from carpark.plugins.base import Offer
from carpark.plugins.loading import own_options
from carpark.plugins.manager import KINDS, own_settings
from carpark.settings import Settings
from carpark.settings.fields import OfFlag, Option, options_of, shown, with_flags
from carpark.settings.values import MASK, as_text
from tests.support.texts import ANY_TEXT, DAMAGES, FILES, NO_FILES, NO_HTTP, SECRET, damaged, rows

PLUGINS = Plugins(environ={})
OFFERS = [found.offer for kind in KINDS for found in getattr(PLUGINS, kind).values()]
OPTIONS = own_options(PLUGINS)
EACH = pytest.mark.parametrize("name", OPTIONS)

GOOD: dict[str, list[tuple[str, Any]]] = {
    "webhook_url": [("https://h/hook?a=b", "https://h/hook?a=b"), (" http://h ", "http://h")],
    "webhook_secret": [("", ""), ("two words", "two words")],
    "sink_csv": FILES,
    "sink_jsonl": FILES,
    "sink_sqlite": FILES,
    "plates_file": FILES,
}
BAD: dict[str, list[str]] = {
    "webhook_url": NO_HTTP,
    "webhook_secret": ["ä", "a\nb", "\0"],
    "sink_csv": NO_FILES,
    "sink_jsonl": NO_FILES,
    "sink_sqlite": NO_FILES,
    "plates_file": NO_FILES,
}
RIGHT = {"CARPARK_WEBHOOK_URL": "https://h/hook", "CARPARK_PLATES_FILE": "plates.txt"}
"""What has no default."""


def offer_of(name: str) -> Offer:
    """Find the offer that has a setting."""
    [offer] = [each for each in OFFERS if OPTIONS[name] in options_of(each.settings, each.variables).values()]
    return offer


def read_one(name: str, environ: dict[str, str], flags: dict[str, str] | None = None) -> Any:
    """Read the settings of the offer that has one of this name; what has no default is right if it is not given."""
    given = with_flags({**RIGHT, **environ}, flags or {}, OPTIONS.values())
    return getattr(own_settings(offer_of(name), given), OPTIONS[name].name)


def told(name: str, flags: dict[str, str]) -> dict[str, str]:
    offer = offer_of(name)
    return shown(own_settings(offer, with_flags(RIGHT, flags, OPTIONS.values())), offer.variables)


def test_every_setting_is_tested_and_none_is_also_the_cores() -> None:
    assert list(OPTIONS) == list(GOOD) == list(BAD)
    variables = [each.variable for offer in OFFERS for each in options_of(offer.settings, offer.variables).values()]
    assert sorted(variables) == sorted({option.variable for option in OPTIONS.values()})
    assert not set(OPTIONS) & set(Settings.model_fields)


@pytest.mark.parametrize(("name", "row"), rows(GOOD))
def test_a_right_value_is_taken_as_a_flag_and_as_a_variable(name: str, row: tuple[str, Any]) -> None:
    text, value = row
    read = read_one(name, {}, {name: text})
    assert (read, type(read)) == (value, type(value))
    if text:
        assert read_one(name, {OPTIONS[name].variable: text}) == value


@pytest.mark.parametrize(("name", "text"), rows(BAD))
def test_a_wrong_value_is_refused_with_the_variable_the_value_and_what_was_wanted(name: str, text: str) -> None:
    option = OPTIONS[name]
    with pytest.raises(InvalidSetting) as caught:
        read_one(name, {}, {name: text})
    line = str(caught.value)
    assert line.startswith(f"{option.variable}=")
    assert line.isprintable()
    assert len(line) < 250
    assert caught.value.name == option.variable
    assert line.endswith(f": wanted {option.text.wanted}")
    if text:
        with pytest.raises(InvalidSetting) as again:
            read_one(name, {option.variable: text})
        assert str(again.value) == line


@EACH
def test_a_setting_is_explained_and_its_default_is_right_by_its_own_rule(name: str) -> None:
    option = OPTIONS[name]
    if option.variable not in RIGHT:
        assert read_one(name, {}, {name: option.default}) == read_one(name, {})
    assert option.variable == f"CARPARK_{name.upper()}"
    assert option.flag == "--" + name.replace("_", "-")
    assert option.help
    assert option.text.wanted
    assert option.text.metavar.isupper()


def test_the_contracts_defaults() -> None:
    defaults: dict[str, str] = {}
    for offer in OFFERS:
        defaults |= shown(own_settings(offer, RIGHT), offer.variables)
    assert defaults == {
        "CARPARK_WEBHOOK_URL": "https://h/hook",
        "CARPARK_WEBHOOK_SECRET": "",
        "CARPARK_SINK_CSV": "data/stays.csv",
        "CARPARK_SINK_JSONL": "data/stays.jsonl",
        "CARPARK_SINK_SQLITE": "data/stays.sqlite",
        "CARPARK_PLATES_FILE": "plates.txt",
    }


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("webhook_url", "CARPARK_WEBHOOK_URL='': wanted http://host/path, because CARPARK_SINKS names webhook"),
        ("plates_file", "CARPARK_PLATES_FILE='': wanted a file with a plate a line, because CARPARK_PLATES is file"),
    ],
)
def test_what_has_no_default_is_wanted_because_the_offer_is_in_use(name: str, line: str) -> None:
    for environ in ({}, {OPTIONS[name].variable: ""}):
        with pytest.raises(InvalidSetting) as caught:
            own_settings(offer_of(name), environ)
        assert str(caught.value) == line


@EACH
def test_a_flag_counts_more_than_a_variable_and_a_wrong_variable_under_it_does_no_harm(name: str) -> None:
    text, value = GOOD[name][-1]
    for variable in (*BAD[name], GOOD[name][0][0]):
        assert read_one(name, {OPTIONS[name].variable: variable}, {name: text}) == value


@EACH
def test_an_empty_variable_counts_as_not_set(name: str) -> None:
    if OPTIONS[name].variable not in RIGHT:
        assert read_one(name, {OPTIONS[name].variable: ""}) == read_one(name, {})


@EACH
def test_variables_and_flags_of_others_are_not_looked_at(name: str) -> None:
    others = {"CARPARK_RATE": "x", "CARPARK_": "x", "CARPARK_WEBHOOK_": "x", "CARPARK_SINK_": "x", "SINK_CSV": "x"}
    flags = {other: "\0" for other in OPTIONS if offer_of(other) != offer_of(name)} | {"rate": "x"}
    assert read_one(name, others, flags) == read_one(name, {})


@EACH
def test_an_error_calls_a_setting_as_it_was_given(name: str) -> None:
    text = BAD[name][-1]
    with pytest.raises(InvalidSetting) as caught:
        read_one(name, {}, {name: OfFlag(text, "--this")})
    assert caught.value.name == f"--this ({OPTIONS[name].variable})"


def test_two_wrong_values_of_one_offer_are_said_together() -> None:
    with pytest.raises(ConfigurationError) as caught:
        own_settings(offer_of("webhook_url"), {"CARPARK_WEBHOOK_URL": "nowhere", "CARPARK_WEBHOOK_SECRET": "ä"})
    assert [str(each).partition(": ")[0] for each in caught.value.findings] == [
        "CARPARK_WEBHOOK_URL='nowhere'",
        f"CARPARK_WEBHOOK_SECRET='{MASK}'",
    ]


@pytest.mark.parametrize("offer", OFFERS, ids=lambda offer: offer.name)
def test_settings_cannot_be_changed_or_added_to(offer: Offer) -> None:
    own = own_settings(offer, RIGHT)
    for field in offer.settings.model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(own, field, "")
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        offer.settings.model_validate({"no_such_field": "x"})


def test_the_home_folder_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("sink_csv", "sink_jsonl", "sink_sqlite", "plates_file"):
        assert read_one(name, {OPTIONS[name].variable: "~/stays"}) == tmp_path / "stays"


HOLDERS = {"webhook_url": "https://u:{}@h/hook?key={}", "webhook_secret": "{}"}


@pytest.mark.parametrize("name", HOLDERS)
def test_a_secret_is_kept_but_never_shown(name: str) -> None:
    flags = {name: HOLDERS[name].replace("{}", SECRET)}
    assert SECRET in read_one(name, {}, flags)
    assert all(SECRET not in value for value in told(name, flags).values())
    assert MASK in told(name, flags)[OPTIONS[name].variable]


@pytest.mark.parametrize("name", HOLDERS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_secret_is_not_shown_by_an_error_either(name: str, damage: str) -> None:
    for text in damaged(HOLDERS[name], damage):
        try:
            values = told(name, {name: text}).values()
        except InvalidSetting as error:
            assert SECRET not in str(error) + error.value + repr(error)  # noqa: PT017
        else:
            assert all(SECRET not in value for value in values)


def masked(option: Option) -> bool:
    return any(word in option.variable for word in ("URL", "TOKEN", "SECRET", "LOGIN"))


def test_every_setting_that_may_hold_a_secret_is_masked() -> None:
    for name, option in OPTIONS.items():
        assert bool(option.text.mask) == masked(option) == (name in HOLDERS)


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(list(OPTIONS)), ANY_TEXT)
def test_any_text_is_taken_or_refused_in_one_line(name: str, text: str) -> None:
    try:
        value = read_one(name, {}, {name: text})
    except InvalidSetting as error:
        assert str(error).isprintable()  # noqa: PT017
        return
    assert read_one(name, {}, {name: as_text(value)}) == value
