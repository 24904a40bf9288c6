"""What a full retention takes in Redis, computed from the table that was measured, held against what is shipped."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
import yaml

from carpark.settings import Settings, load_settings
from tests.deploy.files import KUSTOMIZE, compose, filled, mebibytes, redis_conf, with_overlay
from tests.support.processes import ROOT

MEBIBYTE = 2**20
PACKED = "1024"
"""The value of `hash-max-listpack-value` with which the column *packed* was measured."""

ITSELF = 5_000_000
"""Bytes that Redis takes with nothing in it: its clients' buffers, and what a primary keeps for its replica."""


@dataclass(frozen=True)
class Cost:
    """Bytes of Redis, as docs/reference/records.md has them."""

    inside: float
    finished: float
    unmatched: float
    waiting: float


def measured(column: str) -> Cost:
    text = (ROOT / "docs/reference/records.md").read_text(encoding="utf-8")
    table = re.search(r"^\| stage \|(?:.*\|\n)+", text, re.MULTILINE)
    assert table
    header, _, *rows = ([cell.strip(" `") for cell in line[1:-1].split("|")] for line in table[0].splitlines())
    inside, waiting, finished, unmatched = (dict(zip(header, row, strict=True)) for row in rows)
    assert (inside["stage"], waiting["stage"].partition(",")[2]) == ("inside", " summary not delivered yet, per sink")
    assert (finished["stage"], unmatched["stage"]) == ("finished, summary delivered", "unmatched exit")
    whole = [float(row[column]) for row in (inside, finished, unmatched)]
    return Cost(*whole, float(waiting["outbox"]))


def full(settings: Settings, cost: Cost) -> float:
    """Bytes of what one retention leaves behind, and of the vehicles inside."""
    exits = settings.rate * settings.retention
    ended = settings.match_ratio * cost.finished + (1 - settings.match_ratio) * cost.unmatched
    return exits * ended + settings.capacity * cost.inside


def waiting(settings: Settings, cost: Cost) -> float:
    """Bytes of the stays of one retention in the outbox of each sink."""
    return settings.rate * settings.retention * settings.match_ratio * cost.waiting * len(settings.sinks)


def in_compose() -> Settings:
    environ = compose()["services"]["worker"]["environment"]
    values = dict.fromkeys(("RABBITMQ_WORKER_PASSWORD", "REDIS_PASSWORD", "WRITER_TOKEN"), "x")
    return load_settings({name: filled(value, values) for name, value in environ.items()})


def in_kustomize() -> Settings:
    kustomization = yaml.safe_load((KUSTOMIZE / "kustomization.yaml").read_text(encoding="utf-8"))
    return load_settings(dict(each.split("=", 1) for each in kustomization["configMapGenerator"][0]["literals"]))


@pytest.mark.parametrize("settings", [in_compose(), in_kustomize()], ids=["compose", "kustomize"])
def test_what_is_shipped_remembers_for_as_long_as_the_default_says(settings: Settings) -> None:
    assert settings.retention == Settings().retention == 2 * 24 * 3600


def test_the_stacks_redis_holds_a_full_retention_even_if_the_sink_takes_nothing() -> None:
    conf = redis_conf()
    assert conf["hash-max-listpack-value"] == PACKED
    settings, cost, room = in_compose(), measured("packed"), mebibytes(conf["maxmemory"].removesuffix("b")) * MEBIBYTE
    assert full(settings, cost) + ITSELF < room
    assert full(settings, cost) + waiting(settings, cost) + ITSELF < room


def test_the_containers_of_redis_have_room_for_rewriting_the_append_only_file() -> None:
    limit = mebibytes(redis_conf()["maxmemory"].removesuffix("b"))
    for name, service in with_overlay().items():
        if re.fullmatch(r"redis\d?", name):
            assert mebibytes(service["mem_limit"]) >= 1.5 * limit, name


def prose(page: str) -> str:
    return " ".join((ROOT / "docs" / page).read_text(encoding="utf-8").split())


def test_the_docs_say_what_it_comes_to() -> None:
    page, settings, cost = prose("how-to/deploy.md"), in_compose(), measured("packed")
    room = mebibytes(redis_conf()["maxmemory"].removesuffix("b"))
    inside = settings.capacity * cost.inside
    assert f"`CARPARK_RATE` is {settings.rate:g} there, {settings.rate * 86400:,.0f} a day" in page
    assert f": {(full(settings, cost) - inside) / 1e6:.0f} MB of stays and unmatched exits in 2 days" in page
    assert f"{inside / 1e6:.0f} MB of vehicles inside" in page
    assert f"and {waiting(settings, cost) / 1e6:.0f} MB more if a sink takes nothing" in page
    assert f"Redis refuses writes at {room} MiB" in page
    [(rate, retention)] = re.findall(r"CARPARK_RATE=(\S+) CARPARK_RETENTION=(\d+) make up", page)
    raised = load_settings({"CARPARK_RATE": rate, "CARPARK_RETENTION": retention})
    assert full(raised, cost) + waiting(raised, cost) + ITSELF < room * MEBIBYTE
    hours = (room * MEBIBYTE - ITSELF - inside) / (full(raised, cost) - inside) * raised.retention / 3600
    assert f"with 2 days it would be full after {hours:.0f} hours" in page


def test_the_cost_of_an_exit_is_the_tables() -> None:
    page = prose("reference/records.md")
    whole, packed = (0.8 * of.finished + 0.2 * of.unmatched for of in (measured("whole"), measured("packed")))
    assert f"an exit costs {whole:.0f} bytes, packed {packed:.0f}:" in page
    assert f" {packed:.0f} B = {5 * 172_800 * packed / 1e6:.0f} MB" in page


def test_the_need_of_a_redis_in_kubernetes_is_stated_with_room_for_all_of_it() -> None:
    page, settings, usual, packed = prose("how-to/deploy.md"), in_kustomize(), measured("whole"), measured("packed")
    assert f"{settings.rate:g} vehicles a second at each gate" in page
    assert f"takes {full(settings, usual) / 1e6:.0f} MB, {full(settings, packed) / 1e6:.0f} MB with" in page
    assert f"and {waiting(settings, usual) / 1e6:.0f} MB more if a sink takes nothing" in page
    [(limit, container)] = re.findall(r"`maxmemory (\d+)mb`.*?container of (\d+) MiB", page)
    assert full(settings, usual) + waiting(settings, usual) + ITSELF < int(limit) * MEBIBYTE
    assert int(container) >= 1.5 * int(limit)
