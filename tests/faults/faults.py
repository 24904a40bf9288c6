"""The faults, each a function of the rig: it does the harm, sees to it that the harm was done, and mends it."""

from __future__ import annotations

import resource
import signal
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pika
import redis

from carpark.domain.events import Event, VehicleEntered, VehicleExited, format_time
from carpark.failpoints import VARIABLE
from tests.faults.rig import Rig, wait
from tests.support.garbage import GARBAGE
from tests.support.helpers import eventually

Harm = Callable[[Rig], None]

BACKEND, RABBITMQ, REDIS, WRITER, CAMERAS = "backend", "rabbitmq", "redis", "writer", "cameras"


@dataclass(frozen=True)
class Fault:
    """A fault.

    Args:
        harm: Does the harm, and mends it.
        touches: What is harmed; two faults that touch the same cannot happen at once.
    """

    harm: Harm
    touches: frozenset[str]


FAULTS: dict[str, Fault] = {}
"""Every fault, by its name in words."""

LONG_FAULTS: dict[str, Fault] = {}
"""Those that take minutes, and have a length that matters."""


_IN_THE_QUEUE_AT_MOST = 3000
"""How many events of a journal can have been in a queue that was deleted: after each fault all queues are empty."""

PAUSE_SECONDS = 10.0
AWAY_SECONDS = 1.0


def fault(name: str, *touches: str, listed: dict[str, Fault] = FAULTS) -> Callable[[Harm], Harm]:
    """Put a fault on a list."""

    def register(harm: Harm) -> Harm:
        listed[name] = Fault(harm, frozenset(touches))
        return harm

    return register


# -- the backend


def _killed_at(name: str, count: int) -> Harm:
    def harm(rig: Rig) -> None:
        said = f"failpoint {name}: killed"
        deaths, before = rig.worker.deaths, rig.worker.output.count(said)
        rig.worker.stop()
        rig.worker.start(**{VARIABLE: f"{name}:{count}"})
        eventually(lambda: rig.worker.output.count(said) > before, 60, f"failpoint {name} is reached")
        eventually(lambda: rig.worker.deaths > deaths, 60, "the worker has died")
        rig.worker.wait_ready()

    return harm


for _name, _words in {
    "before-record": "before the record",
    "after-record": "between record and sink",
    "after-sink": "between sink and settlement",
    "before-ack": "before the acknowledgement",
}.items():
    fault(f"worker SIGKILL {_words}", BACKEND)(_killed_at(_name, 5))


@fault("worker SIGKILL, whatever it does", BACKEND)
def _worker_killed(rig: Rig) -> None:
    deaths = rig.worker.deaths
    rig.worker.kill()
    eventually(lambda: rig.worker.deaths > deaths, 30, "the worker has died")
    rig.worker.wait_ready()


@fault("one of two worker processes SIGKILL", BACKEND)
def _one_worker_killed(rig: Rig) -> None:
    deaths = rig.worker.deaths
    rig.worker.kill_one()
    eventually(lambda: rig.worker.deaths > deaths, 30, "the worker has died")
    rig.worker.wait_ready()


@fault("worker SIGTERM under load", BACKEND)
def _worker_stopped(rig: Rig) -> None:
    assert rig.worker.stop() == 0
    rig.worker.start()


# -- RabbitMQ


@fault("RabbitMQ SIGKILL and restart", RABBITMQ)
def _rabbitmq_killed(rig: Rig) -> None:
    rig.rabbitmq.kill()
    wait(AWAY_SECONDS)
    rig.rabbitmq.start()


@fault("connections to RabbitMQ cut", RABBITMQ)
def _connections_cut(rig: Rig) -> None:
    proxy = rig.proxy
    assert proxy
    # Another fault of the round may have killed the worker a moment ago, and the cameras' alone are too few.
    eventually(lambda: proxy.connections >= 3, 60, "cameras and workers are connected")
    assert proxy.cut()


def _cut_in_publish(share: float) -> Harm:
    def harm(rig: Rig) -> None:
        assert rig.proxy
        for _ in range(3):
            cuts = rig.proxy.cuts
            rig.proxy.cut_in_publish(share)
            eventually(lambda cuts=cuts: rig.proxy and rig.proxy.cuts > cuts, 60, "a publish was cut")

    return harm


fault("connection cut in the middle of a publish", RABBITMQ)(_cut_in_publish(0.5))
fault("connection cut between publish and confirm", RABBITMQ)(_cut_in_publish(1.0))


@fault("connection cut in the middle of a dead letter's publish", RABBITMQ, CAMERAS)
def _cut_in_dead_letter(rig: Rig) -> None:
    """While the cameras stand still, what the backend publishes are dead letters."""
    assert rig.proxy
    for camera in rig.cameras:
        camera.pause()
    try:
        for number in range(5):
            cuts = rig.proxy.cuts
            rig.proxy.cut_in_publish(0.5)
            rig.publish([], garbage=[b"cut %d" % number])
            eventually(lambda cuts=cuts: rig.proxy and rig.proxy.cuts > cuts, 60, "a dead letter was cut")
    finally:
        for camera in rig.cameras:
            camera.go_on()


