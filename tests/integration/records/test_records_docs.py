"""docs/reference/records.md shows what is so: its session is typed into a real Redis, its tables name all there is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from carpark.domain.events import VehicleEntered, VehicleExited
from carpark.records import Batch, Outcome, Settlement
from carpark.records.connection import connect
from carpark.records.redis import RedisRecords
from tests.support.stays import entered, exited
from tests.support.stores import Clock

PAGE = (Path(__file__).parents[3] / "docs/reference/records.md").read_text(encoding="utf-8")


def printed(answer: Any) -> list[str]:
    """Write an answer as redis-cli does when nobody looks: an element a line."""
    if isinstance(answer, dict):
        return [str(part) for pair in answer.items() for part in pair]
    if isinstance(answer, list | set):
        return [str(part) for part in answer]
    return [str(int(answer) if isinstance(answer, bool) else answer)]


def test_the_session_shows_what_redis_answers(redis_url: str) -> None:
    client: Any = connect(redis_url)
    stay: dict[str, Any] = {"vehicle_plate": "C456"}
    RedisRecords(client, 172_800, ["http-csv"]).record(
        [
            VehicleEntered.parse(
                {"id": "e-1", "vehicle_plate": "B123", "entry_date_time": "2026-11-23T18:00:00Z", "lane": 2}
            ),
            VehicleEntered.parse({"id": "e-2", **stay, "entry_date_time": "2026-11-23T18:10:00Z"}),
            VehicleExited.parse({"id": "x-2", **stay, "exit_date_time": "2026-11-23T18:30:00.25Z"}),
        ]
    )
    session = PAGE.split("```console\n")[1].split("```")[0]
    commands = [part.splitlines() for part in session.split("$ redis-cli ")[1:]]
    assert len(commands) == 9
    for command, *answer in commands:
        # The order of a hash, a set and of KEYS is Redis' own affair.
        assert sorted(printed(client.execute_command(*shlex.split(command)))) == sorted(answer), command
    client.close()


def test_every_key_field_count_and_state_is_explained(redis_url: str) -> None:
    client: Any = connect(redis_url)
    clock = Clock()
    records = RedisRecords(client, 172_800, ["http-csv"], clock)
    for n in range(4):
        records.record([entered(f"e{n}", "C1", n), exited(f"x{n}", "C1", n)])
    outbox = records.outbox("http-csv")
    batch = outbox.take(100)
    assert isinstance(batch, Batch)
    outbox.settle(batch, Settlement(["x0"], ["x1"], {"x2": 1.0}, error="it failed", delay=1.0))
    clock.now += 2
    assert isinstance(outbox.take(100), Batch)
    records.record([entered("e9", "C1", 9), exited("x9", "C1", 9)])
    events = [entered(f"e{n}", "B1", n) for n in range(10, 22)]
    assert records.record(events + events)[0].outcome is Outcome.RECORDED
    waiting = [exited(f"x{n}", "A1", n) for n in range(10, 22)]
    records.record([*waiting, *waiting, entered("a", "A1", 15), exited("b", "B1", 20)])
    for kind in ("entry", "exit"):
        records.reject(kind)
    records.record([entered("f", "F1", 1), exited("f", "F1", 2), entered("g", "F1", 3)])
    records.forget("F1")

    names = {key.replace(":http-csv", ":<sink>") for key in client.scan_iter() if key not in ("A1", "B1", "C1")}
    names |= {field.split(" ")[0] for plate in ("A1", "B1", "C1") for field in client.hkeys(plate)}
    names |= set(client.hkeys("carpark:relay:http-csv"))
    counts = {re.sub("/http-csv/", "/<sink>/", name) for name in records.counts()}
    client.close()
    assert len(counts) == 18
    text = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
    explained = set(re.findall(r"`([^`]+)`", text)) | {"summaries/<sink>/retried", "summaries/<sink>/failed"}
    explained |= {name.split(" ")[0] for name in explained}
    assert names | counts <= explained
    assert "`…/retried`, `…/failed`" in PAGE
