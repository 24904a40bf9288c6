"""``carpark verify`` as a user runs it."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from carpark.broker.stub import StoredMessage
from carpark.errors import InvalidSetting
from carpark.ops.audit import LastRun
from tests.support.audited import Day, stay, summaries_of, write_csv, write_lines
from tests.support.processes import RunHere
from tests.support.stays import at

STAYS = 50_000

Verify = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def day(tmp_path: Path) -> Day:
    return Day(tmp_path)


@pytest.fixture
def verify(run_here: RunHere) -> Verify:
    def verify(*arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
        return run_here(["verify", *map(str, arguments)], {"COLUMNS": "200", **environ})

    return verify


def of(day: Day) -> list[object]:
    return [word for path in day.journals for word in ("--journal", path)] + ["--csv", day.csv]


@pytest.mark.slow
def test_one_loss_and_one_duplicate_in_a_hundred_thousand_events_are_found(verify: Verify, day: Day) -> None:
    ids = [str(uuid.uuid4()) for _ in range(STAYS)]
    lines = ["id,vehicle_plate,entry_date_time,exit_date_time,duration"]
    with day.journals[0].open("w") as entries, day.journals[1].open("w") as exits:
        for number, id_ in enumerate(ids):
            plate, entered, left = f"P{number:06}", at(10 * number), at(10 * number + 7)
            entries.write(f'{{"id":"{id_}","vehicle_plate":"{plate}","entry_date_time":"{entered}"}}\n')
            exits.write(f'{{"id":"{id_}","vehicle_plate":"{plate}","exit_date_time":"{left}"}}\n')
            lines.append(f"{id_},{plate},{entered},{left},0.000007")
    lost, doubled = random.sample(range(1, STAYS + 1), 2)
    rows = [line for number, line in enumerate([*lines, lines[doubled]]) if number != lost]
    day.csv.write_text("".join(f"{line}\r\n" for line in rows), newline="")
    said = verify(*of(day), "--show", 5)
    assert said.returncode == 1, said.stderr
    assert said.stderr == ""
    assert said.stdout.splitlines()[-1] == "1 lost, 1 duplicated, 0 unexpected"
    assert f"id {ids[lost - 1]}" in said.stdout.partition("lost, http-csv")[2].splitlines()[1]
    assert f"id {ids[doubled - 1]}" in said.stdout.partition("duplicated, http-csv")[2].splitlines()[1]
    found = json.loads(verify(*of(day), "--json", "--show", 0).stdout)
    assert (found["ok"], found["lost"], found["duplicated"], found["unexpected"]) == (False, 1, 1, 0)
    assert found["published"] == 2 * STAYS
    assert all(each["right"] for each in found["sums"])


def test_what_became_of_each_event_is_written_down_if_asked(verify: Verify, day: Day) -> None:
    day.publish([*stay(0), *stay(1)[:1]], unconfirmed=stay(2)[1:])
    day.summarise(summaries_of(stay(0)))
    each = day.folder / "each.jsonl"
    assert verify(*of(day), "--each", each).returncode == 0
    lines = [json.loads(line) for line in each.read_text(encoding="utf-8").splitlines()]
    assert {(line["event"], line["id"]): line["became"] for line in lines} == {
        ("entry", "e0"): "matched",
        ("exit", "x0"): "matched",
        ("entry", "e1"): "inside",
        ("exit", "x2"): "pending",
    }


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--csv", "nowhere.csv"], "nowhere.csv"),
        (["--journal", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--redis-url", "memory://"], "in another process"),
        (["--broker-url", "http://x"], "amqp://"),
        (["--since", "yesterday"], "--since='yesterday': wanted an RFC 3339 date-time"),
        (["--sinks", "stdout"], "a sink that can be read back"),
        (["--show", "-1"], "--show"),
        (["--csv", "x" * 256], "file name too long"),
        (["--csv", "."], "a file name"),
        (["--journal", "x" * 256], "file name too long"),
        (["--each", "x" * 256], "file name too long"),
        (["--sinks", "sqlite", "--sink-sqlite", "x" * 256], "a file that is there and may be read"),
    ],
)
def test_a_wrong_command_is_one_line_and_status_2(verify: Verify, day: Day, arguments: list[str], wanted: str) -> None:
    day.publish([])
    day.summarise([])
    given = [] if arguments[0] == "--csv" else of(day)
    said = verify(*given, *arguments)
    assert said.returncode == 2
    assert said.stdout == ""
    assert len(said.stderr.splitlines()) == 1
    assert wanted in said.stderr


@pytest.fixture
def last_run(day: Day) -> Day:
    """A run that ended well, with two sinks; then the second one lost a row."""
    day.publish([*stay(0), *stay(1)])
    day.summarise(summaries_of([*stay(0), *stay(1)]))
    lines = day.folder / "stays.jsonl"
    write_lines(lines, summaries_of(stay(0)))
    folder = day.csv.with_name(f"{day.csv.name}.run")
    folder.mkdir()
    for journal in day.journals:
        journal.rename(folder / journal.name)
    environ = {"SINKS": "http-csv,jsonl", "CSV": str(day.csv), "SINK_JSONL": str(lines)}
    LastRun(folder, at(0), {f"CARPARK_{name}": text for name, text in environ.items()}).save()
    return day


@pytest.mark.parametrize(
    ("arguments", "status", "lost"),
    [
        ([], 1, {"http-csv": 0, "jsonl": 1}),
        (["--sinks", "http-csv"], 0, {"http-csv": 0}),
        (["--sinks", "http-csv,stdout"], 0, {"http-csv": 0}),
        (["--sinks", "jsonl"], 1, {"jsonl": 1}),
        (["--sinks", "jsonl,http-csv"], 1, {"jsonl": 1, "http-csv": 0}),
    ],
)
def test_the_named_sinks_of_the_last_run_are_audited(
    verify: Verify, last_run: Day, arguments: list[str], status: int, lost: dict[str, int]
) -> None:
    said = verify("--csv", last_run.csv, "--json", *arguments)
    assert said.returncode == status, said.stderr
    assert {name: sink["lost"] for name, sink in json.loads(said.stdout)["sinks"].items()} == lost


def test_the_environments_settings_leave_the_last_run_as_it_was(verify: Verify, last_run: Day) -> None:
    environ = {"CARPARK_SINKS": "sqlite", "CARPARK_REDIS_URL": "redis://127.0.0.1:1", "CARPARK_RETENTION": "60"}
    said = verify("--csv", last_run.csv, "--json", **environ)
    assert list(json.loads(said.stdout)["sinks"]) == ["http-csv", "jsonl"]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--redis-url", "redis://127.0.0.1:1"], "carpark verify: --redis-url goes with --journal, which names"),
        (["--broker-url", "amqp://127.0.0.1:1"], "--broker-url goes with --journal"),
        (["--since", "2026-11-23T18:00:00Z"], "--since goes with --journal"),
        (["--sink-jsonl", "other.jsonl"], "--sink-jsonl goes with --journal"),
        (["--retention", "60"], "--retention goes with --journal"),
        (["--management-url", "http://127.0.0.1:1"], "--management-url goes with --journal"),
        (["--sinks", "sqlite"], "--sinks='sqlite': wanted a sink of the last `carpark run` that can be read back: "),
        (["--sinks", "stdout"], "'stdout': wanted a sink that can be read back"),
    ],
)
def test_what_cannot_be_looked_at_without_journals_is_refused(
    verify: Verify, last_run: Day, arguments: list[str], wanted: str
) -> None:
    said = verify("--csv", last_run.csv, *arguments)
    assert (said.returncode, said.stdout) == (2, "")
    assert len(said.stderr.splitlines()) == 1
    assert wanted in said.stderr


@pytest.mark.parametrize("name", ["summaries.csv", "copy.csv"])
def test_a_copy_of_the_last_run_is_audited_and_not_the_run(
    verify: Verify, last_run: Day, tmp_path: Path, name: str
) -> None:
    write_lines(last_run.folder / "stays.jsonl", summaries_of([*stay(0), *stay(1)]))
    copy = tmp_path / "copies" / name
    shutil.copytree(last_run.folder, copy.parent)
    (copy.parent / last_run.csv.name).rename(copy)
    (copy.parent / f"{last_run.csv.name}.run").rename(copy.with_name(f"{name}.run"))
    write_csv(copy, summaries_of(stay(0)))
    write_lines(copy.with_name("stays.jsonl"), [])
    assert verify("--csv", last_run.csv).returncode == 0
    said = verify("--csv", copy)
    assert (said.returncode, said.stderr) == (1, "")
    assert f"rows in {copy}" in said.stdout
    assert f"rows in {copy.with_name('stays.jsonl')}" in said.stdout
    found = json.loads(verify("--csv", copy, "--json").stdout)
    assert {sink: of["lost"] for sink, of in found["sinks"].items()} == {"http-csv": 1, "jsonl": 2}


def test_a_copy_of_the_file_alone_is_no_run(verify: Verify, last_run: Day) -> None:
    copy = last_run.folder / "copy.csv"
    shutil.copy(last_run.csv, copy)
    said = verify("--csv", copy)
    assert (said.returncode, said.stdout) == (2, "")
    assert "wanted the CSV of an earlier `carpark run`; or name what was published with --journal" in said.stderr


@pytest.mark.parametrize(
    ("sinks", "flag", "names"),
    [
        ("jsonl", "--csv", "jsonl"),
        ("jsonl,stdout", "--csv", "jsonl"),
        ("http-csv", "--sink-jsonl", "http-csv"),
        ("http-csv,jsonl", "--sink-sqlite", "http-csv, jsonl"),
    ],
)
def test_a_file_of_no_sink_that_is_audited_is_refused(
    verify: Verify, day: Day, sinks: str, flag: str, names: str
) -> None:
    day.publish(stay(0))
    day.summarise(summaries_of(stay(0)))
    lines = day.folder / "stays.jsonl"
    write_lines(lines, summaries_of(stay(0)))
    journals = [word for path in day.journals for word in ("--journal", path)]
    environ = {"CARPARK_SINKS": sinks, "CARPARK_SINK_JSONL": str(lines), "CARPARK_CSV": str(day.csv)}
    assert verify(*journals, **environ).returncode == 0
    said = verify(*journals, flag, day.folder / "copy", **environ)
    assert (said.returncode, said.stdout) == (2, "")
    assert f"carpark verify: {flag} is of no sink that would be audited ({names}); name the one" in said.stderr
    assert len(said.stderr.splitlines()) == 1


@pytest.mark.slow
def test_dead_letters_of_a_run_are_kept_as_they_are(tmp_path: Path) -> None:
    run = LastRun(tmp_path, at(0), {})
    assert not run.has_ended
    letters = [
        ("vehicle_entry.XQ", StoredMessage(bytes(range(256)), {"x-carpark-error": "it is 'no' JSON"})),
        ("carpark_work.XQ", StoredMessage("ঢাকা".encode(), {})),
    ]
    assert run.keep(letters) == 2
    assert run.letters() == letters
    assert run.has_ended
    assert run.sources({}).messages == [(queue, letter.body) for queue, letter in letters]
    assert (tmp_path / "dead-letters.jsonl").stat().st_mode & 0o007 == 0, "plates are nobody else's"
    (tmp_path / "dead-letters.jsonl").write_text('{"queue": 1}\n', encoding="utf-8")
    with pytest.raises(InvalidSetting, match=r"the file of dead letters=.*dead letters that can be read"):
        run.letters()


def test_servers_that_are_not_there_are_one_line_and_status_1(verify: Verify, day: Day, free_port: int) -> None:
    day.publish([])
    day.summarise([])
    for flag, url in (
        ("--redis-url", f"redis://127.0.0.1:{free_port}/0"),
        ("--broker-url", f"amqp://127.0.0.1:{free_port}"),
    ):
        said = verify(*of(day), flag, url)
        assert said.returncode == 1
        assert len(said.stderr.splitlines()) == 1
        assert "connection refused" in said.stderr.lower()


def test_the_table_fits_a_terminal(verify: Verify, day: Day) -> None:
    day.publish(stay(0))
    day.summarise(summaries_of(stay(0)))
    said = verify(*of(day), COLUMNS="80")
    assert said.returncode == 0
    table = said.stdout.partition("\n\n")[0].splitlines()
    assert [line for line in table if len(line.rstrip()) > 80] == []
