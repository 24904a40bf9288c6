"""All services, each its own process, on real RabbitMQ and Redis; and another program's events among ours."""

from __future__ import annotations

import csv
import json
import random
from collections import Counter
from pathlib import Path

import pika
import pytest
import redis

from tests.support.garbage import GARBAGE
from tests.support.helpers import eventually
from tests.support.processes import WORKER_READY, Processes
from tests.support.stays import at
from tests.support.stores import undelivered
from tests.support.writer_service import READY as WRITER_READY

STAYS = 1_000
PIECES = 200


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def events_of_another_program() -> list[tuple[str, bytes]]:
    """Bare events, one entry and one exit of each of so many vehicles, as a script in any language would write them."""
    messages = []
    for number in range(STAYS):
        entry = {"id": f"in-{number}", "vehicle_plate": f"ab-{number:04} ä", "entry_date_time": at(number)}
        exit_ = {"id": f"out-{number}", "vehicle_plate": f"AB {number:04}Ä", "exit_date_time": at(10_000_000 + number)}
        messages += [("vehicle_entry", json.dumps(entry).encode()), ("vehicle_exit", json.dumps(exit_).encode())]
    return messages


def garbage() -> list[tuple[str, bytes]]:
    """So many bodies that are no events of their queue: GARBAGE is written for the queue of entries."""
    bodies = list(GARBAGE.values())
    return [("vehicle_entry", bodies[number % len(bodies)]) for number in range(PIECES - 20)] + [
        ("vehicle_exit", b'{"id": "no time", "vehicle_plate": "X1"}') for _ in range(20)
    ]


@pytest.mark.timeout(180)
def test_six_services_and_another_program(
    processes: Processes, server_environ: dict[str, str], redis_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "summaries.csv"
    once = processes.start(["carpark", "queues", "--once"], env=server_environ)
    assert once.wait() == 0
    writer = processes.start(["carpark", "writer"], env=server_environ)
    environ = {**server_environ, "CARPARK_WRITER_URL": writer.wait_for_line(WRITER_READY)[1]}
    worker = processes.start(["dramatiq", "carpark.actors", "--processes", "2", "--threads", "4"], env=environ)
    worker.wait_for_line(WORKER_READY)

    messages = events_of_another_program() * 2 + garbage()
    random.shuffle(messages)
    with pika.BlockingConnection(pika.URLParameters(environ["CARPARK_BROKER_URL"])) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        for queue, body in messages:
            channel.basic_publish("", queue, body, mandatory=True)

        def dead() -> int:
            channel = connection.channel()
            names = ("vehicle_entry.XQ", "vehicle_exit.XQ", "carpark_work.XQ")
            count = sum(channel.queue_declare(name, passive=True).method.message_count for name in names)
            channel.close()
            return count

        eventually(lambda: dead() == PIECES, 60, "all garbage is dead-lettered")
    with redis.Redis.from_url(redis_url, decode_responses=True) as store:
        eventually(lambda: store.scard("entry_plates") == 0 and undelivered(store) == 0, 60)

        def counts() -> Counter[str]:
            counted = Counter({name: int(value) for name, value in store.hgetall("carpark:counts").items()})
            assert counted["summaries"] == STAYS
            assert counted["entry/duplicate"] + counted["exit/duplicate"] >= 2 * STAYS
            return counted

        eventually(counts, 60)  # what is left in hand may be nothing but repeats
        assert store.hget("AB0007Ä", "entry_time") == at(7)
        assert json.loads(store.hget("AB0007Ä", "parking_enter_data") or "")["id"] == "in-7"
        assert json.loads(store.hget("AB0007Ä", "parking_exit_data") or "")["id"] == "out-7"
        named = [key for key in store.keys("*") if ":" in key]
        assert len(named) <= 6, "a handful of keys, never one per event"
    written = rows(path)
    assert Counter(row["id"] for row in written) == Counter(f"out-{number}" for number in range(STAYS))
    assert {row["vehicle_plate"] for row in written} == {f"AB{number:04}Ä" for number in range(STAYS)}
    assert {float(row["duration"]) for row in written} == {10.0}

    cameras = [
        processes.start(["carpark", "generate", kind, "--events", "200", "--rate", "200"], env=environ)
        for kind in ("entry", "exit")
    ]
    for camera in cameras:
        assert camera.wait(60) == 0
    eventually(lambda: len(rows(path)) == STAYS + 160, 30, "four in five exits became a row")
    assert len({row["id"] for row in rows(path)}) == STAYS + 160
    for process in (worker, writer):
        assert process.terminate() == 0
