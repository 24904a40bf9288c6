"""The example package is installed and used as an outsider would, without a line changed in the project."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path

import pika
import pytest

from tests.support.helpers import eventually
from tests.support.outside import Outside
from tests.support.processes import ROOT, WORKER_READY, Processes

pytestmark = pytest.mark.slow

EXAMPLE = ROOT / "examples" / "carpark-example-plugin"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package, because building leaves files behind."""
    folder = tmp_path_factory.mktemp("package") / EXAMPLE.name
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__", ".*_cache"))
    return folder


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory, package: Path) -> Outside:
    """A fresh environment in which the package is installed."""
    outside = Outside(tmp_path_factory.mktemp("outside") / "venv")
    assert "json-folder" not in outside.succeed("carpark plugins", package)
    outside.succeed("pip install .", package)
    return outside


def test_carpark_plugins_lists_it(outside: Outside, tmp_path: Path) -> None:
    listed = json.loads(outside.succeed("carpark plugins --json --sinks json-folder,stdout", tmp_path))
    theirs = {row["name"]: row for row in listed if row["plugin"] == "example"}
    assert set(theirs) == {"json-folder", "netherlands"}
    for name, kind, in_use in (("json-folder", "sink", True), ("netherlands", "plates", False)):
        row = theirs[name]
        assert (row["kind"], row["in_use"], row["version"]) == (kind, in_use, "1.0.0")
        assert (row["source"], row["distribution"]) == ("installed", "carpark-example-plugin")


def test_its_own_tests_pass_there(outside: Outside, package: Path) -> None:
    printed = outside.succeed("pytest -q -p no:cacheprovider tests", package)
    assert " passed" in printed
    assert "skipped" not in printed


def test_a_run_that_names_it_gives_it_its_summaries_and_takes_its_plates(outside: Outside, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    printed = outside.succeed(
        "carpark run --events 40 --rate 200 --json",
        tmp_path,
        CARPARK_SINKS="json-folder,jsonl",
        CARPARK_PLATES="netherlands",
        CARPARK_WRITER_PORT="0",
        CARPARK_METRICS_PORT="0",
        CARPARK_SINK_JSONL="ours.jsonl",
        CARPARK_EXAMPLE_FOLDER=str(folder),
    )
    [line] = [line for line in printed.splitlines() if line.startswith("{")]
    report = json.loads(line)
    stays = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in folder.iterdir()}
    ours = [json.loads(line) for line in (tmp_path / "ours.jsonl").read_text(encoding="utf-8").splitlines()]
    assert report["summaries"] == len(stays) > 0
    assert sorted(stay["id"] for stay in stays.values()) == sorted(stay["id"] for stay in ours)
    for stay in stays.values():
        letter, *digits = stay["vehicle_plate"][:4]
        assert letter.isalpha()
        assert "".join(digits).isdecimal()


def test_a_worker_on_real_servers_that_names_it_gives_it_every_summary(
    outside: Outside, processes: Processes, server_environ: dict[str, str], broker_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "theirs"
    worker = processes.start(
        ["sh", "-c", f"exec {outside.folder}/bin/python -m dramatiq carpark.actors --processes 1"],
        env={**server_environ, "CARPARK_SINKS": "json-folder", "CARPARK_EXAMPLE_FOLDER": str(folder)},
        cwd=tmp_path,
        name="worker",
    )
    worker.wait_for_line(WORKER_READY)
    with closing(pika.BlockingConnection(pika.URLParameters(broker_url))) as connection:
        channel = connection.channel()
        for number in range(20):
            stay = {"id": f"stay {number}", "vehicle_plate": f"G {number:03} BD"}
            for kind, time in (("entry", "2026-11-23T18:00:00Z"), ("exit", "2026-11-23T19:30:00Z")):
                channel.basic_publish("", f"vehicle_{kind}", json.dumps({**stay, f"{kind}_date_time": time}).encode())
    eventually(lambda: len(list(folder.glob("*.json"))) == 20, 30)
    stays = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]
    assert {stay["id"] for stay in stays} == {f"stay {number}" for number in range(20)}
    assert {stay["duration"] for stay in stays} == {5400}


def test_a_setting_of_its_own_that_is_wrong_is_one_line_and_status_2(outside: Outside, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = outside.run("carpark run --sinks json-folder --writer-port 0", tmp_path, CARPARK_EXAMPLE_FOLDER="file/stays")
    assert done.returncode == 2
    assert done.stdout.startswith("carpark: CARPARK_EXAMPLE_FOLDER='file/stays': wanted a folder that can be written")
    assert done.stdout.count("\n") == 1


def test_its_setting_has_a_flag_its_rows_are_audited_and_the_doctor_asks_it(outside: Outside, tmp_path: Path) -> None:
    assert "--example-folder" in outside.succeed("carpark worker --help", tmp_path)
    ports = {"CARPARK_WRITER_PORT": "0", "CARPARK_METRICS_PORT": "0", "CARPARK_DASHBOARD_PORT": "0"}
    outside.succeed(
        "carpark run --events 30 --rate 200 --sinks json-folder --example-folder theirs --csv day.csv",
        tmp_path,
        **ports,
    )
    verified = json.loads(outside.succeed("carpark verify --csv day.csv --json", tmp_path))
    files = list((tmp_path / "theirs").glob("*.json"))
    assert verified["sinks"]["json-folder"]["rows"] == len(files) > 0
    files[0].unlink()
    done = outside.run("carpark verify --csv day.csv --json", tmp_path)
    assert done.returncode == 1
    assert json.loads(done.stdout)["sinks"]["json-folder"]["lost"] == 1
    (tmp_path / "file").touch()
    for folder, level in (("theirs", "ok"), ("file", "problem")):
        report = outside.run(f"carpark doctor --json --sinks json-folder --example-folder {folder}", tmp_path, **ports)
        assert [each["level"] for each in json.loads(report.stdout)["checks"] if each["check"] == "json-folder"] == [
            level
        ]


def test_a_variable_with_its_name_is_taken_for_no_slip(outside: Outside, tmp_path: Path) -> None:
    report = json.loads(outside.run("carpark doctor --json", tmp_path, CARPARK_EXAMPLE_FOLDERS="x").stdout)
    assert "is not a setting" not in json.dumps(report)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory, package: Path) -> Outside:
    """A fresh environment in which the package is installed, but not what it imports."""
    folder = tmp_path_factory.mktemp("broken")
    outside = Outside(folder / "venv")
    shutil.copytree(package, folder / "package")
    (folder / "package" / "src" / "carpark_example" / "__init__.py").write_text("import not_installed_anywhere\n")
    outside.succeed("pip install .", folder / "package")
    return outside


@pytest.mark.parametrize("command", ["carpark run", "carpark plugins", "python -m dramatiq carpark.actors"])
def test_a_broken_installed_plugin_is_one_line_and_status_2_wherever_it_is_found(
    broken: Outside, command: str, tmp_path: Path
) -> None:
    done = broken.run(command, tmp_path)
    # Each of Dramatiq's worker processes finds it, and the first one's end stops those that have not said so yet.
    lines = {line for line in done.stdout.splitlines() if line.startswith("carpark: ")}
    assert done.returncode == 2
    assert lines == {
        "carpark: plugin 'example': carpark_example cannot be loaded: ModuleNotFoundError: "
        "No module named 'not_installed_anywhere'; fix it, or uninstall carpark-example-plugin"
    }
    assert "Traceback" not in done.stdout
