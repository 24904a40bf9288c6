"""``carpark forget`` as a user runs it, on a real Redis, with the audit after it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import redis

from carpark.ledger import CSV_LINES, Ledger
from carpark.records import Batch, Records, Settlement, open_records
from tests.support.audited import Day, stay
from tests.support.processes import RunHere
from tests.support.stays import at, entered


@pytest.fixture
def records(redis_url: str) -> Records:
    return open_records(redis_url, 172_800, ["http-csv", "webhook"])


def forgets(run_here: RunHere, *arguments: str, **environ: str) -> tuple[int, str]:
    ended = run_here(["forget", *arguments], environ)
    return ended.returncode, ended.stdout + ended.stderr


def test_it_forgets_a_plate_however_it_is_written_and_says_where_else_it_stands(
    run_here: RunHere, redis_url: str, store: redis.Redis, records: Records, tmp_path: Path
) -> None:
    day = Day(tmp_path)
    events = [*stay(0, "ÄB7"), *stay(1, "ÄB7"), *stay(2, "B2"), entered("in", "ÄB7", 30)]
    day.publish(events)
    records.record(events[:2])
    batch = records.outbox("http-csv").take(60)
    assert isinstance(batch, Batch)
    with Ledger(day.csv) as ledger:
        ledger.append([CSV_LINES.line(summary) for summary in batch.summaries])
    records.outbox("http-csv").settle(batch, Settlement(delivered=None))
    records.record(events[2:])
    day.csv.with_name(f"{day.csv.name}.run").mkdir()
    environ = {"CARPARK_REDIS_URL": redis_url, "CARPARK_CSV": str(day.csv), "CARPARK_SINKS": "http-csv,webhook,jsonl"}
    environ |= {"CARPARK_WEBHOOK_URL": "http://localhost:1", "CARPARK_SINK_JSONL": str(tmp_path / "none.jsonl")}
    status, said = forgets(run_here, "äb-7", **environ)
    assert status == 0
    first, *_ = said.splitlines()
    assert first == (
        f"ÄB7: forgotten; it was inside since {at(30)}, and its exit will be unmatched; "
        "3 summaries that a sink had not taken went with it"
    )
    assert f"sink http-csv: {day.csv}, 1 row with it" in said
    assert f"sink jsonl: {tmp_path / 'none.jsonl'}, not on this machine" in said
    assert "what the sink webhook gave it to" in said
    assert f"journals and dead letters of the last `carpark run`: {day.csv}.run" in said
    assert "carpark dlq list --match PLATE" in said
    assert store.keys("*B7") == []
    assert not store.exists("entry_plates")
    assert store.exists("B2")
    status, said = forgets(run_here, "ÄB7", "--json", **environ)
    assert (status, json.loads(said)["known"], json.loads(said)["inside"]) == (0, False, "")

    audit = [word for path in day.journals for word in ("--journal", str(path))]
    command = ["verify", *audit, "--csv", str(day.csv), "--redis-url", redis_url, "--sinks", "http-csv"]
    verdict = run_here(command)
    assert verdict.returncode == 0
    assert re.search(r"^forgotten +1  entries of vehicles that were inside when", verdict.stdout, re.MULTILINE)
    assert re.search(r"^forgotten, http-csv\n  plate [0-9a-f]{32}: ", verdict.stdout, re.MULTILINE)
    assert "ÄB7" not in verdict.stdout
    records.close()


@pytest.mark.parametrize(
    ("plate", "environ", "wanted"),
    [
        ("_-?", {}, "carpark: PLATE='_-?': wanted "),
        ("", {}, "carpark: PLATE='': wanted "),
        ("B1", {"CARPARK_REDIS_URL": "memory://"}, "carpark: CARPARK_REDIS_URL='memory://': wanted Redis"),
    ],
)
def test_a_wrong_command_is_one_line_and_status_2(
    run_here: RunHere, plate: str, environ: dict[str, str], wanted: str
) -> None:
    status, said = forgets(run_here, plate, **environ)
    assert status == 2
    assert said.startswith(wanted)
    assert said.count("\n") == 1


def test_a_redis_that_is_not_there_is_one_line_and_status_1(run_here: RunHere, free_port: int) -> None:
    status, said = forgets(run_here, "B1", CARPARK_REDIS_URL=f"redis://127.0.0.1:{free_port}/0")
    assert status == 1
    assert re.fullmatch(r"carpark: Redis: .*refused.*\n", said)
