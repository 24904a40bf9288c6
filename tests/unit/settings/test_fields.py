"""Any pydantic model as settings: one of a plugin's, with a prefix of its own, and all that is wrong said at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

import pytest
from pydantic import BaseModel, Field, model_validator

from carpark.errors import ConfigurationError, InvalidSetting
from carpark.settings.fields import OfFlag, given_texts, options_of, read, shown, with_flags
from carpark.settings.values import MASK, File, OptionalPort, number, secret, url

PREFIX = "CARPARK_SIREN_"


class Siren(BaseModel, frozen=True, extra="forbid", validate_default=True):
    """A plugin's settings; `colour` and `floor` have no text of their own, `post` has no default."""

    post: Annotated[str, url("https://host", "https")] = Field(description="where it `howls`")
    key: Annotated[str, secret(metavar="KEY")] = Field("", description="its key")
    quietest: Annotated[float, number(0, 130, "a number of decibels", "DB")] = 40
    loudest: Annotated[float, number(0, 130, "a number of decibels", "DB")] = 90
    log: File = Field(Path("siren.log"), description="its log")
    port: OptionalPort = None
    colour: Literal["red", "blue"] = "red"
    floor: int = Field(0, ge=-2)

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.loudest < self.quietest:
            raise ValueError("the loudest above the quietest")
        return self


RIGHT = {"post": "https://h"}


def variables(texts: dict[str, str]) -> dict[str, str]:
    return {PREFIX + name.upper(): text for name, text in texts.items()}


def lines_of(texts: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        read(Siren, variables(texts), PREFIX)
    return [str(each) for each in caught.value.findings]


def test_a_field_has_a_variable_a_flag_and_a_default_as_text() -> None:
    options = options_of(Siren, PREFIX)
    assert [(each.variable, each.flag, each.default, each.text.metavar) for each in options.values()] == [
        ("CARPARK_SIREN_POST", "--siren-post", "", "URL"),
        ("CARPARK_SIREN_KEY", "--siren-key", "", "KEY"),
        ("CARPARK_SIREN_QUIETEST", "--siren-quietest", "40", "DB"),
        ("CARPARK_SIREN_LOUDEST", "--siren-loudest", "90", "DB"),
        ("CARPARK_SIREN_LOG", "--siren-log", "siren.log", "FILE"),
        ("CARPARK_SIREN_PORT", "--siren-port", "", "PORT"),
        ("CARPARK_SIREN_COLOUR", "--siren-colour", "red", "TEXT"),
        ("CARPARK_SIREN_FLOOR", "--siren-floor", "0", "TEXT"),
    ]
    assert options["quietest"].text.wanted == "a number of decibels from 0 to 130"


def test_it_is_read_from_variables_and_flags_and_the_variables_of_others_do_not_count() -> None:
    environ = {
        "CARPARK_SIREN_POST": "https://u:p@h",
        "CARPARK_SIREN_LOUDEST": "100",
        "CARPARK_SIREN_COLOUR": "",
        "CARPARK_SIREN_VOLUME": "x",
        "CARPARK_LOG": "x",
        "SIREN_LOG": "x",
    }
    flags = {"siren_loudest": "1e2", "siren_floor": "-1"}
    environ = with_flags(environ, flags, options_of(Siren, PREFIX).values())
    assert given_texts(Siren, environ, PREFIX) == {"post": "https://u:p@h", "loudest": "1e2", "floor": "-1"}
    siren = read(Siren, environ, PREFIX)
    assert (siren.loudest, siren.floor, siren.colour, siren.port, str(siren.log)) == (
        100.0,
        -1,
        "red",
        None,
        "siren.log",
    )
    assert shown(siren, PREFIX) == {
        "CARPARK_SIREN_POST": f"https://u:{MASK}@h",
        "CARPARK_SIREN_KEY": "",
        "CARPARK_SIREN_QUIETEST": "40",
        "CARPARK_SIREN_LOUDEST": "100",
        "CARPARK_SIREN_LOG": "siren.log",
        "CARPARK_SIREN_PORT": "",
        "CARPARK_SIREN_COLOUR": "red",
        "CARPARK_SIREN_FLOOR": "-1",
    }


def test_all_that_is_wrong_is_said_each_in_a_line_without_secrets() -> None:
    texts = {"post": "http://u:hunter2@h", "key": "hunter2 ü", "quietest": "1_0", "colour": "green"}
    assert lines_of(texts | {"port": OfFlag("nan", "--howl-port"), "floor": "-3"}) == [
        f"CARPARK_SIREN_POST='http://u:{MASK}@h': wanted https://host",
        f"CARPARK_SIREN_KEY='{MASK}': wanted printable ASCII characters",
        "CARPARK_SIREN_QUIETEST='1_0': wanted a number of decibels from 0 to 130",
        "--howl-port (CARPARK_SIREN_PORT)='nan': wanted a port from 0 to 65535 (0 for a free one)",
        "CARPARK_SIREN_COLOUR='green': wanted 'red' or 'blue'",
        "CARPARK_SIREN_FLOOR='-3': wanted greater than or equal to -2",
    ]


def test_what_is_missing_shows_nothing_of_what_is_given_beside_it() -> None:
    assert lines_of({"key": "hunter2"}) == ["CARPARK_SIREN_POST='': wanted https://host"]


def test_a_rule_between_fields_is_named_after_the_prefix() -> None:
    assert lines_of({**RIGHT, "key": "hunter2", "loudest": "9"}) == [
        "CARPARK_SIREN_*='': wanted the loudest above the quietest"
    ]


def test_what_is_wrong_alone_is_the_error_itself() -> None:
    with pytest.raises(InvalidSetting) as caught:
        read(Siren, variables({**RIGHT, "port": "x"}), PREFIX)
    assert caught.value.findings == (caught.value,)
    assert (caught.value.name, caught.value.value) == ("CARPARK_SIREN_PORT", "x")
    assert caught.value.__cause__ is caught.value.__context__ is None, "pydantic's own error would show the values"
