"""The users of docs/reference/rights.md are enough for their services, and a right less is found, whoever needs it."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pika
import pytest
import redis
import requests

from carpark.broker import RabbitmqBroker
from carpark.domain.routing import event_queues
from carpark.errors import RecordsUnavailable
from carpark.rabbitmq.rights import CAMERAS, CONFIGURE, DASHBOARD, READ, VERIFY, WORKER, WRITE, Right, denied, rights_of
from carpark.rabbitmq.topology import all_queues, declare_queues, with_companions
from carpark.records import Records, open_records
from carpark.records.connection import connect, is_refusal
from carpark.records.redis import RedisRecords
from generators.clock import Clock
from generators.redis_lot import RedisLot
from tests.support.audited import stay
from tests.support.helpers import eventually
from tests.support.processes import ROOT, WORKER_READY, Process, Processes
from tests.support.recorder import Recorder

PAGE = (ROOT / "docs/reference/rights.md").read_text(encoding="utf-8")
ACLS = {words[2]: words[3:] for words in map(shlex.split, re.findall(r"^ACL SETUSER .+", PAGE, re.MULTILINE))}
PERMISSIONS = {
    words[2]: dict(zip((CONFIGURE, WRITE, READ), words[3:], strict=True))
    for words in map(shlex.split, re.findall(r"^rabbitmqctl set_permissions .+", PAGE, re.MULTILINE))
}
USERS = {"cameras": CAMERAS, "queues": WORKER, "worker": WORKER, "dashboard": DASHBOARD, "auditor": VERIFY}
COMMANDS = [word for word in ACLS["worker"] if word.startswith("+") and word != "+evalsha"]
NARROW = [
    "hincrby",
    "sadd",
    "srem",
    "zadd",
    "rpush",
    "hset",
    "hdel",
    "persist",
    "pexpire",
    "zcount",
    "hgetall",
    "hmget",
]


class Acl:
    """Users of a Redis.

    Args:
        url: The Redis, with a user who may make others.
    """

    def __init__(self, url: str) -> None:
        self.admin, self._url = redis.Redis.from_url(url, decode_responses=True), url

    def set(self, name: str, *rules: str) -> str:
        """Make a user, or change one, and give the URL for it."""
        self.admin.execute_command("ACL", "SETUSER", name, *rules)
        return self._url.replace("redis://", f"redis://{name}:password@")

    def close(self) -> None:
        """Remove the users."""
        self.admin.execute_command("ACL", "DELUSER", *ACLS)
        self.admin.close()


@pytest.fixture
def acl(redis_url: str) -> Iterator[Acl]:
    with contextlib.closing(Acl(redis_url)) as acl:
        yield acl


@pytest.fixture
def start(processes: Processes, server_environ: dict[str, str], sink: Recorder) -> Callable[..., Process]:
    def start(*argv: str, **more: str) -> Process:
        return processes.start(argv, env={**server_environ, "CARPARK_WRITER_URL": sink.url, **more})

    return start


def worker(start: Callable[..., Process], **more: str) -> Process:
    return start("dramatiq", "carpark.actors", "--processes", "2", "--threads", "1", **more)


def send(channel: Any, *numbers: int) -> None:
    for event in (event for number in numbers for event in stay(number)):
        channel.basic_publish("", event.queue, event.to_json().encode())


def count(channel: Any, name: str) -> int:
    found: int = channel.queue_declare(name, passive=True).method.message_count
    return found


def one_line(process: Process, beginning: str) -> str:
    """See that it ended with status 2 and one line of its own in it, and give that."""
    assert process.wait(30) == 2, process.output
    said = {line for line in process.output.splitlines() if line.startswith("carpark:")}
    assert len(said) == 1, process.output
    assert "Traceback" not in process.output
    (line,) = said
    assert line.startswith(beginning), line
    return line


# RabbitMQ


@pytest.mark.parametrize("user", USERS)
def test_the_page_has_what_a_user_of_rabbitmq_needs(make_user: Callable[..., str], user: str) -> None:
    url = make_user(**PERMISSIONS[user])
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        assert denied(connection, rights_of(3)[USERS[user]]) == []


def test_the_users_of_the_stack_have_what_their_services_need(make_user: Callable[..., str]) -> None:
    definitions = json.loads((ROOT / "deploy/compose/rabbitmq/definitions.json").read_text(encoding="utf-8"))
    users = {"entry": CAMERAS, "exit": CAMERAS, "queues": WORKER, "worker": WORKER, "dashboard": DASHBOARD}
    given = {each["user"]: each for each in definitions["permissions"] if each["user"] in users}
    assert given.keys() == users.keys()
    for user, who in users.items():
        url = make_user(**{kind: given[user][kind] for kind in (CONFIGURE, WRITE, READ)})
        with pika.BlockingConnection(pika.URLParameters(url)) as connection:
            assert denied(connection, rights_of(3)[who]) == []


@pytest.mark.parametrize("are_there", [True, False])
def test_each_right_that_is_missing_is_found_and_trying_changes_nothing(
    make_user: Callable[..., str], broker_url: str, management_url: str, are_there: bool
) -> None:
    host = broker_url.rpartition("/")[2]
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        if are_there:
            declare_queues(channel)
            channel.basic_publish("", "vehicle_entry", b"1")
    needed = rights_of(1)[WORKER]
    assert {right.kind for right in needed} == {CONFIGURE, WRITE, READ}
    for lost in needed:
        names = [right.name.replace(".", r"\.") for right in needed if right.kind == lost.kind and right != lost]
        allowed = dict.fromkeys((CONFIGURE, WRITE, READ), ".*") | {lost.kind: f"^({'|'.join(names)})$"}
        with pika.BlockingConnection(pika.URLParameters(make_user(**allowed))) as connection:
            assert denied(connection, needed) == [lost]
    with requests.Session() as session:
        queues = session.get(f"{management_url}/api/queues/{host}?disable_stats=true", timeout=10).json()
    assert len(queues) == (9 if are_there else 0)
    if are_there:
        with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
            method, _, _ = connection.channel().basic_get("vehicle_entry")
            assert (method.message_count, method.redelivered) == (0, False)


@pytest.mark.parametrize(
    ("rights", "lacks"),
    [
        ({CONFIGURE: ".*", READ: ".*"}, r"write vehicle_entry\.1"),
        ({CONFIGURE: ".*", WRITE: ".*", READ: r"^vehicle_(entry|events)"}, "read vehicle_exit.1, read"),
        ({CONFIGURE: ".*", WRITE: ".*", READ: r"^(vehicle_|carpark_)[a-z]+(\.DQ)?$"}, r"read vehicle_entry\.1"),
        ({CONFIGURE: ".*", WRITE: r"^vehicle_", READ: ".*"}, r"write amq\.default"),
        ({CONFIGURE: r"\.(DQ|XQ)$", WRITE: ".*", READ: ".*"}, r"configure vehicle_entry\.1"),
        ({}, "configure vehicle_entry.1"),
    ],
)
def test_a_worker_whose_user_lacks_a_right_ends_with_one_line(
    start: Callable[..., Process], broker_url: str, make_user: Callable[..., str], rights: dict[str, str], lacks: str
) -> None:
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        declare_queues(connection.channel(), all_queues(2))
    more = {"CARPARK_BROKER_URL": make_user(**rights), "CARPARK_PARTITIONS": "2"}
    for process in (worker(start, **more), start("carpark", "worker", **more)):
        line = one_line(process, "carpark: CARPARK_BROKER_URL='amqp://user0-")
        assert re.search(f"the right to {lacks}", line), line
        assert ":pw@" not in process.output
    assert process.output.count("\n") == 1  # with no line of Dramatiq beside it


@pytest.mark.parametrize("command", [("carpark", "worker"), ("carpark", "queues"), ("carpark", "dashboard")])
def test_a_service_that_rabbitmq_does_not_let_in_ends_with_one_line(
    start: Callable[..., Process], broker_url: str, command: tuple[str, ...]
) -> None:
    process = start(*command, CARPARK_BROKER_URL=broker_url.replace("guest:guest", "guest:hidden"))
    assert "refuses the user or the password" in one_line(process, "carpark: ")
    assert "CARPARK_BROKER_URL" in process.output
    assert "hidden" not in process.output


def test_a_camera_that_may_not_publish_ends_with_one_line(
    start: Callable[..., Process], channel: Any, make_user: Callable[..., str]
) -> None:
    process = start("carpark", "generate", "entry", CARPARK_BROKER_URL=make_user(write="^vehicle_entry$"))
    line = one_line(process, "carpark: CARPARK_BROKER_URL='amqp://user0-")
    assert line.endswith("wanted a user with the right to write vehicle_events (docs/reference/rights.md)")


def test_a_right_to_publish_that_is_taken_away_is_waited_for(
    start: Callable[..., Process], channel: Any, make_user: Callable[..., str], management_url: str
) -> None:
    url = make_user(write="^vehicle_events$")
    user, host = re.findall(r"//(.+?):pw@.+/(.+)$", url)[0]

    def allow(write: str) -> None:
        rights = {"configure": "^$", "write": write, "read": "^$"}
        requests.put(f"{management_url}/api/permissions/{host}/{user}", json=rights, timeout=10).raise_for_status()

    camera = start("carpark", "generate", "entry", "--rate", "50", CARPARK_CAPACITY="0", CARPARK_BROKER_URL=url)
    eventually(lambda: count(channel, "vehicle_entry") > 10, 20)
    allow("^nothing$")
    with requests.Session() as session:  # a channel that is open remembers for a while what is allowed
        api = f"{management_url}/api/vhosts/{host}/connections"
        mine = eventually(
            lambda: [each for each in session.get(api, timeout=10).json() if each.get("user") == user], 20
        )
        for each in mine:
            session.delete(f"{management_url}/api/connections/{quote(each['name'])}", timeout=10)
    camera.wait_for_line(
        r"RabbitMQ at amqp://\S+ refuses \(.*access to exchange 'vehicle_events' .*\); \d+ events? (is|are)"
    )
    before = count(channel, "vehicle_entry")
    allow("^vehicle_events$")
    camera.wait_for_line(r"RabbitMQ is back after", 30)
    eventually(lambda: count(channel, "vehicle_entry") > before + 10, 20)
    assert camera.status is None
    assert camera.output.count("refuses") == 1


def test_a_publish_that_pika_itself_cannot_do_gives_up_no_exit(
    channel: Any, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dramatiq.errors import ConnectionClosed

    def publish(*_: object) -> None:
        raise TypeError("what pika raises")

    with contextlib.closing(RabbitmqBroker(broker_url, [])) as broker:
        monkeypatch.setattr(broker, "publish", publish)
        with pytest.raises(ConnectionClosed):
            broker.publish_marker("vehicle_entry", "m")


# Redis


def of_worker(acl: Acl, url: str = "") -> Records:
    return open_records(url or acl.set("worker", *ACLS["worker"]), 3600, ["http-csv"], attempts=0)


def commands(rights: list[str]) -> set[str]:
    """Give the commands of rights, as an ACL writes them."""
    return {"+" + re.sub("^script ", "script|", right.lower()).partition(" ")[0] for right in rights}


def test_the_page_has_what_a_user_of_redis_needs(acl: Acl) -> None:
    granted, missing = of_worker(acl).rights()
    assert missing == []
    assert commands(granted) == set(COMMANDS)
    url = acl.set("cameras", *ACLS["cameras"])
    with contextlib.closing(connect(url, attempts=0)) as client:
        granted, missing = RedisLot(client, Clock()).rights()
        assert missing == []
        assert commands(granted) == {word for word in ACLS["cameras"] if word.startswith("+") and word != "+evalsha"}
        assert RedisLot(client, Clock(), capacity=5).enter("A1", "2026-01-01T00:00:00.000000Z", "e1") is None
    for name in ("dashboard", "writer", "auditor"):
        with contextlib.closing(open_records(acl.set(name, *ACLS[name]), 3600, ["http-csv"])) as records:
            assert records.inside() == 0
            if name != "writer":
                assert len(records.snapshot().backlogs) == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_that_may_not_be_run_is_found(acl: Acl, command: str) -> None:
    url = acl.set("worker", *ACLS["worker"], command.replace("+", "-"))
    _, missing = of_worker(acl, url).rights()
    assert commands(missing) == {command}
    assert acl.admin.dbsize() == 0


@pytest.mark.parametrize(
    "pattern", ["~entry_plates ~[^c]*", "~carpark:* ~entry_plates", "%R~*", "~[A-Z0-9]* ~carpark:* ~e*"]
)
def test_keys_that_may_not_be_used_are_found(acl: Acl, pattern: str) -> None:
    url = acl.set("worker", *ACLS["worker"], "resetkeys", *pattern.split())
    _, missing = of_worker(acl, url).rights()
    assert missing
    assert acl.admin.dbsize() == 0


@pytest.mark.parametrize("command", NARROW)
def test_a_step_without_a_right_changes_nothing_and_blames_no_event(acl: Acl, command: str) -> None:
    events = [event for number in range(5) for event in stay(number)]
    records = of_worker(acl)
    assert [each.outcome for each in records.record(events[:1])] == ["recorded"]
    before = {key: acl.admin.dump(key) for key in acl.admin.scan_iter()}
    acl.set("worker", f"-{command}")
    with pytest.raises(RecordsUnavailable, match=r"may not run|can't run") as caught:
        records.record(events)
    assert caught.value.refuses
    after = {key: acl.admin.dump(key) for key in acl.admin.scan_iter()}
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert changed <= {"carpark:sinks", "carpark:counts"}
    counts = acl.admin.hgetall("carpark:counts")
    known = {"summaries": "0", "entry/duplicate": "1"}
    assert counts.items() - known.items() == {("entry/recorded", "1")}
    acl.set("worker", f"+{command}")
    assert [each.outcome for each in records.record(events)] == [
        "duplicate",
        *["matched"],
        *["recorded", "matched"] * 4,
    ]


def test_a_plate_that_this_user_may_not_write_is_no_event_s_fault(acl: Acl) -> None:
    records = of_worker(acl, acl.set("worker", *ACLS["worker"], "resetkeys", "~carpark:*", "~entry_plates", "~X*"))
    with pytest.raises(RecordsUnavailable, match=r"may not run .*HDEL"):
        records.record(stay(1))
    assert acl.admin.hgetall("carpark:counts").keys() <= {"summaries"}


@pytest.mark.parametrize(
    "lost", ["-rpush", "-pexpire", "-@all", "-evalsha", "-script", "resetkeys ~carpark:*", "<password", "off"]
)
def test_a_worker_whose_user_of_redis_is_refused_ends_with_one_line(
    start: Callable[..., Process], channel: Any, acl: Acl, lost: str
) -> None:
    url = acl.set("worker", *ACLS["worker"], *(["resetpass"] if lost == "<password" else lost.split()))
    for process in (worker(start, CARPARK_REDIS_URL=url), start("carpark", "worker", CARPARK_REDIS_URL=url)):
        line = one_line(process, "carpark: CARPARK_REDIS_URL='redis://worker:***@")
        assert "password@" not in line
        assert ": wanted " in line
    assert process.output.count("\n") == 1


def test_a_camera_and_a_dashboard_whose_user_of_redis_is_refused_end_with_one_line(
    start: Callable[..., Process], channel: Any, acl: Acl
) -> None:
    url = acl.set("cameras", *ACLS["cameras"], "-hrandfield")
    line = one_line(start("carpark", "generate", "exit", CARPARK_REDIS_URL=url), "carpark: CARPARK_REDIS_URL=")
    assert "wanted a user with the right to run HRANDFIELD carpark:entering" in line
    one_line(start("carpark", "dashboard", CARPARK_REDIS_URL=url), "carpark: CARPARK_REDIS_URL=")


def test_what_redis_refuses_once_a_worker_has_run_is_waited_for_and_makes_no_dead_letter(
    start: Callable[..., Process],
    channel: Any,
    acl: Acl,
    make_user: Callable[..., str],
    sink: Recorder,
    redis_url: str,
) -> None:
    url = acl.set("worker", *ACLS["worker"])
    user = make_user(**PERMISSIONS["worker"])
    process = start(
        *("dramatiq", "carpark.actors", "--processes", "1", "--threads", "2"),
        CARPARK_REDIS_URL=url,
        CARPARK_BROKER_URL=user,
    )
    process.wait_for_line(WORKER_READY)
    send(channel, 0)
    eventually(lambda: len(sink.ids) == 1, 30)

    def wait_for(what: str, times: int) -> None:
        eventually(lambda: process.output.count(f"[WARNING] {what}") == times, 30, what)

    refusals: list[tuple[Callable[[], object], Callable[[], object]]] = [
        (lambda: acl.set("worker", "-rpush"), lambda: acl.set("worker", "+rpush")),
        (lambda: acl.set("worker", "-@all"), lambda: acl.set("worker", *ACLS["worker"])),
        (
            lambda: acl.admin.config_set("min-replicas-to-write", 3),
            lambda: acl.admin.config_set("min-replicas-to-write", 0),
        ),
        (lambda: _replica(acl, "127.0.0.1", 1), lambda: _replica(acl, "NO", "ONE")),
        (lambda: (acl.set("worker", "off"), _cut(acl)), lambda: acl.set("worker", "on")),
    ]
    try:
        for number, (refuse, allow) in enumerate(refusals, 1):
            refuse()
            send(channel, number)
            wait_for("events wait for the records: Redis: ", number)
            allow()
            wait_for("the records are back", number)
            eventually(lambda expected=number + 1: len(sink.ids) == expected, 30)  # type: ignore[misc]
    finally:
        acl.admin.config_set("min-replicas-to-write", 0)
        _replica(acl, "NO", "ONE")
    assert [count(channel, each) for queue in all_queues(1) for each in with_companions(queue)] == [0] * 9
    assert "Traceback" not in process.output
    counts = acl.admin.hgetall("carpark:counts")
    assert counts["summaries"] == counts["summaries/http-csv/delivered"] == str(len(refusals) + 1)
    assert "exit/duplicate" not in counts


def _replica(acl: Acl, *of: object) -> None:
    acl.admin.execute_command("REPLICAOF", *of)


def _cut(acl: Acl) -> None:
    acl.admin.execute_command("CLIENT", "KILL", "USER", "worker")


def test_whatever_a_client_raises_is_the_service_s_problem() -> None:
    class Client:
        def register_script(self, _: str) -> Callable[..., object]:
            def call(**_: object) -> object:
                raise TypeError("unexpected keyword argument 'x'")

            return call

    client: Any = Client()
    with pytest.raises(
        RecordsUnavailable, match=r"^Redis: no error of its own, but TypeError: .+, at test_rights.py:\d+$"
    ) as caught:
        RedisRecords(client, 1, ()).record(stay(1))
    assert caught.value.refuses
    with contextlib.closing(connect("redis://nowhere")) as known, pytest.raises(RecordsUnavailable) as of_lot:
        RedisLot(known, Clock())._ask(client.register_script(""))
    said = str(of_lot.value)
    assert re.search(r"^Redis at \S+: no error of its own, but TypeError: .+, at test_rights.py:\d+$", said)
    assert not is_refusal(redis.exceptions.BusyLoadingError("LOADING"))
    assert not is_refusal(redis.exceptions.ResponseError("MISCONF Redis is configured to save RDB snapshots, but"))


@pytest.mark.parametrize(
    ("name", "value", "usual", "command"),
    [("maxmemory", "1", "0", "SET a 1"), ("replica-serve-stale-data", "no", "yes", "GET a")],
)
def test_what_redis_refuses_only_for_now_is_no_refusal(
    acl: Acl, name: str, value: str, usual: str, command: str
) -> None:
    acl.admin.config_set(name, value)
    try:
        if name == "replica-serve-stale-data":
            _replica(acl, "127.0.0.1", "1")
        with pytest.raises(redis.exceptions.ResponseError, match=r"maxmemory|MASTER is down") as caught:
            acl.admin.execute_command(*command.split())
    finally:
        acl.admin.config_set(name, usual)
        _replica(acl, "NO", "ONE")
    assert not is_refusal(caught.value)


# The doctor


def examine(start: Callable[..., Process], **more: str) -> tuple[int, dict[str, dict[str, str]]]:
    process = start("carpark", "doctor", "--json", **more)
    status = process.wait()
    return status, {each["check"]: each for each in json.loads(process.output)["checks"]}


def test_the_doctor_tries_each_right_of_both_servers(
    start: Callable[..., Process], channel: Any, acl: Acl, make_user: Callable[..., str]
) -> None:
    _, checks = examine(start)
    assert checks["rabbitmq rights"]["found"] == f"enough for {CAMERAS}, {WORKER}, {DASHBOARD}, {VERIFY}"
    assert checks["redis rights"]["found"] == "enough for worker, cameras, dashboard, writer"
    for name in ("cameras", "worker"):
        _, checks = examine(
            start,
            CARPARK_REDIS_URL=acl.set(name, *ACLS[name]),
            CARPARK_BROKER_URL=make_user(**PERMISSIONS[name]),
        )
        for check in ("rabbitmq rights", "redis rights"):
            assert checks[check]["level"] == "ok", checks[check]
            assert checks[check]["found"].startswith(f"enough for {name}")
        assert checks["redis persistence"]["level"] == "warning"
        assert "may not ask INFO" in checks["redis persistence"]["found"]
    status, checks = examine(
        start,
        CARPARK_REDIS_URL=acl.set("worker", "-zrem", "-ltrim"),
        CARPARK_BROKER_URL=make_user(**{**PERMISSIONS["worker"], READ: "^(vehicle_entry|vehicle_events)$"}),
    )
    assert status == 1
    assert checks["redis rights"]["level"] == checks["rabbitmq rights"]["level"] == "problem"
    assert "worker lacks LTRIM carpark:outbox:http-csv, ZREM carpark:alone:http-csv" in checks["redis rights"]["found"]
    assert "worker and queues lacks read vehicle_entry.DQ, read vehicle_exit" in checks["rabbitmq rights"]["found"]
    assert checks["redis rights"]["advice"] == "docs/reference/rights.md has what each service needs"


def test_every_event_queue_has_its_rights() -> None:
    names = {right.name for right in rights_of(4)[WORKER]}
    assert set(event_queues(4)) < names
    assert Right(READ, "vehicle_exit.3.DQ") in rights_of(4)[WORKER]
    assert str(Right(READ, "a")) == "read a"


def test_the_page_is_made_for_the_names_that_there_are(tmp_path: Path) -> None:
    assert set(ACLS) == {"worker", "cameras", "dashboard", "writer", "auditor"}
    assert set(PERMISSIONS) == set(USERS)
