"""`carpark doctor` as a process, against real servers and against none."""

import contextlib
import json
import re
import shutil
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pika
import pytest
import redis
import requests

from carpark.ops.doctor.findings import Level
from carpark.ops.doctor.servers import check_message_size
from carpark.rabbitmq.management import virtual_host_of
from carpark.rabbitmq.topology import declare_queues
from carpark.records import Batch, Settlement
from carpark.records.connection import connect
from carpark.records.redis import RedisRecords
from carpark.settings import Settings
from tests.support.audited import stay
from tests.support.helpers import eventually
from tests.support.processes import OTHER_CLOCK, Processes
from tests.support.servers import RedisServer

Report = dict[str, list[dict[str, Any]]]


def examine(processes: Processes, env: dict[str, str], *options: str) -> tuple[int, Report, str]:
    process = processes.start(["carpark", "doctor", "--json", *options], env=env)
    status = process.wait()
    report = json.loads(process.output)
    assert report["status"] == status
    checks: Report = {}
    for finding in report["checks"]:
        checks.setdefault(finding["check"], []).append(finding)
    return status, checks, process.output


def levels(checks: Report) -> dict[str, list[str]]:
    return {name: [finding["level"] for finding in findings] for name, findings in checks.items()}


def queue_names(broker_url: str, management_url: str) -> list[str]:
    answer = requests.get(
        f"{management_url}/api/queues/{virtual_host_of(broker_url)}?disable_stats=true", timeout=10
    ).json()
    return [queue["name"] for queue in answer]


def test_a_system_that_is_there_is_well_and_missing_queues_are_only_said(
    processes: Processes, server_environ: dict[str, str], broker_url: str, management_url: str
) -> None:
    env = {**server_environ, "CARPARK_WRITER_TOKEN": "hidden"}
    writer = processes.start(["carpark", "writer"], env=env)
    env["CARPARK_WRITER_URL"] = writer.wait_for_line(r"^writer: (http\S+)")[1]
    status, checks, output = examine(processes, env)
    assert status == 0, output
    assert levels(checks)["queues"] == ["warning"]
    assert "vehicle_exit.XQ" in checks["queues"][0]["found"]
    assert checks["queues"][0]["found"].endswith(", vehicle_events")
    for name in ("python", "settings", "rabbitmq", "dead letters", "management api", "redis", "redis memory", "writer"):
        assert levels(checks)[name] == ["ok"], name
    for name in ("clock of Redis", "clock of RabbitMQ"):
        assert [finding["found"] for finding in checks[name]] == ["less than 5 s from this machine's"]
    assert levels(checks)["retention"] == ["ok"]
    assert [finding["found"] for finding in checks["message size"]] == ["at most 1048576 bytes"]
    assert "hidden" not in output
    assert "guest:guest" not in output
    assert queue_names(broker_url, management_url) == []


def test_queues_without_consumers_dead_letters_and_other_arguments_are_found(
    processes: Processes, server_environ: dict[str, str], broker_url: str
) -> None:
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        channel = connection.channel()
        channel.queue_declare("vehicle_exit.DQ", durable=True, arguments={"x-max-length": 5})
        declare_queues(channel, ("vehicle_entry",))
        channel.queue_unbind("vehicle_entry", "vehicle_events", "vehicle_entry")
        channel.queue_declare("vehicle_exit", durable=True, arguments={"x-dead-letter-exchange": ""})
        channel.confirm_delivery()
        for _ in range(3):
            channel.basic_publish("", "vehicle_entry.XQ", b"garbage")
        channel.basic_publish("", "vehicle_entry", b"{}")
        channel.basic_consume("vehicle_exit", lambda *_: None)
        status, checks, _ = examine(processes, server_environ)
    assert status == 1
    assert levels(checks)["queues"] == ["warning", "problem", "problem"]
    assert "not there: vehicle_exit.XQ" in checks["queues"][0]["found"]
    assert (
        "vehicle_events's binding to vehicle_entry, vehicle_events's binding to vehicle_exit"
        in (checks["queues"][0]["found"])
    )
    assert "vehicle_exit has other arguments" in checks["queues"][1]["found"]
    assert "x-max-length is 5" in checks["queues"][2]["found"]
    (consumers,) = checks["consumers"]
    assert consumers["found"] == "nobody consumes vehicle_entry, where 1 wait"
    (dead,) = checks["dead letters"]
    assert (dead["level"], dead["found"]) == ("warning", "3 in vehicle_entry.XQ")


