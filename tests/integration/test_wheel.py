"""What is built and installed works: all that carpark needs at run time is in its wheel."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from tests.support.outside import Outside
from tests.support.processes import ROOT
from tests.support.source import tracked_files


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_wheel_runs_the_whole_system_without_the_package_of_the_dashboard(tmp_path: Path) -> None:
    outside, source = Outside(tmp_path / "venv"), tmp_path / "source"
    for path in tracked_files():  # a copy: a build leaves folders beside what it builds
        copy = source / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    outside.succeed(f"pip wheel --quiet --wheel-dir {tmp_path} .", source)
    [wheel] = tmp_path.glob("*.whl")
    outside.succeed(f"pip install --quiet --ignore-installed {wheel}", tmp_path)
    [own] = (tmp_path / "venv").glob("lib/*/site-packages")
    (own / "aside.pth").write_text("import sys; sys.modules['dramatiq_dashboard'] = None\n", encoding="utf-8")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert str(own) in outside.succeed("python -c 'import carpark; print(carpark.__file__)'", elsewhere)
    printed = outside.succeed(
        "carpark run --events 20 --rate 100 --bind 127.0.0.1",
        elsewhere,
        CARPARK_WRITER_PORT="0",
        CARPARK_METRICS_PORT="0",
        CARPARK_DASHBOARD_PORT="0",
    )
    assert "pip install --no-deps dramatiq-dashboard==" in printed
    assert "audit: nothing lost, nothing twice" in printed
    assert len((elsewhere / "data" / "summaries.csv").read_text(encoding="utf-8").splitlines()) > 1
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
    ours = [path.relative_to(ROOT) for path in tracked_files()]
    assert {str(path) for path in ours if path.parts[0] in ("carpark", "generators", "writer")} <= names
