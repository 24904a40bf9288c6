"""Plates are personal data: a file that has some is not for everybody on the machine."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import ROOT


def run(folder: Path, umask: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    environ = {
        "PATH": os.environ["PATH"],
        "CARPARK_CSV": str(folder / "summaries.csv"),
        **{f"CARPARK_SINK_{name}": str(folder / f"stays.{name.lower()}") for name in ("CSV", "JSONL", "SQLITE")},
        **dict.fromkeys(("CARPARK_WRITER_PORT", "CARPARK_DASHBOARD_PORT", "CARPARK_METRICS_PORT"), "0"),
    }
    command = [sys.executable, "-m", "carpark", *map(str, arguments)]
    return subprocess.run(
        command, env=environ, umask=umask, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize(("umask", "wanted"), [(0o022, "640"), (0o000, "640"), (0o077, "600")])
def test_every_file_that_has_plates_is_for_its_owner_and_group(tmp_path: Path, umask: int, wanted: str) -> None:
    kept = tmp_path / "stays.jsonl"
    kept.touch()
    kept.chmod(0o604)
    ended = run(tmp_path, umask, "run", "--events", "60", "--rate", "200", "--sinks", "http-csv,csv,jsonl,sqlite")
    assert ended.returncode == 0, ended.stderr
    each = tmp_path / "each.jsonl"
    assert run(tmp_path, umask, "verify", "--each", each).returncode == 0
    with (tmp_path / "summaries.csv").open(encoding="utf-8") as rows:
        plates = {row["vehicle_plate"].encode() for row in csv.DictReader(rows)}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    modes = {
        str(path.relative_to(tmp_path)): f"{path.stat().st_mode & 0o777:o}"
        for path in files
        if path.name.endswith((".index.sqlite", "letters.jsonl")) or any(plate in path.read_bytes() for plate in plates)
    }
    run_folder = [f"summaries.csv.run/{name}.jsonl" for name in ("entry", "exit", "dead-letters")]
    kept_with = {f"{name}.index.sqlite" for name in ("summaries.csv", "stays.csv", "stays.jsonl")}
    ours = {"summaries.csv", "stays.csv", "stays.sqlite", "each.jsonl", *kept_with, *run_folder}
    assert modes == {**dict.fromkeys(ours, wanted), "stays.jsonl": "604"}, "what was there stays as somebody made it"
