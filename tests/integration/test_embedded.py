"""``carpark run``: the whole car park in one process, as a user starts it."""

from __future__ import annotations

import csv
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from carpark.embedded.system import Embedded
from carpark.settings import Settings
from generators.build import Plan
from tests.support.helpers import eventually
from tests.support.processes import ROOT, Process, Processes
from tests.support.recorder import Recorder

pytestmark = pytest.mark.slow

NUMBERS = (
    *("published", "duplicates", "rejected", "recorded", "matched", "unmatched", "abandoned", "inside"),
    *("summaries", "undelivered", "dead"),
)


@pytest.fixture
def run(processes: Processes, tmp_path: Path) -> Callable[..., Process]:
    """Start `carpark run` with options, free ports and a CSV in the test's folder."""

    def start(*options: str, **env: str) -> Process:
        environ = {"CARPARK_CSV": str(tmp_path / "stays.csv"), "CARPARK_WRITER_PORT": "0", "CARPARK_METRICS_PORT": "0"}
        return processes.start(["carpark", "run", *options], env={**environ, "CARPARK_DASHBOARD_PORT": "0", **env})

    return start


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def table_of(process: Process) -> dict[str, int]:
    found = {name: re.search(rf"^{name} +(\d+) ", process.output, re.MULTILINE) for name in NUMBERS}
    return {name: int(match[1]) for name, match in found.items() if match}


def ask(processes: Processes, *arguments: object) -> Process:
    """Run another command to its end."""
    process = processes.start(["carpark", *map(str, arguments)], env={"COLUMNS": "200"})
    process.wait()
    return process


@pytest.mark.parametrize("partitions", [1, 4])
def test_it_ends_by_itself_and_everything_adds_up(run: Callable[..., Process], tmp_path: Path, partitions: int) -> None:
    process = run("--events", "300", "--rate", "200", "--seed", "7", "--partitions", str(partitions))
    assert process.wait(60) == 0
    numbers = table_of(process)
    assert list(numbers) == list(NUMBERS)
    assert numbers["published"] == 600
    assert numbers["recorded"] == 300
    assert numbers["summaries"] == numbers["matched"] == 240
    assert numbers["unmatched"] == numbers["inside"] == 60
    assert process.output.count(" ✓") == 2
    written = rows(tmp_path / "stays.csv")
    assert len({row["id"] for row in written}) == len(written) == 240


def test_a_seed_repeats_who_enters_and_who_leaves(make_settings: Callable[..., Settings], tmp_path: Path) -> None:
    def plates_of_a_run(name: str) -> tuple[list[str], set[str]]:
        settings = make_settings(rate=400, csv=tmp_path / name)
        with Embedded(settings, Plan(events=150, seed="7")) as park:
            park.run(stop=_never())
            assert park.finish(_never())
            inside = {plate for plate, _ in park.backend.records.vehicles()}
        return [row["vehicle_plate"] for row in rows(tmp_path / name)], inside

    left, inside = plates_of_a_run("1.csv")
    left_again, inside_again = plates_of_a_run("2.csv")
    assert sorted(left) == sorted(left_again)
    assert inside == inside_again
    assert len(left) == 120
    assert len(inside) == 30


def test_ctrl_c_ends_it_after_everything_was_processed(run: Callable[..., Process], tmp_path: Path) -> None:
    process = run("--rate", "200")
    csv_path = tmp_path / "stays.csv"
    eventually(lambda: csv_path.exists() and len(rows(csv_path)) > 50, 30)
    process.signal(signal.SIGINT)
    assert process.wait(30) == 0
    numbers = table_of(process)
    assert numbers["summaries"] == len(rows(csv_path))
    assert numbers["undelivered"] == 0
    assert process.output.count(" ✓") == 2


def test_a_duration_ends_it(run: Callable[..., Process]) -> None:
    started = time.monotonic()
    process = run("--rate", "50", "--duration", "3")
    assert process.wait(30) == 0
    assert time.monotonic() - started >= 3
    assert 0 < table_of(process)["published"] <= 400  # what a busy machine could not send by then is not made up for


def test_the_audit_knows_how_long_the_records_remember(run: Callable[..., Process]) -> None:
    process = run("--rate", "50", "--match-ratio", "0.5", "--duration", "8", CARPARK_RETENTION="4")
    assert process.wait(60) == 0
    assert table_of(process)["unmatched"] > 50, "half of them are forgotten"
    assert "audit: nothing lost, nothing twice" in process.output


