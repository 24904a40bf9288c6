"""Offers that an author got wrong are said in a line, and break nothing else; secrets stay where they are."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from carpark.errors import BrokenPlugin
from carpark.ops.doctor.findings import Level
from carpark.ops.doctor.local import check_offer
from carpark.plugins import PluginContext, Plugins
from carpark.plugins.manager import own_settings
from carpark.settings import load_settings
from carpark.settings.fields import shown

Module = Callable[[str, str], str]

ODD = """
from __future__ import annotations
from typing import TYPE_CHECKING
from pydantic import BaseModel, Field, SecretStr
from carpark import Sink, SinkType, hookimpl

if TYPE_CHECKING:
    from decimal import Decimal


class Own(BaseModel):
    {field}


def make(context):
    {make}


@hookimpl
def carpark_register_sinks():
    return [SinkType("odd", make, settings=Own, {more})]
"""


def plugins(module: Module, field: str = "size: int = 1", make: str = "return None", more: str = "") -> Plugins:
    return Plugins([module("odd_offer", ODD.format(field=field, make=make, more=more))], {}, lenient=True)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"more": "prefix='odd_'"}, "has the prefix 'odd_'; wanted one like 'MY_NAME_'"),
        ({"more": "prefix='ODD'"}, "has the prefix 'ODD'"),
        ({"more": "prefix=3"}, "TypeError"),
        ({"field": "size: int = Field(1, alias='length')"}, "its setting size has an alias"),
        ({"field": "price: Decimal = 1"}, "Decimal"),
    ],
)
def test_an_offer_that_cannot_be_used_is_broken_and_the_others_are_there(
    module: Module, given: dict[str, str], said: str
) -> None:
    found = plugins(module, **given)
    [broken] = found.broken
    assert isinstance(broken, BrokenPlugin)
    assert said in str(broken)
    assert "odd" not in found.sinks
    assert "http-csv" in found.sinks


def test_a_default_of_several_numbers_is_shown(module: Module) -> None:
    offer = plugins(module, "sizes: tuple[int, ...] = (1, 2)").sinks["odd"].offer
    assert shown(own_settings(offer, {}), offer.variables) == {"CARPARK_ODD_SIZES": "1,2"}


@pytest.mark.parametrize("make", ["raise SystemExit", "return 5", "return context"])
def test_what_makes_no_sink_is_said_without_a_secret(module: Module, make: str) -> None:
    found = plugins(module, make=make)
    settings = load_settings(
        {"CARPARK_SINKS": "odd", "CARPARK_WRITER_TOKEN": "hunter2", "CARPARK_BROKER_URL": "amqp://u:hunter2@h"}
    )
    with pytest.raises(BrokenPlugin, match="'odd'") as raised:
        found.make_sinks(PluginContext(settings, {"CARPARK_ODD_SECRET": "hunter2"}))
    assert "hunter2" not in str(raised.value)
    assert "hunter2" not in repr(settings)


def test_pydantics_secrets_are_masked_and_so_are_passwords_in_urls(module: Module) -> None:
    offer = plugins(module, "key: SecretStr = SecretStr('')\n    url: str = ''").sinks["odd"].offer
    own = own_settings(offer, {"CARPARK_ODD_KEY": "hunter2", "CARPARK_ODD_URL": "http://me:hunter2@there"})
    assert own.key.get_secret_value() == "hunter2"
    assert shown(own, offer.variables) == {"CARPARK_ODD_KEY": "***", "CARPARK_ODD_URL": "http://me:***@there"}


def test_a_check_that_gives_something_else_is_a_finding(module: Module) -> None:
    found = plugins(module, more="check=lambda context: ['all fine']")
    [finding] = check_offer(found.sinks["odd"].offer, load_settings({}), found)
    assert (finding.level, finding.found) == (Level.PROBLEM, "its check gave 'all fine'")
