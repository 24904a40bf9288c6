"""Offers of others that do what an offer should not: what the run came to is said all the same, and no secret is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.processes import Process, Processes

pytestmark = pytest.mark.slow

PLUGIN = """
import os
from pydantic import BaseModel, SecretStr
from carpark import ReadBack, Sink, SinkType, hookimpl


class Quiet(Sink):
    def deliver(self, summaries):
        pass


class Own(BaseModel):
    password: SecretStr = SecretStr("")
    url: str = ""
    folder: str = "here"


def rows():
    {rows}


def read_back(context):
    {read_back}


@hookimpl
def carpark_register_sinks():
    return [SinkType("odd", lambda context: Quiet(), settings=Own, read_back=read_back)]
"""
SECRET = "hunter2"


@pytest.fixture
def run(processes: Processes, tmp_path: Path) -> Callable[..., Process]:
    def run(*options: str, rows: str = "yield from ()", read_back: str = "return ReadBack('odd', rows)") -> Process:
        (tmp_path / "odd_offer.py").write_text(PLUGIN.format(rows=rows, read_back=read_back), encoding="utf-8")
        free = {"CARPARK_WRITER_PORT": "0", "CARPARK_METRICS_PORT": "0", "CARPARK_DASHBOARD_PORT": "0"}
        command = ["carpark", "run", "--plugins", "odd_offer", "--sinks", "odd", "--events", "5", "--rate", "100"]
        process = processes.start([*command, *options], env={"PYTHONPATH": str(tmp_path), **free}, cwd=tmp_path)
        process.wait(60)
        return process

    return run


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"rows": "raise KeyError('lost')"}, "lost"),
        ({"rows": "yield (None,)"}, "one that can be read"),
        ({"read_back": "return None"}, "'odd' read back NoneType; wanted a ReadBack"),
        ({"read_back": "raise OSError('far away')"}, "far away"),
        ({"read_back": "raise SystemExit"}, "'odd' cannot be read back: SystemExit"),
    ],
)
def test_a_sink_that_cannot_be_read_back_costs_the_audit_and_nothing_else(
    run: Callable[..., Process], wrong: dict[str, str], said: str
) -> None:
    process = run(**wrong)
    assert process.status == 1
    assert "summaries" in process.output
    assert f"not audited: {said}" in process.output or said in process.output.partition("not audited: ")[2]
    assert "Traceback" not in process.output


def test_secrets_are_neither_noted_nor_needed_again_for_the_audit_of_the_run(
    run: Callable[..., Process], tmp_path: Path
) -> None:
    given = ["--odd-password", SECRET, "--odd-url", f"http://me:{SECRET}@there", "--odd-folder", "elsewhere"]
    process = run(*given, "--csv", "day.csv")
    assert process.output.count("lost") > 0  # nothing was kept: the audit was made, with the settings of the run
    note = (tmp_path / "day.csv.run" / "run.json").read_text(encoding="utf-8")
    assert json.loads(note)["environ"]["CARPARK_ODD_FOLDER"] == "elsewhere"
    assert SECRET not in note + process.output


def test_a_note_of_another_kind_is_one_line(run: Callable[..., Process], processes: Processes, tmp_path: Path) -> None:
    run("--csv", "day.csv")
    note = tmp_path / "day.csv.run" / "run.json"
    for text in ('{"since": "", "sinks": {}, "counts": {}}', '{"since": "", "environ": [], "counts": 3}', "[]"):
        note.write_text(text, encoding="utf-8")
        process = processes.start(["carpark", "verify", "--csv", "day.csv"], env={}, cwd=tmp_path)
        assert process.wait(30) == 2
        assert process.output.startswith("carpark: CARPARK_CSV='day.csv': wanted a run that can be read (")
        assert process.output.count("\n") == 1
