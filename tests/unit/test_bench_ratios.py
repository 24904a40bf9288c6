"""The regression guard of the benchmarks: ratios, never times."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import COMMITTED
from benchmarks.report import compare, ratios
from tests.support.processes import Processes

RATES = {"carpark": [400.0, 500.0], "bare pika": [500.0, 500.0], "Dramatiq": [100.0, 50.0], "Celery": [50.0, 50.0],
         "carpark, each alone": [100.0, 100.0]}  # fmt: skip
RESULTS = {
    "quick": True,
    "machine": {"cores": 2},
    "throughput": [
        {"name": name, "rates": rates, "micros": {"workers": 1.0}, "audit": "nothing lost"}
        for name, rates in RATES.items()
    ],
    "publishing": {"carpark, confirmed": [60.0], "bare pika, unconfirmed": [100.0]},
    "records": [{"inside": 10, "redis": [3.0], "micros": [30.0]}, {"inside": 100, "redis": [3.0], "micros": [30.0]}],
}


def test_ratios_are_taken_round_by_round() -> None:
    found = ratios(RESULTS)
    assert found["events: carpark / bare pika"] == pytest.approx(0.9)
    assert found["events: carpark / Dramatiq"] == pytest.approx(7.0)
    assert found["publishing: carpark confirmed / bare pika unconfirmed"] == pytest.approx(0.6)


def test_only_what_got_much_worse_is_named() -> None:
    committed = {"a": 1.0, "b": 1.0, "c": 1.0}
    assert compare({"a": 0.79, "b": 0.81, "other": 0.1}, committed) == ["a: 0.79, was 1.00"]


def test_the_committed_ratios_are_ones_that_are_measured() -> None:
    assert json.loads(COMMITTED.read_text(encoding="utf-8")).keys() <= ratios(RESULTS).keys()


@pytest.mark.parametrize(("share", "status"), [(1.0, 0), (0.5, 1)])
def test_the_check_says_which_ratio_got_worse(share: float, status: int, processes: Processes, tmp_path: Path) -> None:
    committed = json.loads(COMMITTED.read_text(encoding="utf-8"))
    name = "publishing: carpark confirmed / bare pika unconfirmed"
    found = {**committed, name: committed[name] * share}
    file = tmp_path / "bench.json"
    file.write_text(json.dumps({**RESULTS, "ratios": found, "seconds": 1.0}), encoding="utf-8")
    process = processes.start(["python", "-m", "benchmarks", "--check", "--read", str(file)])
    assert process.wait(60) == status
    assert (f"worse: {name}: {found[name]:.2f}" in process.output) is (status == 1)