def test_without_a_terminal_there_is_a_line_every_few_seconds(run: Callable[..., Process]) -> None:
    process = run("--rate", "50")
    process.wait_for_line(r"^ +[0-9.]+ s  published \d+ \((?!0/s)\d+/s\)  inside \d+  matched")
    process.signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert "\x1b" not in process.output


def test_json_is_all_that_stdout_gets(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "carpark", "run", "--events", "40", "--rate", "200", "--sinks", "jsonl", "--json"]
    environ = {"PATH": "/usr/bin:/bin", "CARPARK_SINK_JSONL": str(tmp_path / "stays.jsonl")}
    environ |= {"CARPARK_CSV": str(tmp_path / "stays.csv")}
    environ |= {"CARPARK_METRICS_PORT": "0", "CARPARK_DASHBOARD_PORT": "0"}
    ended = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    numbers = json.loads(ended.stdout)
    assert set(numbers) >= set(NUMBERS)
    assert numbers["published"] == 80
    assert len((tmp_path / "stays.jsonl").read_text(encoding="utf-8").splitlines()) == numbers["summaries"]


def test_servers_that_the_environment_names_are_left_alone(run: Callable[..., Process]) -> None:
    nowhere = {"CARPARK_BROKER_URL": "amqp://nobody:nothing@127.0.0.1:1", "CARPARK_REDIS_URL": "redis://127.0.0.1:1/0"}
    assert run("--events", "5", "--rate", "100", CARPARK_WRITER_URL="http://127.0.0.1:1", **nowhere).wait(30) == 0


def test_a_sink_that_comes_round_gets_all_of_it(run: Callable[..., Process]) -> None:
    with Recorder() as sink:
        sink.status = 503
        process = run("--events", "30", "--rate", "200", "--sinks", "webhook", CARPARK_WEBHOOK_URL=sink.url)
        process.wait_for_line("^finishing what was published")
        sink.status = 201
        assert process.wait(60) == 0
    assert table_of(process)["undelivered"] == 0
    assert len(sink.ids) == len(sink.taken) == 24


@pytest.mark.parametrize("end", ["--duration", "Ctrl-C"])
def test_load_that_was_due_and_not_made_is_said_and_is_status_1(run: Callable[..., Process], end: str) -> None:
    process = run("--rate", "40000", "--capacity", "0", "--json", *(("--duration", "1") if end == "--duration" else ()))
    if end == "Ctrl-C":
        process.wait_for_line(r"^ +[0-9.]+ s  published [1-9]")
        process.signal(signal.SIGINT)
    assert process.wait(240) == 1
    said = next(json.loads(line) for line in process.output.splitlines() if line.startswith("{"))
    assert said["not_made"] > 0
    assert f"carpark run: {said['not_made']:,} events were due and not made" in process.output
    assert said["audit"]["ok"], "what was made is all accounted for"
    if end == "--duration":
        assert said["published"] + said["not_made"] + said["held_back"] == 80_000


def test_load_that_a_full_car_park_held_back_is_said(run: Callable[..., Process]) -> None:
    process = run("--rate", "50", "--match-ratio", "0", "--capacity", "10", "--duration", "3", "--json")
    assert process.wait(60) == 0
    said = next(json.loads(line) for line in process.output.splitlines() if line.startswith("{"))
    assert (said["published"], said["not_made"]) == (10 + 150, 0)
    assert said["held_back"] == pytest.approx(140, abs=2)
    assert f"{said['held_back']} events less than the rate would make" in process.output


