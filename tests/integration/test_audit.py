"""The audit of runs, and of what a real RabbitMQ and Redis hold."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pika
import pytest
import requests

from carpark.domain.events import VehicleExited, format_time
from carpark.ops.audit.queued import read_queues
from carpark.rabbitmq.management import virtual_host_of
from carpark.rabbitmq.topology import declare_queues
from carpark.records import open_records
from tests.support.audited import Day, stay, summaries_of
from tests.support.helpers import eventually
from tests.support.mailbox import bodies, count, dead_letters, fill
from tests.support.processes import OTHER_CLOCK, Process, Processes
from tests.support.stays import entered

pytestmark = pytest.mark.slow


def run(processes: Processes, csv: Path, *options: str, **environ: str) -> Process:
    free = {"CARPARK_WRITER_PORT": "0", "CARPARK_METRICS_PORT": "0", "CARPARK_DASHBOARD_PORT": "0"}
    return processes.start(["carpark", "run", "--rate", "200", "--csv", str(csv), *options], env={**free, **environ})


def verify(processes: Processes, *arguments: object) -> Process:
    process = processes.start(["carpark", "verify", *map(str, arguments)], env={"COLUMNS": "200"}, name="verify")
    process.wait()
    return process


def test_a_run_ends_with_an_audit_and_can_be_audited_again(processes: Processes, tmp_path: Path) -> None:
    csv = tmp_path / "stays.csv"
    for _ in range(2):  # the second one finds the rows of the first in its file
        ended = run(processes, csv, "--events", "60")
        assert ended.wait(60) == 0
        assert "audit: nothing lost, nothing twice: 120 events are accounted for" in ended.output
        audited = verify(processes, "--csv", csv)
        assert audited.status == 0, audited.output
        assert "published 120 = recorded 60 + matched 48 + unmatched 12 ✓" in audited.output
        assert "records = journals: recorded 60; matched 48; unmatched 12; abandoned 0; inside 12 ✓" in audited.output
    lines = csv.read_text(encoding="utf-8").splitlines(keepends=True)
    csv.write_text("".join(lines[:-1]), encoding="utf-8", newline="")
    audited = verify(processes, "--csv", csv)
    assert audited.status == 1
    assert audited.output.splitlines()[-1] == "1 lost, 0 duplicated, 0 unexpected"
    assert lines[-1].partition(",")[0] in audited.output


def test_a_run_that_is_killed_says_what_died_with_it(processes: Processes, tmp_path: Path) -> None:
    csv = tmp_path / "stays.csv"
    killed = run(processes, csv)
    killed.wait_for_line(r"matched [1-9]")
    killed.signal(signal.SIGKILL)
    killed.wait()
    audited = verify(processes, "--csv", csv, "--json")
    said = json.loads(audited.output)
    assert said["published"] > 0
    assert said["matched"] == said["sinks"]["http-csv"]["summarised"] + said["lost"]
    assert said["duplicated"] == said["unexpected"] == 0
    assert audited.status == (0 if said["ok"] else 1)


def test_what_a_sink_lacks_at_the_end_of_a_run_is_undelivered_not_lost(processes: Processes, tmp_path: Path) -> None:
    options = ("--events", "20", "--sinks", "webhook", "--json")
    nowhere = {"CARPARK_WEBHOOK_URL": "http://127.0.0.1:9", "CARPARK_SINK_RETRIES": "0"}
    ended = run(processes, tmp_path / "stays.csv", *options, **nowhere)
    assert ended.wait(60) == 1
    said = next(json.loads(line)["audit"] for line in ended.output.splitlines() if line.startswith("{"))
    assert said["ok"]
    assert said["dead"] > 0


def test_two_runs_at_once_do_not_share_their_journals(processes: Processes, tmp_path: Path) -> None:
    options = ("--sinks", "jsonl", "--rate", "100")
    first, second = (
        run(processes, tmp_path / "stays.csv", *options, *more, CARPARK_SINK_JSONL=str(tmp_path / f"{len(more)}.jsonl"))
        for more in ((), ("--events", "20"))
    )
    assert second.wait(60) == 0
    assert "40 events are accounted for" in second.output
    first.wait_for_line("metrics at")
    first.signal(signal.SIGTERM)
    assert first.wait(60) == 0


def test_looking_into_the_queues_takes_nothing_and_keeps_their_order(
    channel: pika.adapters.blocking_connection.BlockingChannel, broker_url: str
) -> None:
    events = [event for number in range(20) for event in stay(number)]
    channel.confirm_delivery()
    for event in events:
        channel.basic_publish("", event.queue, event.to_json().encode())
    channel.basic_publish("", "vehicle_exit.XQ", b"garbage")
    for _ in range(2):
        queued = read_queues(broker_url)
        assert (queued.waiting, queued.dead, queued.unread) == (40, 1, 0)
        assert queued.events == {(number, event.id) for number in (0, 1) for event in events[number::2]}
    assert bodies(channel, "vehicle_entry") == [event.to_json().encode() for event in events[::2]]


def test_from_a_queue_that_somebody_works_on_nothing_is_taken(
    channel: pika.adapters.blocking_connection.BlockingChannel, broker_url: str
) -> None:
    consumer = channel.connection.channel()
    consumer.basic_qos(prefetch_count=1)
    for number in range(10):
        channel.basic_publish("", "vehicle_entry", b"%d" % number)
    seen = consumer.consume("vehicle_entry")
    tag = next(seen)[0].delivery_tag
    queued = read_queues(broker_url)
    assert (queued.waiting, queued.unread) == (9, 9)
    consumer.basic_ack(tag)
    method, _, body = next(seen)
    assert (body, method.redelivered) == (b"1", False)


def test_what_rabbitmq_keeps_from_all_but_its_consumer_is_only_counted(broker_url: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        channel = connection.channel()
        declare_queues(channel, queue_type="quorum")
        fill(channel, "vehicle_exit", dead_letters(3))
        queued = read_queues(broker_url)
        assert (queued.waiting, queued.unread) == (3, 3)


def test_records_and_queues_of_servers_are_part_of_the_audit(
    processes: Processes,
    channel: pika.adapters.blocking_connection.BlockingChannel,
    broker_url: str,
    redis_url: str,
    tmp_path: Path,
) -> None:
    day = Day(tmp_path)
    events = [event for number in range(30) for event in stay(number)]
    records = open_records(redis_url, 3600, ["http-csv"])
    records.record(events[:-1])
    open_records(redis_url, 3600, ["gone"]).record(stay(30))
    records.outbox("http-csv").take(5)
    records.close()
    channel.basic_publish("", "vehicle_exit", events[-1].to_json().encode())
    day.publish([*events, *stay(30)])
    day.summarise(summaries_of([*events[:20], *stay(30)]))
    arguments = [word for path in day.journals for word in ("--journal", path)]
    servers = ("--redis-url", redis_url, "--broker-url", broker_url)
    audited = verify(processes, *arguments, "--csv", day.csv, *servers, "--json")
    said = json.loads(audited.output)
    assert audited.status == 0, said
    assert (said["queued"], said["pending"], said["inside"], said["matched"]) == (1, 1, 1, 30)
    assert (said["sinks"]["http-csv"]["summarised"], said["sinks"]["http-csv"]["undelivered"]) == (11, 19)
    assert [(each["sink"], each["waiting"]) for each in said["stranded"]] == [("gone", 1)]
    shown = verify(processes, *arguments, "--csv", day.csv, *servers)
    assert "1 summary not yet delivered to sink gone, the oldest for" in shown.output
    assert "carpark dlq give-up gone" in shown.output


def test_valid_events_that_a_policy_made_dead_letters_are_named_and_status_1(
    processes: Processes,
    channel: pika.adapters.blocking_connection.BlockingChannel,
    broker_url: str,
    management_url: str,
    redis_url: str,
    tmp_path: Path,
) -> None:
    short = {"pattern": "^vehicle_entry$", "apply-to": "queues", "definition": {"message-ttl": 100}}
    policies = f"{management_url}/api/policies/{virtual_host_of(broker_url)}"
    requests.put(f"{policies}/short", json=short, timeout=10).raise_for_status()
    day, events = Day(tmp_path), [entered("e1", "AAA", 1), entered("e2", "BBB", 2)]
    day.publish(events)
    day.summarise([])
    for event in events:
        channel.basic_publish("", event.queue, event.to_json().encode())
    channel.basic_publish("", "vehicle_entry", b"garbage")
    eventually(lambda: count(channel, "vehicle_entry.XQ") == 3)
    arguments = [word for path in day.journals for word in ("--journal", path)]
    servers = ("--redis-url", redis_url, "--broker-url", broker_url, "--management-url", management_url)
    audited = verify(processes, *arguments, "--csv", day.csv, *servers)
    assert audited.status == 1
    last = audited.output.splitlines()[-1]
    assert last == "2 valid events are dead letters: send them again with `carpark dlq requeue`"
    assert f"AAA entry at {events[0].time}, id e1, in vehicle_entry.XQ" in audited.output
    assert "nothing lost" not in audited.output


@pytest.mark.parametrize("shift", [7 * 3600, -7 * 3600])
def test_which_ids_must_be_known_is_a_matter_of_redis_clock(
    processes: Processes, redis_url: str, tmp_path: Path, shift: int
) -> None:
    (tmp_path / "sitecustomize.py").write_text(OTHER_CLOCK, encoding="utf-8")
    now = datetime.now(UTC)
    lost, forgotten = (
        {"id": name, "vehicle_plate": name, "exit_date_time": format_time(now - timedelta(hours=hours))}
        for name, hours in (("LOST", 0.2), ("FORGOTTEN", 5))
    )
    day = Day(tmp_path)
    day.publish([VehicleExited.parse(lost), VehicleExited.parse(forgotten)])
    day.summarise([])
    options = ["--redis-url", redis_url, "--retention", "3600", "--csv", str(day.csv), "--json"]
    journals = [word for path in day.journals for word in ("--journal", str(path))]
    environ = {"PYTHONPATH": str(tmp_path), "CLOCK_SHIFT": str(shift)}
    audited = processes.start(["carpark", "verify", *journals, *options], env=environ)
    assert audited.wait() == 1
    findings = json.loads(audited.output)["findings"]["lost events"]
    assert [finding.split()[0] for finding in findings] == ["LOST"]