def test_queues_of_another_type_are_named(
    processes: Processes, server_environ: dict[str, str], broker_url: str
) -> None:
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        channel = connection.channel()
        channel.queue_declare("vehicle_exit.XQ", durable=True, arguments={"x-queue-type": "quorum"})
        declare_queues(channel, ("vehicle_entry",))
    _, checks, _ = examine(processes, server_environ)
    (problem,) = [finding for finding in checks["queues"] if finding["level"] == "problem"]
    assert problem["found"].startswith("vehicle_exit.XQ has other arguments than carpark's: ")
    assert "x-queue-type is 'quorum', wanted 'classic'" in problem["found"]
    assert "carpark queues --migrate" in problem["advice"]


def test_policies_are_said_with_what_they_would_do(
    processes: Processes, server_environ: dict[str, str], broker_url: str, management_url: str, free_port: int
) -> None:
    _, checks, _ = examine(processes, server_environ)
    assert [finding["found"] for finding in checks["policies"]] == ["none changes what becomes of messages"]
    host = virtual_host_of(broker_url)

    def put(kind: str, name: str, pattern: str, apply_to: str, **definition: object) -> None:
        json = {"pattern": pattern, "apply-to": apply_to, "priority": 1, "definition": definition}
        requests.put(f"{management_url}/api/{kind}/{host}/{name}", json=json, timeout=10).raise_for_status()

    put("policies", "short", "^vehicle_(entry|exit)$", "queues", **{"max-length": 243, "message-ttl": 60_000})
    put("policies", "other", "^vehicle_events$", "exchanges", **{"alternate-exchange": "amq.fanout"})
    put("operator-policies", "hosted", "XQ$", "queues", expires=3_600_000)
    status, checks, _ = examine(processes, server_environ)
    assert status == 1
    found = {finding["found"]: (finding["level"], finding["advice"]) for finding in checks["policies"]}
    pattern = "take them out of the pattern of {}, or clear it"
    short, hosted, other = (
        pattern.format(each) for each in ("policy 'short'", "operator policy 'hosted'", "policy 'other'")
    )
    assert found == {
        "vehicle_entry, vehicle_exit: max-length 243, overflow drop-head: beyond so many messages the oldest messages "
        "become dead letters": ("problem", short),
        "vehicle_entry, vehicle_exit: message-ttl 60000 ms: what waits longer for a worker becomes a dead letter": (
            *("problem", short),
        ),
        "vehicle_entry.XQ, vehicle_exit.XQ, carpark_work.XQ: expires 3600000 ms: unused for so long it is deleted, "
        "with all that is in it": ("problem", hosted),
        "vehicle_events: alternate-exchange amq.fanout: an event that finds no queue goes there, and its camera takes "
        "it for safe": ("warning", other),
    }
    requests.delete(f"{management_url}/api/operator-policies/{host}/hosted", timeout=10).raise_for_status()
    env = {**server_environ, "CARPARK_MANAGEMENT_URL": f"http://127.0.0.1:{free_port}"}
    (finding,) = examine(processes, env)[1]["policies"]
    assert finding["level"] == "warning"
    assert finding["found"].startswith("not looked at: ")


def test_what_sinks_have_not_taken_is_said_with_what_to_do(
    processes: Processes, server_environ: dict[str, str], redis_url: str
) -> None:
    env = {**server_environ, "CARPARK_SINKS": "http-csv,webhook", "CARPARK_WEBHOOK_URL": "http://127.0.0.1:9"}
    with contextlib.closing(connect(redis_url)) as client:
        records = RedisRecords(client, 3600, ["http-csv", "webhook", "jsonl"])
        records.record([event for number in range(7) for event in stay(number)])
        for name, became in {
            "http-csv": Settlement(delivered=None),
            "webhook": Settlement(delivered=["x0"], dead=["x1"], error="no", delay=0),
        }.items():
            batch = records.outbox(name).take(5)
            assert isinstance(batch, Batch)
            records.outbox(name).settle(batch, became)
        batch = records.outbox("webhook").take(5)
        assert isinstance(batch, Batch)
        records.outbox("webhook").settle(batch, Settlement(error="connection refused", delay=300))
        keys = {key: client.dump(key) for key in client.scan_iter("*")}
        _, checks, output = examine(processes, env)
        assert {key: client.dump(key) for key in client.scan_iter("*")} == keys, "it only looks"
    assert [(each["level"], each["found"]) for each in checks["sink http-csv"]] == [("ok", "all is delivered")]
    failing, given_up = checks["sink webhook"]
    assert re.fullmatch(
        r"sink webhook has failed for \d+ s \(connection refused\); 5 summaries not yet delivered to sink webhook, "
        r"the oldest for \d+ s, next attempt in 4 min",
        failing["found"],
    )
    assert (given_up["level"], given_up["found"]) == ("warning", "1 summary given up for sink webhook")
    assert "carpark dlq list --queue carpark_work --match webhook" in given_up["advice"]
    (stranded,) = checks["sink jsonl"]
    assert stranded["level"] == "warning"
    assert re.fullmatch(
        r"7 summaries not yet delivered to sink jsonl, the oldest for \d+ s, and no worker asks for it: none has it, "
        r"or its call hangs",
        stranded["found"],
    )
    assert "`carpark dlq give-up jsonl`" in stranded["advice"], output


