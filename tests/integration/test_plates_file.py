"""Plates of a list of one's own: when all of them are inside, the entry camera waits and says so."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis

from carpark.domain.events import format_time
from tests.support.generating import Wire
from tests.support.helpers import eventually
from tests.support.processes import WORKER_READY, Processes

PLATES = {"AB123", "बा१च१२३४", "京A12345"}
SAID = r"entry camera waits: every plate of the list is inside \(3\)"


@pytest.fixture
def plates_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.txt"
    path.write_text("ab 123\n\nबा १ च १२३४ # the boss\n京A·12345\n", encoding="utf-8")
    return path


@pytest.fixture
def wire(broker_url: str) -> Iterator[Wire]:
    wire = Wire(broker_url)
    yield wire
    wire.close()


def _run(processes: Processes, plates_file: Path, *options: str) -> tuple[dict[str, int], str]:
    run = processes.start(
        [
            "carpark",
            "run",
            "--plates",
            "file",
            "--plates-file",
            str(plates_file),
            "--sinks",
            "jsonl",
            "--json",
            *options,
        ],
        env={
            "CARPARK_WRITER_PORT": "0",
            "CARPARK_DASHBOARD_PORT": "0",
            "CARPARK_METRICS_PORT": "0",
            "CARPARK_CSV": str(plates_file.with_name("stays.csv")),
            "CARPARK_SINK_JSONL": str(plates_file.with_name("stays.jsonl")),
        },
    )
    assert run.wait(60) == 0
    [line] = [line for line in run.output.splitlines() if line.startswith("{")]
    return json.loads(line), run.output


def test_in_one_process_the_entry_camera_waits_when_nobody_ever_leaves(processes: Processes, plates_file: Path) -> None:
    report, output = _run(processes, plates_file, "--rate", "50", "--match-ratio", "0", "--duration", "60")
    assert report["inside"] == 3
    assert len(re.findall(SAID, output)) == 1


@pytest.mark.slow
def test_in_one_process_a_short_list_lasts_for_ever(processes: Processes, plates_file: Path) -> None:
    report, _ = _run(processes, plates_file, "--rate", "100", "--events", "60")
    assert report["published"] == 120
    assert report["abandoned"] == 0
    lines = plates_file.with_name("stays.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["vehicle_plate"] for line in lines} == PLATES


def test_on_real_servers_the_next_one_enters_when_one_has_left(
    processes: Processes, server_environ: dict[str, str], wire: Wire, store: redis.Redis, plates_file: Path
) -> None:
    environ = {**server_environ, "CARPARK_SINKS": "stdout"}
    entry = processes.start(
        ["carpark", "generate", "entry", "--plates", "file", "--plates-file", str(plates_file), "--rate", "50"],
        env=environ,
    )
    worker = processes.start(["dramatiq", "carpark.actors", "--processes", "1"], env=environ)
    worker.wait_for_line(WORKER_READY)
    entry.wait_for_line(SAID)
    eventually(lambda: store.smembers("entry_plates") == PLATES)
    exit_ = {
        "id": "1",
        "vehicle_plate": "बा\N{ZERO WIDTH JOINER}-१-च.१२३४",
        "exit_date_time": format_time(datetime.now(UTC) + timedelta(seconds=1)),
    }
    wire.channel.basic_publish("", "vehicle_exit", json.dumps(exit_).encode())
    eventually(lambda: store.hget("carpark:counts", "entry/recorded") == "4", 20)
    eventually(lambda: store.smembers("entry_plates") == PLATES)
    assert entry.terminate() == 0
    assert "entry generator: 4 published" in entry.output
