"""The tests' own servers: that they come back, and that nothing of them stays behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pika
import pytest
import redis

from tests.support.helpers import eventually, is_listening
from tests.support.processes import ROOT, Processes
from tests.support.servers import RabbitmqServer, RedisServer

PUBLISHED = pika.BasicProperties(delivery_mode=2)


def test_a_killed_rabbitmq_comes_back_on_the_same_port_with_its_messages(private_rabbitmq: RabbitmqServer) -> None:
    with pika.BlockingConnection(pika.URLParameters(private_rabbitmq.url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("kept", durable=True)
        # RabbitMQ 3.10 writes the end of a declaration down a moment after it has answered; the next one's comes after.
        channel.queue_declare("next", durable=True)
        channel.basic_publish("", "kept", b"body", PUBLISHED)
    url = private_rabbitmq.url
    private_rabbitmq.kill()
    assert not is_listening(private_rabbitmq.port)
    private_rabbitmq.start()
    assert private_rabbitmq.url == url
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        assert channel.basic_get("kept", auto_ack=True)[2] == b"body"
        channel.queue_delete("kept")
        channel.queue_delete("next")


def test_a_killed_redis_comes_back_with_what_was_written(private_redis: RedisServer) -> None:
    with redis.Redis.from_url(private_redis.url) as client:
        client.set("key", "value")
        private_redis.kill()
        private_redis.start()
        assert client.get("key") == b"value"


@pytest.mark.parametrize("_", range(2))
def test_each_test_has_a_virtual_host_without_queues(broker_url: str, _: int) -> None:
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        channel = connection.channel()
        assert channel.queue_declare("vehicle_entry", durable=True).method.message_count == 0
        channel.basic_publish("", "vehicle_entry", b"left behind", PUBLISHED)


@pytest.mark.parametrize("_", range(2))
def test_each_test_has_empty_databases(redis_url: str, _: int) -> None:
    for url in (redis_url, redis_url.removesuffix("/0") + "/1"):
        with redis.Redis.from_url(url) as client:
            assert client.dbsize() == 0
            client.set("left", "behind")


@pytest.mark.servers
@pytest.mark.parametrize("server", ["RabbitmqServer", "RedisServer"])
def test_nothing_of_a_server_outlives_a_killed_test_run(processes: Processes, server: str) -> None:
    script = (
        f"from tests.support.servers import {server}; import signal; s = {server}(); s.start(); "
        "print('up', s.folder, s.port, flush=True); signal.pause()"
    )
    run = processes.start(["python", "-c", script])
    up = run.wait_for_line(r"^up (\S+) (\d+)$", timeout=60)
    folder = Path(up[1])
    assert folder.is_dir()
    run.signal(signal.SIGKILL)
    eventually(lambda: not folder.exists(), what="the folder is gone")
    eventually(lambda: not _processes_naming(str(folder)), what="the processes are gone")
    eventually(lambda: not is_listening(int(up[2])))


def test_one_that_is_not_marked_as_needing_servers_cannot_start_any(request: pytest.FixtureRequest) -> None:
    script = "from tests.support.servers import RedisServer; RedisServer().start()"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    wanted = f"{request.node.name} needs redis-server, so it has to be marked `servers`"
    assert ended.stderr.splitlines()[-1] == f"AssertionError: {wanted}: `make check` has none"


def test_an_unanswerable_need_for_servers_is_one_line_and_status_2() -> None:
    script = "import sys, tests.support.servers as s; s.find_program = lambda name: None; sys.exit(s.main())"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CARPARK_TEST_")}
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environ, cwd=ROOT)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "CARPARK_TEST_BROKER_URL" in ended.stderr
    assert "CARPARK_TEST_REDIS_URL" in ended.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("os.geteuid = lambda: 1000", "only root"),
        ("os.geteuid = lambda: 0; r.find_program = lambda name: None", "debootstrap"),
    ],
)
def test_a_rabbitmq_4_that_cannot_be_had_is_one_line_and_status_2(tmp_path: Path, change: str, said: str) -> None:
    script = f"import os, pathlib, sys, tests.support.rabbitmq4 as r, tests.support.servers as s; {change}; "
    script += f"s.find_program = lambda name: None; r.FOLDER = pathlib.Path({str(tmp_path / 'trixie')!r}); r.main()"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert ended.stderr.startswith("test: not run on RabbitMQ 4: ")
    assert said in ended.stderr
    assert not (tmp_path / "trixie").exists()


def test_named_servers_need_no_programs_of_servers() -> None:
    script = (
        "import sys, tests.support.servers as s; tools = sum(s.TOOLS.values(), ()); "
        "s.find_program = lambda name: name if name in tools else None; sys.exit(s.main())"
    )
    environ = {**os.environ, "CARPARK_TEST_BROKER_URL": "amqp://there", "CARPARK_TEST_REDIS_URL": "redis://there"}
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environ, cwd=ROOT)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def _processes_naming(text: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if text.encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue
    return found