def test_the_dead_letters_of_a_run_can_be_looked_at_after_it(
    run: Callable[..., Process], processes: Processes, tmp_path: Path
) -> None:
    env = {"CARPARK_WEBHOOK_URL": "http://127.0.0.1:9", "CARPARK_SINK_RETRIES": "0"}
    ended = run("--events", "10", "--rate", "100", "--sinks", "webhook,http-csv", "--partitions", "3", **env)
    assert ended.wait(60) == 1
    assert "nothing lost" not in ended.output
    assert "audit: 8 summaries not yet delivered" in ended.output
    csv_path = tmp_path / "stays.csv"
    assert f"8 dead letters are kept: carpark dlq list --csv {csv_path}" in ended.output

    listed = ask(processes, "dlq", "list", "--csv", csv_path, "--match", "webhook", "--json")
    letters = json.loads(listed.output)
    assert listed.status == 0
    assert {letter["queue"] for letter in letters} == {"carpark_work.XQ"}
    assert {letter["arguments"]["summary"]["id"] for letter in letters} == {row["id"] for row in rows(csv_path)}
    shown = ask(processes, "dlq", "show", letters[3]["id"], "--csv", csv_path)
    assert shown.status == 0
    assert "no retry is wanted" in shown.output
    assert letters[3]["arguments"]["summary"]["vehicle_plate"] in shown.output

    audited = ask(processes, "verify", "--csv", csv_path, "--json")
    assert audited.status == 1, "nobody delivers them any more"
    verdict = json.loads(audited.output)
    assert (verdict["ok"], verdict["undelivered"], verdict["dead"]) == (True, 8, 8)

    again = run("--events", "5", "--rate", "100")
    assert again.wait(60) == 0
    assert "dead letter" not in again.output.partition("undelivered")[0]
    assert json.loads(ask(processes, "dlq", "list", "--csv", csv_path, "--json").output) == []


def test_what_waited_for_a_sink_at_the_end_of_a_run_is_kept(
    run: Callable[..., Process], processes: Processes, tmp_path: Path
) -> None:
    with Recorder() as sink:
        sink.status = 503
        process = run("--rate", "100", "--sinks", "webhook", "--json", CARPARK_WEBHOOK_URL=sink.url)
        process.wait_for_line("sink webhook fails")
        process.signal(signal.SIGINT)
        process.wait_for_line("Ctrl-C ends it at once")
        process.signal(signal.SIGINT)
        assert process.wait(30) == 1
    said = next(json.loads(line) for line in process.output.splitlines() if line.startswith("{"))
    assert said["undelivered"] > 0
    csv_path = tmp_path / "stays.csv"
    listed = ask(processes, "dlq", "list", "--csv", csv_path, "--limit", "100000", "--json")
    letters = json.loads(listed.output)
    assert len({letter["arguments"]["summary"]["id"] for letter in letters}) == said["undelivered"]
    assert all("had not taken it when the run ended" in letter["error"] for letter in letters)


def test_dead_letters_of_no_run_and_of_a_killed_one_are_status_2(
    run: Callable[..., Process], processes: Processes, tmp_path: Path
) -> None:
    csv_path = tmp_path / "stays.csv"
    asked = ask(processes, "dlq", "list", "--csv", csv_path)
    assert (asked.status, len(asked.output.splitlines())) == (2, 1)
    assert "wanted those of a `carpark run` that has ended" in asked.output
    killed = run("--rate", "50")
    killed.wait_for_line(r"matched [1-9]")
    killed.signal(signal.SIGKILL)
    killed.wait()
    asked = ask(processes, "dlq", "list", "--csv", csv_path)
    assert (asked.status, len(asked.output.splitlines())) == (2, 1)
    assert "wanted those of a `carpark run` that has ended" in asked.output


def test_a_second_ctrl_c_ends_the_waiting_with_status_1(run: Callable[..., Process]) -> None:
    with Recorder() as sink:
        sink.status = 503
        process = run("--rate", "200", "--sinks", "webhook", CARPARK_WEBHOOK_URL=sink.url)
        process.wait_for_line("sink webhook fails")
        process.signal(signal.SIGINT)
        process.wait_for_line("Ctrl-C ends it at once")
        process.signal(signal.SIGINT)
        assert process.wait(20) == 1
    assert table_of(process)["undelivered"] > 0
    assert process.output.splitlines()[-1] == "carpark run: stopped before everything was done"


def test_a_sink_that_gives_up_is_status_1(run: Callable[..., Process]) -> None:
    with Recorder() as sink:
        sink.status = 503
        env = {"CARPARK_WEBHOOK_URL": sink.url, "CARPARK_SINK_RETRIES": "0"}
        process = run("--events", "5", "--rate", "100", "--sinks", "webhook", **env)
        assert process.wait(60) == 1
    numbers = table_of(process)
    assert numbers["undelivered"] == numbers["summaries"] == numbers["dead"] > 0
    assert f"{numbers['summaries']} summaries are undelivered" in process.output
    assert "Failed to process" not in process.output, "one line for each dead letter is enough"


