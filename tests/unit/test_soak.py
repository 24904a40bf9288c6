"""The long tests' front: each part runs, and what failed is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests import soak
from tests.support.helpers import eventually
from tests.support.processes import Processes

ENDLESS = "import os, signal; print('part', os.getpid(), flush=True); signal.pause()"


def run(monkeypatch: pytest.MonkeyPatch, *options: str, **scripts: str) -> Result:
    monkeypatch.setattr(soak, "parts", lambda rounds, seed: {name: ["-c", text] for name, text in scripts.items()})
    return CliRunner().invoke(soak.main, options)


def test_parts_that_are_well_are_status_0(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = run(monkeypatch, one="pass", two="pass")
    assert ended.exit_code == 0
    assert "soak: 2 of 2, two: python -c pass" in ended.output
    assert "soak: two: well after 0.0 minutes" in ended.output


def test_a_part_that_fails_is_named_and_status_1_and_the_others_run(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = run(monkeypatch, one="raise SystemExit(3)", two="pass")
    assert ended.exit_code == 1
    assert "soak: one: failed with status 3 after" in ended.output
    assert "soak: two: well after" in ended.output
    assert ended.output.endswith("soak: failed: one\n")


def test_it_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "LIMIT", 0.5)
    ended = run(monkeypatch, one="import signal; signal.pause()", two="pass")
    assert ended.exit_code == 1
    assert "soak: one: stopped, because" in ended.output
    assert "soak: two: not begun in time" in ended.output
    assert ended.output.endswith("soak: failed: one, two\n")


def test_a_part_can_be_chosen_and_one_that_there_is_not_is_status_2(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = run(monkeypatch, "--only", "tw", one="raise SystemExit(3)", two="pass")
    assert ended.exit_code == 0
    assert "soak: 1 of 1, two" in ended.output
    ended = run(monkeypatch, "--only", "three", one="pass", two="pass")
    assert ended.exit_code == 2
    assert "no part has 'three' in its name; there are: one, two" in ended.output


def test_whoever_ends_it_ends_the_part_too(processes: Processes) -> None:
    source = f"from tests import soak; soak.parts = lambda *_: {{'one': ['-c', {ENDLESS!r}]}}; soak.main([])"
    front = processes.start(["python", "-c", source])
    part = int(front.wait_for_line(r"part (\d+)")[1])
    assert front.terminate() == 1
    eventually(lambda: not Path(f"/proc/{part}").exists())
