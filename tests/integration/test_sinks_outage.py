"""Three sinks in use on real RabbitMQ and Redis, one of them away for a while: the others do not notice.

CARPARK_TEST_OUTAGE says for how many seconds; with -s the tests print how late the summaries were at the others.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.endpoint import Endpoint, Request
from tests.support.helpers import eventually
from tests.support.processes import WORKER_READY, Process, Processes
from tests.support.stores import undelivered

OUTAGE = float(os.environ.get("CARPARK_TEST_OUTAGE", "3"))
RATE = 20
START = datetime(2026, 11, 23, 18, tzinfo=UTC)


class Witness:
    """Knows when each summary reached the two sinks that are never away, and which the third one has.

    Args:
        folder: Where the files of the sinks are.
    """

    def __init__(self, folder: Path) -> None:
        self.csv, self.jsonl = folder / "summaries.csv", folder / "stays.jsonl"
        self.arrived: dict[str, dict[str, float]] = {"webhook": {}, "jsonl": {}}
        self.endpoint = Endpoint(self._take)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _take(self, request: Request) -> int:
        self.arrived["webhook"].setdefault(request.json["id"], time.monotonic())
        return 200

    def _watch(self) -> None:
        position = 0
        while not self._ended.wait(0.01):
            if not self.jsonl.exists():
                continue
            with self.jsonl.open("rb") as file:
                file.seek(position)
                for line in file:
                    if line.endswith(b"\n"):
                        position += len(line)
                        self.arrived["jsonl"].setdefault(json.loads(line)["id"], time.monotonic())

    def rows(self) -> Counter[str]:
        """Count the ids in the writer's file."""
        with self.csv.open(newline="", encoding="utf-8") as file:
            return Counter(row["id"] for row in csv.DictReader(file))

    def lines(self) -> Counter[str]:
        """Count the ids in the file of JSON lines."""
        return Counter(json.loads(line)["id"] for line in self.jsonl.read_text(encoding="utf-8").splitlines())

    def close(self) -> None:
        """Stop looking."""
        self._ended.set()
        self._thread.join()
        self.endpoint.close()


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Witness]:
    witness = Witness(tmp_path)
    yield witness
    witness.close()


def _publish(channel: Any, name: str, seconds: float) -> dict[str, float]:
    """Publish stays at an even rate; give each one's id and when its exit was sent."""
    sent: dict[str, float] = {}
    began = time.monotonic()
    for number in range(int(seconds * RATE)):
        time.sleep(max(0.0, began + number / RATE - time.monotonic()))
        id_, plate, entered = f"{name}/{number}", f"{name} {number}", START + timedelta(seconds=number)
        entry = {"id": id_, "vehicle_plate": plate, "entry_date_time": entered.isoformat()}
        exit_ = {"id": id_, "vehicle_plate": plate, "exit_date_time": (entered + timedelta(hours=1)).isoformat()}
        channel.basic_publish("", "vehicle_entry", json.dumps(entry).encode())
        channel.basic_publish("", "vehicle_exit", json.dumps(exit_).encode())
        sent[id_] = time.monotonic()
    return sent


Return = Callable[[], object]


def _kill(writer: Process, start: Return) -> Return:
    """Connections are refused, until it is started again."""
    writer.kill()
    return start


def _freeze(writer: Process, start: Return) -> Return:
    """Connections are taken, and nobody answers."""
    writer.signal(signal.SIGSTOP)
    return lambda: writer.signal(signal.SIGCONT)


def _say_lateness(witness: Witness, **phases: dict[str, float]) -> None:
    for name, arrived in witness.arrived.items():
        for phase, sent in phases.items():
            late = sorted(1000 * (arrived[id_] - at) for id_, at in sent.items())
            middle, most = late[len(late) // 2], late[-1]
            print(
                f"{name}, {phase}: {len(late)} summaries; median {middle:.0f} ms, "
                f"95 % {late[int(len(late) * 0.95)]:.0f} ms, latest {most:.0f} ms"
            )


@pytest.mark.parametrize("make_go", [_kill, _freeze])
def test_a_sink_that_is_away_makes_no_other_wait_and_gets_everything_in_the_end(
    make_go: Callable[[Process, Return], Return],
    processes: Processes,
    server_environ: dict[str, str],
    channel: Any,
    store: redis.Redis,
    free_port: int,
    witness: Witness,
) -> None:
    environ = {
        **server_environ,
        "CARPARK_WRITER_PORT": str(free_port),
        "CARPARK_SINKS": "http-csv,webhook,jsonl",
        "CARPARK_WRITER_URL": f"http://127.0.0.1:{free_port}",
        "CARPARK_WEBHOOK_URL": witness.endpoint.url,
        "CARPARK_SINK_JSONL": str(witness.jsonl),
        "CARPARK_SINK_TIMEOUT": "300",  # longer than anybody waits: what hangs, hangs until it comes back
    }

    def start_writer() -> Process:
        writer = processes.start(["python", "-m", "writer"], env=environ)
        writer.wait_for_line("appends to")
        return writer

    def others_have(sent: dict[str, float]) -> bool:
        return all(sent.keys() <= arrived.keys() for arrived in witness.arrived.values())

    writer = start_writer()
    worker = processes.start(["dramatiq", "carpark.actors", "--processes", "2"], env=environ)
    worker.wait_for_line(WORKER_READY)
    calm = _publish(channel, "calm", OUTAGE)
    eventually(lambda: others_have(calm) and witness.rows().keys() == calm.keys(), 30)

    come_back = make_go(writer, start_writer)
    away = _publish(channel, "away", OUTAGE)
    eventually(lambda: others_have(away), 30, "the two other sinks have all of them")
    assert witness.rows().keys() == calm.keys(), "the sink that was away has none of them"

    come_back()
    back = time.monotonic()
    after = _publish(channel, "after", 0.5)
    everything = dict.fromkeys([*calm, *away, *after], 1)
    eventually(lambda: witness.rows().keys() == everything.keys(), 60 + 2 * OUTAGE)
    eventually(lambda: undelivered(store) == 0)
    print(f"\nall delivered {time.monotonic() - back:.1f} s after it came back")
    _say_lateness(witness, before=calm, meanwhile=away)
    assert witness.rows() == witness.lines() == everything
    assert witness.arrived["webhook"].keys() == everything.keys()
    assert channel.queue_declare("carpark_work.XQ", passive=True).method.message_count == 0