def test_a_sink_that_still_fails_is_not_waited_for_for_ever(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carpark.embedded.system.GRACE", 0.5)
    with Recorder() as sink:
        sink.status = 503
        monkeypatch.setenv("CARPARK_WEBHOOK_URL", sink.url)
        settings = make_settings(sinks="webhook", rate=100)
        with Embedded(settings, Plan(events=5)) as park:
            park.run(stop=_never())
            assert not park.finish(_never())
            report = park.report()
            assert report.undelivered == report.summaries > 0


def test_a_full_car_park_and_an_empty_one_are_said(run: Callable[..., Process]) -> None:
    process = run("--rate", "100", "--match-ratio", "0", "--capacity", "10", "--duration", "6")
    process.wait_for_line("entry camera waits: the car park is full: 10 inside, capacity 10")
    assert process.wait(30) == 0
    assert table_of(process)["inside"] == 10


def test_a_taken_port_and_a_taken_file_are_status_2(run: Callable[..., Process]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        process = run("--events", "5", CARPARK_WRITER_PORT=str(held.getsockname()[1]))
        assert process.wait(20) == 2
    assert "CARPARK_WRITER_PORT" in process.output
    holder = run("--rate", "1")
    holder.wait_for_line("appends to")
    process = run("--events", "5")
    assert process.wait(20) == 2
    assert "CARPARK_CSV" in process.output
    assert len(process.output.splitlines()) == 1


def _never() -> threading.Event:
    return threading.Event()


LATIN, CYRILLIC, ASCII = "iso-8859-1", "koi8-r", "ascii"


@pytest.mark.parametrize("encoding", [LATIN, CYRILLIC, ASCII])
def test_a_stream_that_lacks_our_marks_and_the_plates_gets_all_of_it(
    tmp_path: Path, processes: Processes, encoding: str
) -> None:
    plates = tmp_path / "plates.txt"
    plates.write_text("京A1234\nWÜ AB 12\nЖ123ДЯ\n", encoding="utf-8")
    environ = {
        **{f"CARPARK_{name}_PORT": "0" for name in ("WRITER", "METRICS", "DASHBOARD")},
        "CARPARK_CSV": str(tmp_path / "stays.csv"),
        "CARPARK_PLATES_FILE": str(plates),
        "PYTHONIOENCODING": encoding,
    }
    run = ["carpark", "run", "--plates", "file", "--sinks", "stdout,http-csv", "--events", "40", "--rate", "100"]
    ended = processes.start([*run, "--match-ratio", "1"], env=environ)
    assert ended.wait(60) == 0
    said = ended.log.read_text(encoding=encoding)
    assert len(re.findall("^published .* ok$|^recorded .* ok$", said, re.MULTILINE)) == 2
    shown = {row["vehicle_plate"] for line in said.splitlines() if line.startswith("{") for row in [json.loads(line)]}
    assert shown == {row["vehicle_plate"] for row in rows(tmp_path / "stays.csv")}
    assert "京A1234" in shown
    for options in ((), ("--json",)):
        verdict = processes.start(["carpark", "verify", *options], env=environ)
        assert verdict.wait(30) == 0
        assert "Traceback" not in verdict.output
    assert json.loads(verdict.output)["ok"]


@pytest.mark.parametrize("encoding", [LATIN, ASCII])
def test_the_live_view_and_the_tables_fit_a_terminal_that_lacks_their_lines(
    tmp_path: Path, processes: Processes, encoding: str
) -> None:
    environ = {
        **{f"CARPARK_{name}_PORT": "0" for name in ("WRITER", "METRICS", "DASHBOARD")},
        "CARPARK_CSV": str(tmp_path / "stays.csv"),
        "PYTHONIOENCODING": encoding,
        "TERM": "xterm",
        "CARPARK_BROKER_URL": "stub://",
        "CARPARK_REDIS_URL": "memory://",
        "COLUMNS": "60",
    }
    for command in (["run", "--duration", "2"], ["doctor"], ["plugins"], ["verify"]):
        script = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
        carpark = str(Path(sys.executable).with_name("carpark"))
        shown = processes.start(["python", "-c", script, carpark, *command], env=environ)
        assert shown.wait(60) in ((0, 1) if command == ["doctor"] else (0,))  # no writer runs
        said = shown.log.read_bytes()
        assert b"Traceback" not in said
        assert not re.search(rb"[\xe2][\x80-\x9f]", said), "UTF-8 where the terminal has another encoding"
