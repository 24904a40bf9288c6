"""`carpark queues --migrate` on a real RabbitMQ: nothing is lost, the order stays, and it may be killed anywhere."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pika
import pytest
import redis
from dramatiq.common import dq_name, xq_name

from carpark.domain.routing import DELIVER, event_queues
from carpark.errors import QueueInUse
from carpark.ops.doctor.servers import check_broker
from carpark.rabbitmq.migration import Migration
from carpark.rabbitmq.moving import Mover
from carpark.rabbitmq.topology import (
    ASIDE,
    SINGLE_ACTIVE,
    declare_queue,
    declare_queues,
    queue_arguments,
    with_companions,
)
from carpark.records.redis import RedisRecords
from carpark.settings import Settings
from carpark.testing import make_summary
from tests.support.garbage import bare, dramatiq_body
from tests.support.helpers import eventually
from tests.support.mailbox import drain
from tests.support.processes import Processes

KINDS = ("classic", "quorum")
NAMES = [name for queue in event_queues(1) for name in with_companions(queue)]


class Before:
    """The queues as they were declared before, and what is in them.

    Args:
        connection: A connection to this test's RabbitMQ.
        kind: Classic or quorum.
    """

    def __init__(self, connection: pika.BlockingConnection, kind: str) -> None:
        self.channel = connection.channel()
        self.channel.confirm_delivery()
        for name in NAMES:
            arguments = {key: value for key, value in queue_arguments(name, kind).items() if key != SINGLE_ACTIVE}
            self.channel.queue_declare(name, durable=True, arguments=arguments)

    def publish(self, queue: str, body: bytes, **properties: Any) -> None:
        """Publish a message that survives a restart."""
        self.channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2, **properties))

    def drain(self, queue: str) -> list[tuple[bytes, pika.BasicProperties]]:
        """Take all that is in a queue."""
        return drain(self.channel, queue)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def before(broker_url: str, kind: str) -> Any:
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        yield Before(connection, kind)


@pytest.fixture
def settings(
    make_settings: Callable[..., Settings], broker_url: str, management_url: str, redis_url: str, kind: str
) -> Settings:
    return make_settings(broker_url=broker_url, management_url=management_url, redis_url=redis_url, queue_type=kind)


def _is_new(before: Before, kind: str) -> bool:
    for name in NAMES:
        declare_queue(before.channel, name, kind)
    return True


def _asides(settings: Settings) -> list[str]:
    return [name for name in NAMES if Mover(settings.broker_url).count(name + ASIDE)]


def test_messages_stay_as_they_are_and_in_their_order(before: Before, settings: Settings, kind: str) -> None:
    lines: list[str] = []
    bodies = [bare(id=str(number)) for number in range(250)]
    for number, body in enumerate(bodies):
        before.publish("vehicle_entry", body, headers={"number": number}, message_id=f"m{number}", content_type="a/b")
    before.publish(xq_name("vehicle_exit"), b"dead", headers={"x-carpark-error": "why"})
    Migration(settings, lines.append).run()
    assert _is_new(before, kind)
    taken = before.drain("vehicle_entry")
    assert [body for body, _ in taken] == bodies
    assert [(each.headers["number"], each.message_id, each.content_type) for _, each in taken] == [
        (number, f"m{number}", "a/b") for number in range(250)
    ]
    assert {each.delivery_mode for _, each in taken} == {2}
    [(body, properties)] = before.drain(xq_name("vehicle_exit"))
    assert (body, properties.headers["x-carpark-error"]) == (b"dead", "why")
    assert lines == [
        "queues: vehicle_entry is declared anew",
        "queues: 250 messages are back in vehicle_entry",
        "queues: vehicle_exit is declared anew",
    ]
    lines.clear()
    Migration(settings, lines.append).run()
    assert lines == [], "a second time there is nothing to do"


def test_delayed_events_go_back_to_their_queue(before: Before, settings: Settings) -> None:
    event = dramatiq_body(queue_name=dq_name("vehicle_entry"), options={"retries": 3, "eta": 253_000_000_000_000})
    before.publish(dq_name("vehicle_entry"), event)
    lines: list[str] = []
    Migration(settings, lines.append).run()
    assert [body for body, _ in before.drain("vehicle_entry")] == [event]
    assert "queues: 1 delayed events went back to vehicle_entry" in lines


def test_messages_with_summaries_are_dropped_where_these_are_in_the_outbox_and_only_there(
    before: Before, settings: Settings, store: redis.Redis
) -> None:
    def carrying(sink: str, *ids: str) -> bytes:
        summaries = [make_summary(id_).to_dict() for id_ in ids]
        kwargs = {"sink": sink, "keys": [f"exit/{id_}" for id_ in ids], "summaries": summaries}
        return dramatiq_body(queue_name="vehicle_exit", actor_name=DELIVER, kwargs=kwargs)

    times = "2026-11-23T18:00:00.000000Z 2026-11-23T19:30:00.000000Z"
    for sink, id_, state in (("http-csv", "1", "queued"), ("http-csv", "2 x", "new"), ("jsonl", "1", "dead")):
        store.hset("carpark:undelivered", f"{sink}/exit/{id_}", f"{state} {times} PLATE {id_}")
    event = bare(id="an event")
    needless = [carrying("http-csv", "1"), carrying("http-csv", *["1", "2 x"] * 100), carrying("jsonl", "1")]
    needed = [carrying("http-csv", "1", "3"), carrying("webhook", "1")]
    for queue in ("vehicle_exit", dq_name("vehicle_exit")):
        for body in (*needless, event, *needed):
            before.publish(queue, body)
    for _ in range(2):
        Migration(settings, lambda line: None).run()
    assert [body for body, _ in before.drain("vehicle_exit")] == [event, *needed, event]
    assert [body for body, _ in before.drain(dq_name("vehicle_exit"))] == needed
    records = RedisRecords(store, 1, ())
    assert [(each.sink, each.waiting, each.dead) for each in records.backlogs()] == [
        ("http-csv", 2, 0),
        ("jsonl", 0, 1),
    ]
    assert {summary.id for summary, _ in records.outbox("http-csv").stays()} == {"1", "2 x"}
    assert not store.exists("carpark:undelivered")


def test_what_an_interrupted_one_left_is_a_problem_for_the_doctor(
    before: Before, settings: Settings, kind: str
) -> None:
    before.channel.queue_declare("vehicle_exit" + ASIDE, durable=True)
    before.publish("vehicle_exit" + ASIDE, bare())

    def found() -> list[str]:
        return [each.found for each in check_broker(settings) if "migration" in each.found]

    assert found() == ["vehicle_exit.migrating has 1 messages of a migration that did not end"]
    Migration(settings, print).run()
    assert found() == []
    assert [body for body, _ in before.drain("vehicle_exit")] == [bare()]


def test_after_it_the_queues_are_those_of_another_type_and_the_command_is_content(
    broker_url: str, server_environ: dict[str, str], processes: Processes
) -> None:
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        declare_queues(connection.channel(), queue_type="classic")
    migrate = ["carpark", "queues", "--migrate", "--queue-type", "quorum"]
    for _ in range(2):
        process = processes.start(migrate, env=server_environ, name="migrate")
        assert process.wait(60) == 0, process.output
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        declare_queues(connection.channel(), queue_type="quorum")


def test_it_refuses_while_somebody_consumes_and_says_who(before: Before, settings: Settings, broker_url: str) -> None:
    before.publish("vehicle_exit", b"there")
    parameters = pika.URLParameters(broker_url)
    parameters.client_properties = {"connection_name": "somebody 1:2"}
    with pika.BlockingConnection(parameters) as connection:
        connection.channel().basic_consume(dq_name("vehicle_exit"), lambda *_: None)

        def refused() -> bool:
            with pytest.raises(QueueInUse) as error:
                Migration(settings, print).run()
            expected = "queue 'vehicle_exit.DQ' is in use: somebody 1:2 consumes from it; stop the workers and run this"
            return str(error.value).startswith(expected)

        eventually(refused, 20, "RabbitMQ knows who consumes")
    Migration(settings, print).run()
    assert [body for body, _ in before.drain("vehicle_exit")] == [b"there"]


def test_a_second_one_at_the_same_time_is_refused(before: Before, settings: Settings, broker_url: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        connection.channel().queue_declare("carpark.migrating", exclusive=True)
        with pytest.raises(QueueInUse, match="another"):
            Migration(settings, print).run()


def test_killed_anywhere_and_run_again_it_loses_nothing_and_keeps_the_order(
    before: Before, settings: Settings, processes: Processes, server_environ: dict[str, str], kind: str
) -> None:
    count = 3_000
    for number in range(count):
        before.publish("vehicle_entry", bare(id=str(number)))
    command = ["carpark", "queues", "--migrate"]
    environ = {**server_environ, "CARPARK_QUEUE_TYPE": kind}
    there = Mover(settings.broker_url)
    # Once while they go aside, once while they come back: each time when some have moved and some have not.
    for queue in ("vehicle_entry" + ASIDE, "vehicle_entry"):
        process = processes.start(command, env=environ)
        if queue == "vehicle_entry":
            eventually(lambda: there.count("vehicle_entry" + ASIDE) > count / 2, 60, interval=0.001)
            eventually(lambda: there.count("vehicle_entry" + ASIDE) < count, 60, interval=0.001)
        eventually(lambda queue=queue: 0 < there.count(queue) < count, 60, interval=0.001)  # type: ignore[misc]
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    process = processes.start(command, env=environ)
    assert process.wait(60) == 0
    assert _is_new(before, kind)
    assert _asides(settings) == []
    ids = [int(json.loads(body)["id"]) for body, _ in before.drain("vehicle_entry")]
    assert list(dict.fromkeys(ids)) == list(range(count)), "nothing is lost, and the first of each is in order"
    assert len(ids) < count + 500, "few are there twice"


def test_a_worker_that_finds_queues_of_before_says_how_to_migrate_them(
    before: Before, processes: Processes, server_environ: dict[str, str], kind: str
) -> None:
    worker = processes.start(
        ["dramatiq", "carpark.actors", "--processes", "1", "--threads", "1"],
        env={**server_environ, "CARPARK_QUEUE_TYPE": kind},
    )
    assert worker.wait() == 2
    assert "run `carpark queues --migrate`" in worker.output
    assert "Traceback" not in worker.output
    migration = processes.start(["carpark", "queues", "--migrate"], env={**server_environ, "CARPARK_QUEUE_TYPE": kind})
    assert migration.wait(60) in (0, 2), migration.output
