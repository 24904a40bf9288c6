"""Both generators as real processes, on real RabbitMQ and Redis."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis
import requests

from carpark.domain.events import EVENT_OF_QUEUE
from carpark.rabbitmq.topology import declare_queues, queue_arguments
from carpark.records.connection import connect
from carpark.records.redis import RedisRecords
from tests.support.generating import Wire, confirmed_in, entered, events_of, numbered
from tests.support.helpers import eventually, find_free_port
from tests.support.processes import Process, Processes

PAST = "2026-01-01T00:00:00.000000Z"


@pytest.fixture
def wire(broker_url: str) -> Iterator[Wire]:
    wire = Wire(broker_url)
    yield wire
    wire.close()


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    client = connect(redis_url)
    yield client
    client.close()


@pytest.fixture
def start(processes: Processes, server_environ: dict[str, str]) -> Any:
    """Start a generator: `start("entry", "--rate", 100)`."""

    def start(kind: str, *arguments: object, **environ: str) -> Process:
        argv = ["python", "-m", "generators", kind, *map(str, arguments)]
        return processes.start(argv, env={"CARPARK_CAPACITY": "0", **server_environ, **environ}, name=kind)

    return start


def fill(client: redis.Redis, plates: list[str]) -> None:
    RedisRecords(client, 3600, []).record([entered(plate, PAST) for plate in plates])


def plates(events: list[dict[str, Any]]) -> list[str]:
    return [event["vehicle_plate"] for event in events]


def test_what_is_sent_is_a_dramatiq_message_of_the_bare_event(start: Any, wire: Wire, tmp_path: Path) -> None:
    journal = tmp_path / "entries.jsonl"
    generator = start("entry", "--events", 50, "--rate", 1000, "--journal", journal)
    assert generator.wait() == 0
    messages = wire.drain("vehicle_entry")
    assert [message["kwargs"] for message in messages] == events_of(journal)
    assert {message["actor_name"] for message in messages} == {message["queue_name"] for message in messages}
    assert {message["actor_name"] for message in messages} == {"vehicle_entry"}
    assert all(message["args"] == [] and message["options"] == {} for message in messages)
    assert confirmed_in(journal) == 50
    assert "entry generator: 50 published" in generator.output.splitlines()[-1]


def test_a_missing_queue_is_declared_as_the_backend_declares_it(start: Any, wire: Wire) -> None:
    generator = start("entry", "--events", 1)
    assert generator.wait() == 0
    assert "queue vehicle_entry was missing, or not bound to vehicle_events; declared it" in generator.output
    for name in ("vehicle_entry", "vehicle_entry.DQ", "vehicle_entry.XQ"):
        wire.channel.queue_declare(name, durable=True, arguments=queue_arguments(name))


def test_a_queue_that_cannot_be_declared_is_one_clear_line(start: Any, wire: Wire) -> None:
    wire.channel.queue_declare("vehicle_entry.DQ", durable=False)
    generator = start("entry", "--events", 1)
    assert generator.wait() == 2
    assert "queue 'vehicle_entry.DQ' exists with other arguments" in generator.output.splitlines()[-1]
    assert "Traceback" not in generator.output


def test_two_exit_generators_let_every_vehicle_leave_once(
    start: Any, wire: Wire, client: redis.Redis, tmp_path: Path
) -> None:
    fill(client, numbered(1000))
    pair = [start("exit", "--match-ratio", 1, "--rate", 100_000, "--events", 500) for _ in range(2)]
    assert [generator.wait() for generator in pair] == [0, 0]
    # The first window meets a missing queue, so a part of it may have been sent twice, with the same ids.
    gone = {message["kwargs"]["id"]: message["kwargs"]["vehicle_plate"] for message in wire.drain("vehicle_exit")}
    assert sorted(gone.values()) == numbered(1000)


def test_two_entry_generators_of_one_seed_never_let_a_plate_in_twice(start: Any, wire: Wire) -> None:
    pair = [start("entry", "--seed", 7, "--rate", 100_000, "--events", 500) for _ in range(2)]
    assert [generator.wait() for generator in pair] == [0, 0]
    # Here, too, a part of the first window may have been sent twice, with the same ids.
    inside = {message["kwargs"]["id"]: message["kwargs"]["vehicle_plate"] for message in wire.drain("vehicle_entry")}
    assert len(inside) == len(set(inside.values())) == 1000


def test_over_a_thousand_exits_eight_in_ten_are_of_a_vehicle_inside(
    start: Any, client: redis.Redis, tmp_path: Path
) -> None:
    fill(client, numbered(900))
    journal = tmp_path / "exits.jsonl"
    assert start("exit", "--events", 1000, "--rate", 100_000, "--journal", journal).wait() == 0
    gone = plates(events_of(journal))
    assert len(set(gone) & set(numbered(900))) == 800
    assert len(set(gone)) == 1000


def test_a_seed_repeats_the_plates(start: Any, client: redis.Redis, tmp_path: Path) -> None:
    def day(kind: str, number: int) -> list[str]:
        client.flushall()
        fill(client, numbered(50))
        journal = tmp_path / f"{kind}-{number}.jsonl"
        assert start(kind, "--seed", 7, "--events", 50, "--rate", 1000, "--journal", journal).wait() == 0
        # Who leaves is drawn by Redis; which exits are unmatched, and their plates, are the seed's.
        return [plate if plate not in numbered(50) else "" for plate in plates(events_of(journal))]

    assert day("entry", 1) == day("entry", 2)
    assert day("exit", 1) == day("exit", 2)


def test_a_full_car_park_is_said_once_and_the_generator_waits(start: Any, wire: Wire) -> None:
    generator = start("entry", "--capacity", 5, "--rate", 1000)
    generator.wait_for_line(r"^entry camera waits: the car park is full: 0 inside and 5 on their way in, capacity 5$")
    eventually(lambda: wire.count("vehicle_entry") == 5)
    assert generator.terminate() == 0
    assert generator.output.count("entry camera waits: the car park is full") == 1


def test_an_exit_generator_waits_for_somebody_to_be_inside(start: Any, wire: Wire, client: redis.Redis) -> None:
    generator = start("exit", "--match-ratio", 1, "--events", 3)
    generator.wait_for_line("^exit camera waits: nobody is inside$")
    fill(client, ["A", "B", "C"])
    assert generator.wait() == 0
    assert sorted(message["kwargs"]["vehicle_plate"] for message in wire.drain("vehicle_exit")) == ["A", "B", "C"]


def test_a_plate_leaves_after_it_entered_and_enters_after_it_left(
    start: Any, wire: Wire, client: redis.Redis, tmp_path: Path
) -> None:
    (tmp_path / "few_plates.py").write_text(
        "from carpark.plugins import PlatesType, hookimpl\n"
        "from tests.support.generating import ListPlates, numbered\n"
        "@hookimpl\n"
        "def carpark_register_plates():\n"
        "    return [PlatesType('few', lambda context, chance: ListPlates(numbered(5)))]\n"
    )
    environ = {"PYTHONPATH": f"{tmp_path}:.", "CARPARK_PLUGINS": "few_plates", "CARPARK_PLATES": "few"}
    journals = {kind: tmp_path / f"{kind}.jsonl" for kind in ("entry", "exit")}
    pair = [
        start("entry", "--rate", 500, "--events", 200, "--journal", journals["entry"], **environ),
        start("exit", "--rate", 500, "--events", 200, "--match-ratio", 1, "--journal", journals["exit"], **environ),
    ]
    records = RedisRecords(client, 3600, [])
    declare_queues(wire.channel)

    def work() -> bool:
        for queue, event_type in EVENT_OF_QUEUE.items():
            records.record([event_type.parse(message["kwargs"]) for message in wire.drain(queue)])
        return all(generator.status is not None for generator in pair)

    eventually(work, 60, interval=0.005)
    assert [generator.wait() for generator in pair] == [0, 0]
    by_time = sorted(
        [(event["entry_date_time"], "in", event["vehicle_plate"]) for event in events_of(journals["entry"])]
        + [(event["exit_date_time"], "out", event["vehicle_plate"]) for event in events_of(journals["exit"])]
    )
    for plate in numbered(5):
        steps = [step for _, step, of in by_time if of == plate]
        assert steps == ["in", "out"] * (len(steps) // 2)
    work()
    assert records.counts()["exit/matched"] == 200


@pytest.mark.parametrize("kind", ["entry", "exit"])
def test_a_journal_goes_on_in_time_when_the_clock_was_set_back_meanwhile(
    start: Any, wire: Wire, tmp_path: Path, kind: str
) -> None:
    journal = tmp_path / "journal.jsonl"
    options = ("--rate", 1000, "--journal", journal, *(("--match-ratio", 0) if kind == "exit" else ()))
    assert start(kind, "--events", 20, *options).wait() == 0
    year = datetime.now(UTC).year
    # The same file as one whose first half was written by a clock that was a year ahead.
    journal.write_text(journal.read_text(encoding="utf-8").replace(f'"{year}-', f'"{year + 1}-'), encoding="utf-8")
    second = start(kind, "--events", 50, *options)
    assert second.wait() == 0
    times = [event[f"{kind}_date_time"] for event in events_of(journal)]
    assert len(times) == 50
    assert times == sorted(set(times))
    assert f"{kind} generator: the clock is behind the journal's last event: times go on from {times[19]}" in (
        second.output.splitlines()
    )


def test_a_second_generator_on_the_same_journal_is_refused(start: Any, wire: Wire, tmp_path: Path) -> None:
    journal = tmp_path / "entries.jsonl"
    start("entry", "--journal", journal).wait_for_line("metrics at")
    second = start("entry", "--journal", journal)
    assert second.wait() == 2
    assert second.output.count("\n") == 1
    assert "--journal=" in second.output
    assert "another process is writing this file" in second.output


def test_the_metrics_page_counts_what_was_published(start: Any, client: redis.Redis) -> None:
    fill(client, numbered(100))
    generator = start("exit", "--rate", 1000, "--match-ratio", "0.5")
    url = generator.wait_for_line(r"metrics at (http://127.0.0.1:\d+/metrics)")[1]

    def value(name: str) -> float:
        page = requests.get(url, timeout=5).text
        return next((float(line.split()[-1]) for line in page.splitlines() if line.startswith(name)), 0.0)

    matched = 'vehicle_exit_events_total{outcome="published",plate="matched"}'
    unmatched = 'vehicle_exit_events_total{outcome="published",plate="unmatched"}'
    eventually(lambda: value(matched) == 100, 20)
    assert 99 <= value(unmatched) <= 110
    eventually(lambda: value("vehicle_exit_publish_seconds_count") == value(matched) + value(unmatched))
    assert generator.terminate() == 0


def test_a_taken_metrics_port_is_one_line(start: Any) -> None:
    port = find_free_port()
    start("entry", "--metrics-port", port).wait_for_line(f":{port}/metrics")
    second = start("entry", "--metrics-port", port)
    assert second.wait() == 2
    assert second.output.strip().endswith("is already in use; choose another port, or 0 for a free one")
    assert f"CARPARK_METRICS_PORT: 127.0.0.1:{port}" in second.output


def test_a_wrong_password_is_one_line_at_once(start: Any, broker_url: str) -> None:
    scheme, _, rest = broker_url.partition("//")
    wrong = f"{scheme}//nobody:secret@{rest.rpartition('@')[2]}"
    generator = start("entry", CARPARK_BROKER_URL=wrong)
    assert generator.wait() == 2
    assert "refuses the user or the password; check both in CARPARK_BROKER_URL" in generator.output.splitlines()[-1]
    assert "secret" not in generator.output
    assert "Traceback" not in generator.output


@pytest.mark.parametrize(("variable", "url"), [("CARPARK_BROKER_URL", "stub://"), ("CARPARK_REDIS_URL", "memory://")])
def test_a_service_refuses_what_lives_in_one_process(processes: Processes, variable: str, url: str) -> None:
    generator = processes.start(["python", "-m", "generators", "exit"], env={variable: url})
    assert generator.wait() == 2
    assert generator.output.startswith(f"python -m generators: {variable}={url!r}: wanted")
    assert generator.output.count("\n") == 1


def test_ctrl_c_is_a_stop_like_any_other(start: Any, wire: Wire, tmp_path: Path) -> None:
    journal = tmp_path / "entries.jsonl"
    generator = start("entry", "--rate", 200, "--journal", journal)
    eventually(lambda: journal.exists() and confirmed_in(journal) > 10, 20)
    generator.signal(signal.SIGINT)
    assert generator.wait() == 0
    assert confirmed_in(journal) == len(events_of(journal)) == wire.count("vehicle_entry")