@fault("queue deleted under the consumers, journals sent again", RABBITMQ)
def _queue_deleted(rig: Rig) -> None:
    with pika.BlockingConnection(pika.URLParameters(rig.rabbitmq.url)) as connection:
        channel = connection.channel()
        for queue in ("vehicle_entry", "vehicle_exit"):
            channel.queue_delete(queue)
    # What was in them is gone, and only the journals know it. A generator sends again what its journal does not say
    # was confirmed; the backend knows most of it already. This is what docs/how-to/audit.md says to do.
    for kind, journal in zip(("entry", "exit"), rig.journals, strict=False):
        again = journal.with_name(f"{kind}-again.jsonl")
        events = [line for line in journal.read_bytes().splitlines(keepends=True) if not line.startswith(b'{"conf')]
        again.write_bytes(b'{"confirmed": 0}\n' + b"".join(events[-_IN_THE_QUEUE_AT_MOST:]))
        options = ["--events", "0", "--journal", str(again)]
        sent = rig.processes.start(["carpark", "generate", kind, *options], rig.env, name=f"{kind}-again")
        assert sent.wait(120) == 0
        again.unlink()


# -- Redis


@fault("Redis SIGKILL and restart (append-only file)", REDIS)
def _redis_killed(rig: Rig) -> None:
    rig.redis.kill()
    wait(AWAY_SECONDS)
    rig.redis.start()


@fault("Redis stands still for 10 s", REDIS)
def _redis_paused(rig: Rig) -> None:
    rig.redis.signal(signal.SIGSTOP)
    wait(PAUSE_SECONDS)
    rig.redis.signal(signal.SIGCONT)


def refuse_writes(rig: Rig, seconds: float) -> None:
    """Let Redis take no writes for a while."""
    with redis.Redis.from_url(rig.redis.url) as client:
        client.config_set("maxmemory", 1)
        try:
            recorded = rig.recorded()
            wait(seconds)
            assert rig.recorded() == recorded
        finally:
            client.config_set("maxmemory", 0)


@fault("Redis refuses writes (out of memory)", REDIS)
def _redis_full(rig: Rig) -> None:
    refuse_writes(rig, AWAY_SECONDS)


@fault("Redis away for 75 s, longer than an event waits in a worker", REDIS, listed=LONG_FAULTS)
def _redis_long_away(rig: Rig) -> None:
    rig.redis.kill()
    wait(75)
    rig.redis.start()


# -- the writer


def _writer_killed_at(name: str) -> Harm:
    def harm(rig: Rig) -> None:
        deaths = rig.writer.deaths
        rig.writer.stop()
        rig.writer.start(**{VARIABLE: f"{name}:5"})
        eventually(lambda: rig.writer.deaths > deaths, 60, f"failpoint {name} is reached")
        rig.writer.wait_ready()

    return harm


fault("writer SIGKILL with a list in hand", WRITER)(_writer_killed_at("writer-received"))
fault("writer SIGKILL between file and answer", WRITER)(_writer_killed_at("writer-written"))


def _answers(mode: str, count: int) -> Harm:
    def harm(rig: Rig) -> None:
        before = rig.gateway.spoiled.get(mode, 0)
        rig.gateway.mode = mode
        try:
            eventually(lambda: rig.gateway.spoiled.get(mode, 0) >= before + count, 60, f"the writer's answers: {mode}")
        finally:
            rig.gateway.mode = "well"

    return harm


fault("writer answers 500", WRITER)(_answers("error", 5))
fault("writer hangs", WRITER)(_answers("hang", 3))
fault("writer answers after the client's timeout (it was written)", WRITER)(_answers("late", 3))
fault("each list is posted twice", WRITER)(_answers("twice", 20))


@fault("disk full under the writer (file size limit)", WRITER)
def _disk_full(rig: Rig) -> None:
    process = rig.writer.process
    assert process
    refused = rig.gateway.statuses.get(507, 0) + rig.gateway.statuses.get(503, 0)
    limits = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    # In the middle of the next line but one or so.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (rig.csv.stat().st_size + 150, limits[1]))
    try:
        eventually(
            lambda: rig.gateway.statuses.get(507, 0) + rig.gateway.statuses.get(503, 0) > refused + 2,
            60,
            "the writer has refused lists",
        )
    finally:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, limits)


# -- the cameras and other programs


@fault("generators SIGKILL, resumed on their journals", CAMERAS)
def _cameras_killed(rig: Rig) -> None:
    for camera in rig.cameras:
        deaths = camera.deaths
        camera.kill()
        eventually(lambda camera=camera, deaths=deaths: camera.deaths > deaths, 30, "the generator has died")
        camera.wait_ready()


@fault("each message delivered twice", RABBITMQ)
def _twice(rig: Rig) -> None:
    rig.publish([event for stay in _stays(20) for event in stay], times=2)


@fault("exits before their entries", RABBITMQ)
def _exits_first(rig: Rig) -> None:
    stays = list(_stays(30))
    rig.publish([exit_ for _, exit_ in stays])
    rig.publish([entry for entry, _ in stays])


@fault("garbage between the events", RABBITMQ)
def _garbage(rig: Rig) -> None:
    rig.publish([event for stay in _stays(20) for event in stay], garbage=list(GARBAGE.values()))


def _stays(count: int) -> Iterator[tuple[Event, Event]]:
    now = datetime.now(UTC)
    for _ in range(count):
        plate, left = uuid.uuid4().hex[:12].upper(), now - timedelta(seconds=5)
        fields = {"vehicle_plate": plate}
        entered = format_time(left - timedelta(minutes=10))
        yield (
            VehicleEntered.parse({"id": str(uuid.uuid4()), **fields, "entry_date_time": entered}),
            VehicleExited.parse({"id": str(uuid.uuid4()), **fields, "exit_date_time": format_time(left)}),
        )
