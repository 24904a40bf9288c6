"""The generators lose nothing: broker, Redis or the generator itself go away under load."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.generating import Wire, confirmed_in, events_of
from tests.support.helpers import eventually
from tests.support.processes import Process, Processes
from tests.support.servers import RabbitmqServer, RedisServer


@pytest.fixture
def wire(broker_url: str) -> Iterator[Wire]:
    wire = Wire(broker_url)
    yield wire
    wire.close()


@pytest.fixture
def start(processes: Processes, server_environ: dict[str, str]) -> Any:
    """Start the entry generator: `start("--rate", 100)`."""

    def start(*arguments: object, **environ: str) -> Process:
        argv = ["python", "-m", "generators", "entry", *map(str, arguments)]
        return processes.start(argv, env={**server_environ, "CARPARK_CAPACITY": "0", **environ}, name="entry")

    return start


def test_sigterm_under_load_leaves_journal_and_queue_agreeing(start: Any, wire: Wire, tmp_path: Path) -> None:
    journal = tmp_path / "entries.jsonl"
    generator = start("--rate", 2000, "--journal", journal)
    eventually(lambda: journal.exists() and confirmed_in(journal) > 500, 20)
    assert generator.terminate() == 0
    written = events_of(journal)
    assert confirmed_in(journal) == len(written)
    assert [message["kwargs"] for message in wire.drain("vehicle_entry")] == written


def test_a_generator_that_is_killed_goes_on_with_its_journal(start: Any, wire: Wire, tmp_path: Path) -> None:
    journal = tmp_path / "entries.jsonl"
    for goal in (300, 600):
        generator = start("--rate", 5000, "--seed", 7, "--journal", journal)
        eventually(lambda goal=goal: journal.exists() and len(events_of(journal)) > goal, 20)
        generator.kill()
    count = len(events_of(journal)) + 100
    assert start("--rate", 5000, "--seed", 7, "--journal", journal, "--events", count).wait() == 0
    written = events_of(journal)
    arrived = Counter(message["kwargs"]["id"] for message in wire.drain("vehicle_entry"))
    assert len(written) == count == confirmed_in(journal)
    assert set(arrived) == {event["id"] for event in written}
    assert len({event["vehicle_plate"] for event in written}) == count


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_broker_that_goes_away_under_load_costs_no_event(
    start: Any, private_rabbitmq: RabbitmqServer, tmp_path: Path, how: str
) -> None:
    journal = tmp_path / "entries.jsonl"
    environ = {"CARPARK_BROKER_URL": private_rabbitmq.url}
    generator = start("--rate", 1000, "--journal", journal, **environ)
    eventually(lambda: journal.exists() and confirmed_in(journal) > 300, 20)
    getattr(private_rabbitmq, how)()
    generator.wait_for_line(r"^RabbitMQ at .* is away \(.*kept and sent when it is back$")
    private_rabbitmq.start()
    generator.wait_for_line(r"^RabbitMQ is back after .* s$", 40)
    resumed = confirmed_in(journal)
    eventually(lambda: confirmed_in(journal) > resumed + 500, 20)
    assert generator.terminate() == 0
    assert generator.output.count("is away (") == generator.output.count("is back after") == 1
    written = events_of(journal)
    wire = Wire(private_rabbitmq.url)
    arrived = [message["kwargs"]["id"] for message in wire.drain("vehicle_entry")]
    wire.close()
    assert set(arrived) == {event["id"] for event in written}
    assert confirmed_in(journal) == len(written)


def test_a_stop_while_the_broker_is_away_ends_soon_and_says_what_is_unconfirmed(
    start: Any, private_rabbitmq: RabbitmqServer, tmp_path: Path
) -> None:
    journal = tmp_path / "entries.jsonl"
    environ = {"CARPARK_BROKER_URL": private_rabbitmq.url}
    generator = start("--rate", 100, "--journal", journal, **environ)
    eventually(lambda: journal.exists() and confirmed_in(journal) > 10, 20)
    private_rabbitmq.kill()
    generator.wait_for_line("is away")
    assert generator.terminate() == 1
    unconfirmed = len(events_of(journal)) - confirmed_in(journal)
    assert unconfirmed > 0
    assert f"{unconfirmed} event" in generator.output.splitlines()[-1]
    assert "unconfirmed; they are sent again" in generator.output.splitlines()[-1]
    private_rabbitmq.start()
    count = len(events_of(journal))
    assert start("--events", count, "--journal", journal, **environ).wait() == 0
    assert confirmed_in(journal) == count == len(events_of(journal))


def test_a_queue_that_is_deleted_under_load_is_declared_again(start: Any, wire: Wire, tmp_path: Path) -> None:
    journal = tmp_path / "entries.jsonl"
    generator = start("--rate", 1000, "--journal", journal)
    eventually(lambda: journal.exists() and confirmed_in(journal) > 300, 20)
    wire.channel.queue_delete("vehicle_entry")
    deleted = len(events_of(journal))
    eventually(lambda: confirmed_in(journal) > deleted + 500, 20)
    assert generator.terminate() == 0
    arrived = {message["kwargs"]["id"] for message in wire.drain("vehicle_entry")}
    assert {event["id"] for event in events_of(journal)[deleted:]} <= arrived
    assert generator.output.count("was missing, or not bound to vehicle_events; declared it") == 2


def test_a_redis_that_goes_away_is_waited_for(start: Any, wire: Wire, private_redis: RedisServer) -> None:
    generator = start("--rate", 200, CARPARK_REDIS_URL=private_redis.url)
    generator.wait_for_line("metrics at")
    private_redis.kill()
    generator.wait_for_line(r"^Redis at .* is away \(.*\); the cameras wait for it$")
    private_redis.start()
    generator.wait_for_line(r"^Redis is back after", 30)
    assert generator.terminate() == 0
    assert generator.output.count("the cameras wait for it") == 1
