"""`carpark dlq give-up` on a real RabbitMQ and Redis, killed as well, and the way back to the sink."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path

import pytest
from pika.adapters.blocking_connection import BlockingChannel

from carpark.records import Backlog, Records, open_records
from tests.support.audited import stay
from tests.support.helpers import eventually
from tests.support.mailbox import count, drain
from tests.support.processes import Process, Processes

DEAD = "carpark_work.XQ"


def record(url: str, sinks: list[str], stays: int) -> Records:
    """Record stays for sinks; nobody delivers them."""
    records = open_records(url, 3600, sinks)
    records.record([event for number in range(stays) for event in stay(number)])
    return records


def backlog(records: Records, sink: str) -> Backlog:
    return records.outbox(sink).backlog()


def give_up(processes: Processes, env: dict[str, str], *arguments: str) -> Process:
    process = processes.start(["carpark", "dlq", "give-up", *arguments], env=env, name="give-up")
    process.wait(60)
    return process


def sinks_of_letters(channel: BlockingChannel) -> Counter[tuple[str, str]]:
    """Take all dead letters, and count each sink's summaries."""
    fields = [json.loads(body)["kwargs"] for body, _ in drain(channel, DEAD)]
    return Counter((each["sink"], each["summary"]["id"]) for each in fields)


def test_what_waits_becomes_dead_letters_and_comes_back_to_a_worker_that_has_the_sink(
    processes: Processes, server_environ: dict[str, str], channel: BlockingChannel, redis_url: str, tmp_path: Path
) -> None:
    records = record(redis_url, ["jsonl", "stdout"], 250)
    said = give_up(processes, server_environ, "jsonl")
    assert said.status == 0, said.output
    assert "gave up 250 summaries for jsonl: dead letters in carpark_work.XQ" in said.output
    assert count(channel, DEAD) == 250
    assert (backlog(records, "jsonl").waiting, backlog(records, "jsonl").dead) == (0, 250)
    assert (backlog(records, "stdout").waiting, backlog(records, "stdout").dead) == (250, 0)
    again = give_up(processes, server_environ, "jsonl")
    assert (again.status, again.output.strip()) == (0, "nothing waits for sink jsonl")

    env = {**server_environ, "CARPARK_SINKS": "jsonl", "CARPARK_SINK_JSONL": str(tmp_path / "stays.jsonl")}
    processes.start(["carpark", "worker", "--processes", "1", "--threads", "1"], env=env)
    requeue = ["carpark", "dlq", "requeue", "--all", "--queue", "carpark_work", "--match", "jsonl"]
    assert processes.start(requeue, env=server_environ, name="requeue").wait(60) == 0
    eventually(lambda: backlog(records, "jsonl").undelivered == 0, 60)
    lines = (tmp_path / "stays.jsonl").read_text(encoding="utf-8").splitlines()
    assert sorted(json.loads(line)["id"] for line in lines) == sorted(f"x{number}" for number in range(250))
    records.close()


def test_what_was_given_up_and_whose_dead_letters_are_gone_waits_again(
    processes: Processes, server_environ: dict[str, str], channel: BlockingChannel, redis_url: str
) -> None:
    records = record(redis_url, ["jsonl"], 20)
    assert give_up(processes, server_environ, "jsonl").status == 0
    channel.queue_purge(DEAD)
    for expected in ("20 summaries for jsonl wait again", "0 summaries for jsonl wait again"):
        retry = processes.start(["carpark", "dlq", "retry", "jsonl"], env=server_environ, name="retry")
        assert (retry.wait(60), retry.output.strip()) == (0, expected)
        assert (backlog(records, "jsonl").waiting, backlog(records, "jsonl").dead) == (20, 0)
    records.close()


def test_a_retry_of_a_sink_that_nobody_knows_and_of_records_in_this_process_is_refused(
    processes: Processes, server_environ: dict[str, str], channel: BlockingChannel, redis_url: str
) -> None:
    records = record(redis_url, ["webhook", "jsonl"], 5)
    assert give_up(processes, server_environ, "jsonl").status == 0
    records.close()
    memory = {**server_environ, "CARPARK_REDIS_URL": "memory://"}
    for env, sink, said in (
        (server_environ, "jsonlines", "did you mean 'jsonl'? a sink that something was given up for: jsonl (5)\n"),
        (memory, "jsonl", "CARPARK_REDIS_URL='memory://': wanted the Redis of the workers"),
    ):
        refused = processes.start(["carpark", "dlq", "retry", sink], env=env, name="retry")
        assert refused.wait(60) == 2
        assert said in refused.output


def test_killed_in_the_middle_it_is_called_again_and_leaves_none_without_its_dead_letter(
    processes: Processes, server_environ: dict[str, str], channel: BlockingChannel, redis_url: str
) -> None:
    stays = 3000
    records = record(redis_url, ["webhook"], stays)
    killed = processes.start(["carpark", "dlq", "give-up", "webhook"], env=server_environ, name="killed")
    eventually(lambda: count(channel, DEAD) > 300, 60, interval=0.005)
    killed.signal(signal.SIGKILL)
    killed.wait()
    assert backlog(records, "webhook").waiting > 0, "it was killed before it was done"
    assert backlog(records, "webhook").dead <= count(channel, DEAD)
    assert give_up(processes, server_environ, "webhook").status == 0
    letters = sinks_of_letters(channel)
    assert letters.keys() == {("webhook", f"x{number}") for number in range(stays)}
    assert letters.total() - stays <= 100
    assert (backlog(records, "webhook").waiting, backlog(records, "webhook").dead) == (0, stays)
    records.close()


def test_a_sink_that_a_worker_has_is_refused_and_so_is_one_that_nobody_knows(
    processes: Processes, server_environ: dict[str, str], channel: BlockingChannel, redis_url: str
) -> None:
    records = record(redis_url, ["webhook", "http-csv"], 5)
    records.outbox("http-csv").take(5.0)
    refused = give_up(processes, server_environ, "http-csv")
    assert refused.status == 2
    assert "SINK='http-csv': wanted a sink that no worker has" in refused.output
    unknown = give_up(processes, server_environ, "webhok")
    assert unknown.status == 2
    assert "did you mean 'webhook'? a sink that something waits for and no worker has: webhook (5)" in unknown.output
    assert count(channel, DEAD) == 0
    assert [each.dead for each in records.backlogs()] == [0, 0]
    records.close()


@pytest.mark.parametrize("missing", ["BROKER", "REDIS"])
def test_a_server_that_is_away_is_one_line_and_nothing_is_taken(
    processes: Processes, server_environ: dict[str, str], redis_url: str, free_port: int, missing: str
) -> None:
    records = record(redis_url, ["webhook"], 5)
    nowhere = {"BROKER": f"amqp://127.0.0.1:{free_port}", "REDIS": f"redis://127.0.0.1:{free_port}/0"}[missing]
    failed = give_up(processes, {**server_environ, f"CARPARK_{missing}_URL": nowhere}, "webhook")
    assert failed.status == 1
    assert "Traceback" not in failed.output
    assert (backlog(records, "webhook").waiting, backlog(records, "webhook").dead) == (5, 0)
    records.close()