@pytest.mark.parametrize(
    ("rights", "level", "found"),
    [
        ({"write": "^amq.default$"}, Level.OK, "at most 1048576 bytes"),
        ({"write": "^vehicle_events$"}, Level.OK, "at most 1048576 bytes"),
        ({"read": ".*"}, Level.OK, "at most 1048576 bytes"),  # RabbitMQ looks at the length before it looks at rights
    ],
)
def test_how_long_a_message_may_be_is_known_to_whoever_may_publish_at_all(
    make_settings: Callable[..., Settings],
    make_user: Callable[..., str],
    channel: Any,
    rights: dict[str, str],
    level: Level,
    found: str,
) -> None:
    [finding] = check_message_size(make_settings(broker_url=make_user(**rights)))
    assert (finding.level, finding.found) == (level, found)


def test_wrong_passwords_and_a_wrong_token_are_told_from_servers_that_are_away(
    processes: Processes, server_environ: dict[str, str]
) -> None:
    writer = processes.start(["carpark", "writer"], env={**server_environ, "CARPARK_WRITER_TOKEN": "right"})
    url = writer.wait_for_line(r"^writer: (http\S+)")[1]
    env = {
        **server_environ,
        "CARPARK_BROKER_URL": server_environ["CARPARK_BROKER_URL"].replace("guest:guest", "guest:hidden"),
        "CARPARK_MANAGEMENT_URL": server_environ["CARPARK_MANAGEMENT_URL"].replace("guest:guest", "guest:hidden"),
        "CARPARK_REDIS_URL": server_environ["CARPARK_REDIS_URL"].replace("redis://", "redis://nobody:hidden@"),
        "CARPARK_WRITER_URL": url,
        "CARPARK_WRITER_TOKEN": "hidden",
    }
    status, checks, output = examine(processes, env)
    assert status == 1
    assert "refuses the user or the password" in checks["rabbitmq"][0]["found"]
    assert "refuses the user or the password" in checks["management api"][0]["found"]
    assert "password" in checks["redis"][0]["found"]
    assert "refuses the token" in checks["writer"][0]["found"]
    assert "hidden" not in output


def test_redis_is_asked_what_it_keeps(processes: Processes, private_redis: RedisServer) -> None:
    env = {"CARPARK_BROKER_URL": "stub://", "CARPARK_REDIS_URL": private_redis.url, "CARPARK_SINKS": "stdout"}
    with contextlib.closing(redis.Redis.from_url(private_redis.url)) as client:
        client.config_set("appendfsync", "everysec")
        _, checks, _ = examine(processes, env, "--metrics-port", "0", "--writer-port", "0", "--dashboard-port", "0")
        assert "appendfsync everysec: a power loss costs up to a second" in checks["redis persistence"][0]["found"]
        assert levels(checks)["redis memory"] == ["ok"]
        client.config_set("appendonly", "no")
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
        _, checks, _ = examine(processes, env)
        assert levels(checks)["redis persistence"] == ["warning"]
        assert levels(checks)["redis memory"] == ["problem"]
        status, checks, _ = examine(processes, env, "--redis-url", private_redis.url.removesuffix("0") + "1")
        assert status == 2
        assert "database 1" in checks["redis"][0]["found"]
        assert client.dbsize() == 0


@pytest.mark.parametrize(("shift", "where"), [(7 * 3600, "behind"), (-7 * 3600, "ahead of")])
def test_a_clock_that_is_hours_off_is_said_with_what_it_does_not_mean(
    processes: Processes, server_environ: dict[str, str], tmp_path: Path, shift: int, where: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(OTHER_CLOCK, encoding="utf-8")
    env = {**server_environ, "PYTHONPATH": str(tmp_path), "CLOCK_SHIFT": str(shift)}
    _, checks, _ = examine(processes, env)
    for name in ("clock of Redis", "clock of RabbitMQ"):
        (finding,) = checks[name]
        assert finding["level"] == "warning"
        assert re.fullmatch(rf"[67] h {where} this machine's", finding["found"]), name
        assert "joined by the events' own times" in finding["advice"]


@pytest.mark.servers
def test_a_redis_that_takes_no_writes_for_now_is_said(processes: Processes) -> None:
    with contextlib.closing(RedisServer()) as server:
        server.start()
        env = {"CARPARK_BROKER_URL": "stub://", "CARPARK_REDIS_URL": server.url, "CARPARK_SINKS": "stdout"}
        with contextlib.closing(redis.Redis.from_url(server.url)) as client:
            client.config_set("save", "3600 1")
            shutil.rmtree(server.folder)
            client.bgsave()
            eventually(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
            _, checks, _ = examine(processes, env)
            (finding,) = checks["redis rights"]
            assert finding["level"] == "problem"
            assert finding["found"].startswith("not tried: Redis: MISCONF ")
            assert finding["advice"] == "it refuses that for now: wait, or see to what it says"
            client.config_set("busy-reply-threshold", 1)
            client.config_set("save", "")  # takes scripts again
        with socket.create_connection(("127.0.0.1", server.port)) as other:
            other.sendall(b"EVAL 'while 1 do end' 0\r\n")
            eventually(lambda: _is_busy(server), what="the script runs")
            _, checks, output = examine(processes, env)
    assert "BUSY" in checks["redis"][0]["found"]
    assert "user, password" not in output


def _is_busy(server: RedisServer) -> bool:
    with contextlib.closing(redis.Redis.from_url(server.url)) as client:
        try:
            return not client.ping()
        except redis.ResponseError as error:
            return str(error).startswith("BUSY")


def test_a_retention_that_redis_has_no_room_for_is_said(processes: Processes, private_redis: RedisServer) -> None:
    env = {"CARPARK_BROKER_URL": "stub://", "CARPARK_REDIS_URL": private_redis.url, "CARPARK_SINKS": "stdout"}
    with contextlib.closing(connect(private_redis.url)) as client:
        env["CARPARK_RETENTION"] = "3600"
        records = RedisRecords(client, 3600, ["stdout"], lambda: time.time() - 700)
        records.record([event for number in range(1000) for event in stay(number)])  # too long ago to count
        RedisRecords(client, 3600, ["stdout"]).record([event for number in range(2000, 2600) for event in stay(number)])
        for limit, level in (("4000000", "ok"), ("3000000", "warning")):
            client.config_set("maxmemory", limit)
            (finding,) = examine(processes, env)[1]["retention"]
            assert finding["level"] == level
            assert finding["found"].startswith("1 exits/s, as in the last 10 min, take 3 MB in 1 h"), finding


@pytest.mark.slow
def test_servers_that_take_a_connection_and_say_nothing_cost_a_few_seconds_in_all(processes: Processes) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=50) as mute:
        where = f"127.0.0.1:{mute.getsockname()[1]}"
        env = {
            "CARPARK_BROKER_URL": f"amqp://{where}",
            "CARPARK_MANAGEMENT_URL": f"http://{where}",
            "CARPARK_REDIS_URL": f"redis://{where}/0",
            "CARPARK_WRITER_URL": f"http://{where}",
            "CARPARK_WRITER_PORT": str(mute.getsockname()[1]),
            "CARPARK_DASHBOARD_PORT": "0",
            "CARPARK_METRICS_PORT": "0",
        }
        mute.settimeout(60)
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(examine, processes, env)
            with mute.accept()[0]:
                started = time.monotonic()
                status, checks, output = asked.result()
        # 4 s, and the end of Python on a busy machine; one after another would take 15.
        assert time.monotonic() - started < 12
    assert status == 2
    for name in ("rabbitmq", "management api", "redis", "writer"):
        assert levels(checks)[name] == ["problem"], name
        assert "CARPARK_" in checks[name][0]["advice"]
    assert "held by another program" in output


def test_nothing_there_is_status_1_in_plain_lines(processes: Processes, free_port: int) -> None:
    env = {
        "CARPARK_BROKER_URL": f"amqp://me:hidden@127.0.0.1:{free_port}",
        "CARPARK_REDIS_URL": f"redis://127.0.0.1:{free_port}/0",
        "CARPARK_WRITER_URL": f"http://127.0.0.1:{free_port}",
        "CARPARK_MANAGEMENT_URL": f"http://me:hidden@127.0.0.1:{free_port}",
        "CARPARK_WRITER_PORT": "0",
        "CARPARK_DASHBOARD_PORT": "0",
        "CARPARK_METRICS_PORT": "0",
    }
    process = processes.start(["carpark", "doctor"], env=env)
    assert process.wait() == 1
    assert f"problem  rabbitmq: RabbitMQ at amqp://me:***@127.0.0.1:{free_port}: connection refused" in process.output
    assert "doctor: 4 problems" in process.output
    assert "hidden" not in process.output
    assert "Traceback" not in process.output
