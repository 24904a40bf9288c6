"""The backend's page: one scrape shows Dramatiq's numbers and ours, summed over all worker processes."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
import requests

from generators.wire import message_body
from tests.support.garbage import bare, dramatiq_body
from tests.support.helpers import eventually, find_free_port, is_listening
from tests.support.processes import Process, Processes
from tests.support.recorder import Recorder
from tests.support.scraping import PAGE, Page
from tests.support.stays import entered, exited

TWO = ("--processes", "2", "--threads", "4")
ONE = ("--processes", "1", "--threads", "2")
MATCHED = {"entry": ("recorded", "matched"), "exit": ("unmatched", "matched")}


@pytest.fixture
def environ(server_environ: dict[str, str], sink: Recorder, tmp_path: Path) -> dict[str, str]:
    """With a temporary folder of the test's own, so that the folders of numbers are those of its masters."""
    (tmp_path / "tmp").mkdir()
    return {**server_environ, "CARPARK_WRITER_URL": sink.url, "TMPDIR": str(tmp_path / "tmp")}


def start(processes: Processes, environ: dict[str, str], *options: str, **more: str) -> tuple[Process, str]:
    worker = processes.start(["dramatiq", "carpark.actors", *options], env={**environ, **more})
    return worker, worker.wait_for_line(PAGE, 60)[1]


def publish_stays(channel: Any, first: int, count: int) -> None:
    """Publish entries and exits as our generators do."""
    messages = []
    for number in range(first, first + count):
        plate = f"PL{number:05}"
        events = (entered(f"e{number}", plate), exited(f"x{number}", plate))
        messages += [(event.queue, message_body(event)) for event in events]
    random.shuffle(messages)
    for queue, body in messages:
        channel.basic_publish("", queue, body)


def counted(page: Page, kind: str) -> float:
    return sum(page.total("go_backend_events_total", event=kind, outcome=outcome) for outcome in MATCHED[kind])


def folders(environ: dict[str, str]) -> set[str]:
    return {path.name for base in Path(environ["TMPDIR"]).glob("carpark-metrics-*") for path in base.iterdir()}


def test_the_page_adds_up_two_processes_and_grows_by_no_series(
    processes: Processes, environ: dict[str, str], channel: Any, store: redis.Redis
) -> None:
    _, url = start(processes, environ, *TWO)
    before = Page.get(url)
    publish_stays(channel, 0, 200)
    for body in (b"nope", dramatiq_body(actor_name="made_up"), dramatiq_body(kwargs={"vehicle_plate": "NEVER1"})):
        channel.basic_publish("", "vehicle_entry", body)
    channel.basic_publish("", "vehicle_exit", message_body(exited("alone", "ALONE1")))
    channel.basic_publish("", "vehicle_entry", bare(id="in", vehicle_plate="INSIDE1"))
    channel.basic_publish("", "vehicle_entry", bare(id="in", vehicle_plate="INSIDE1"))

    def done() -> Page:
        page = Page.get(url)
        assert page.events_worked_on == 406
        assert page.total("go_backend_summaries_total", outcome="delivered") == 200
        assert page.total("dramatiq_message_rejects_total") == 3
        assert page.total("dramatiq_messages_inprogress") == 0
        return page

    page = eventually(done, 40)
    assert (counted(page, "entry"), counted(page, "exit")) == (201, 201)
    counts = {name: int(value) for name, value in store.hgetall("carpark:counts").items()}
    events = {
        f"{event}/{outcome}": page.total("go_backend_events_total", event=event, outcome=outcome)
        for event in ("entry", "exit")
        for outcome in ("recorded", "matched", "unmatched", "duplicate", "rejected", "abandoned")
    }
    assert {name: value for name, value in events.items() if value} == {
        name: value for name, value in counts.items() if value and not name.startswith("summaries")
    }
    assert events["entry/duplicate"] == 1
    assert events["entry/rejected"] == 3
    assert page.total("dramatiq_message_rejects_total", queue_name="vehicle_entry", actor_name="vehicle_entry") == 3
    assert page.total("go_backend_vehicles_inside") == store.scard("entry_plates") == 1
    assert page.total("go_backend_event_latency_seconds_count", event="entry") == 200, "bare events are left out"
    assert page.total("go_backend_event_latency_seconds_count", event="exit") == 201
    assert page.total("go_backend_event_processing_seconds_count") == 403
    assert page.series().keys() == before.series().keys(), "each series is there from the start, and there are no more"
    for text in ("PL000", "made_up", "NEVER1", "INSIDE1", "http://", "amqp://", '"e1', "pid="):
        assert text not in page.text


def test_a_sink_that_fails_shows_on_the_page_of_spawned_processes_too(
    processes: Processes, environ: dict[str, str], channel: Any, sink: Recorder
) -> None:
    sink.status = 503
    retry = {"CARPARK_SINK_RETRY_MIN": "0.5", "CARPARK_SINK_RETRY_MAX": "1"}
    _, url = start(processes, environ, *TWO, "--use-spawn", **retry)
    publish_stays(channel, 0, 10)
    eventually(lambda: Page.get(url).total("go_backend_summaries_undelivered", sink="http-csv") == 10, 40)
    eventually(lambda: Page.get(url).total("go_backend_sink_open", sink="http-csv") == 1)
    page = Page.get(url)
    assert page.total("go_backend_summaries_total", sink="http-csv", outcome="retried") > 0
    assert page.total("go_backend_delivery_failures_total", sink="http-csv") > 0
    assert page.total("go_backend_summary_delivery_seconds_count") > 0
    sink.status = 201
    eventually(lambda: Page.get(url).total("go_backend_summaries_total", outcome="delivered") == 10, 40)
    page = Page.get(url)
    assert (page.total("go_backend_summaries_undelivered"), page.total("go_backend_sink_open")) == (0, 0)


def test_each_master_has_a_folder_of_its_own_and_removes_those_of_the_dead(
    processes: Processes, environ: dict[str, str], channel: Any
) -> None:
    first, url = start(processes, environ, *ONE)
    second, other = start(processes, environ, *ONE)
    assert folders(environ) == {str(first.pid), str(second.pid)}
    publish_stays(channel, 0, 50)
    eventually(lambda: sum(counted(Page.get(each), "entry") for each in (url, other)) == 50, 30)
    first.kill()
    third, url = start(processes, environ, *ONE)
    assert folders(environ) == {str(second.pid), str(third.pid)}
    assert counted(Page.get(url), "entry") == 0


def test_when_the_master_is_killed_the_page_closes(processes: Processes, environ: dict[str, str]) -> None:
    port = find_free_port()
    worker, _ = start(processes, environ, *ONE, CARPARK_METRICS_PORT=str(port))
    worker.signal(signal.SIGKILL)
    eventually(lambda: not is_listening(port))


def test_a_folder_that_a_dead_master_of_the_same_id_left_is_emptied(
    processes: Processes, environ: dict[str, str], channel: Any
) -> None:
    """SIGHUP makes the master start anew under its own process id, as a container's first process always has one."""
    worker, url = start(processes, environ, *ONE)
    publish_stays(channel, 0, 10)
    eventually(lambda: counted(Page.get(url), "entry") == 10, 30)
    worker.signal(signal.SIGHUP)
    eventually(lambda: len(re.findall(PAGE, worker.output)) == 2, 30)
    assert folders(environ) == {str(worker.pid)}
    assert counted(Page.get(re.findall(PAGE, worker.output)[1]), "entry") == 0


@pytest.mark.parametrize("command", [["dramatiq", "carpark.actors"], ["carpark", "worker"]])
def test_a_port_that_is_taken_is_one_line_and_status_2(
    processes: Processes, environ: dict[str, str], command: list[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        worker = processes.start([*command, *TWO], env={**environ, "CARPARK_METRICS_PORT": str(port)})
        assert worker.wait(30) == 2
    # One line; on a busy machine a worker process that comes up when the first has ended already says it as well.
    assert {line for line in worker.output.splitlines() if "CARPARK_METRICS_PORT" in line} == {
        f"carpark: CARPARK_METRICS_PORT: 127.0.0.1:{port} is already in use; choose another port, or 0 for a free one"
    }
    assert "Traceback" not in worker.output


def test_the_page_is_there_without_the_numbers_of_records_that_are_away(
    processes: Processes, environ: dict[str, str], channel: Any, private_redis: Any
) -> None:
    _, url = start(processes, environ, *ONE, CARPARK_REDIS_URL=private_redis.url)
    eventually(lambda: "\ngo_backend_vehicles_inside 0.0" in Page.get(url).text)
    private_redis.kill()
    page = Page.get(url)
    assert "go_backend_vehicles_inside" not in page.text
    assert "go_backend_events_total" in page.text
    private_redis.start()
    eventually(lambda: "\ngo_backend_vehicles_inside 0.0" in Page.get(url).text)


def test_a_plugin_that_imports_prometheus_client_spoils_nothing(
    processes: Processes, environ: dict[str, str], channel: Any, tmp_path: Path
) -> None:
    (tmp_path / "counting_plugin.py").write_text(
        "from prometheus_client import Counter\nfrom carpark import hookimpl\n"
        "Counter('my_plugin_loads_total', 'Times it was loaded').inc()\n"
        "@hookimpl\ndef carpark_register_sinks():\n    return []\n",
        encoding="utf-8",
    )
    _, url = start(processes, environ, *TWO, CARPARK_PLUGINS="counting_plugin", PYTHONPATH=str(tmp_path))
    publish_stays(channel, 0, 20)
    eventually(lambda: counted(Page.get(url), "exit") == 20, 30)
    assert "\nmy_plugin_loads_total 2.0" in Page.get(url).text


def numbers_of(environ: dict[str, str], worker: Process) -> Path:
    return next(Path(environ["TMPDIR"]).glob("carpark-metrics-*")) / str(worker.pid)


def counted_page(url: str, count: int) -> Callable[[], Page]:
    def right() -> Page:
        answer = requests.get(url, timeout=10)
        assert answer.status_code == 200, answer.text
        page = Page(answer.text)
        assert (counted(page, "entry"), counted(page, "exit")) == (count, count)
        return page

    return right


def test_files_that_are_no_numbers_of_a_process_are_passed_over(
    processes: Processes, environ: dict[str, str], channel: Any
) -> None:
    worker, url = start(processes, environ, *TWO)
    publish_stays(channel, 0, 20)
    before = eventually(counted_page(url, 20), 30).series().keys()
    here = numbers_of(environ, worker)
    for name in (f"counter_{worker.pid}.db", "histogram_1.db", "gauge_livesum_99999999.db"):
        (here / name).touch()
    for name in ("other.db", "counter_x.db", "gauge.db", "notes.txt", "counter_1.db.bak"):
        (here / name).write_bytes(b"\xff\xfe no numbers")
    for number, text in enumerate((b"\x01", b"\xff" * 9000, bytes(100))):
        (here / f"counter_419430{number}.db").write_bytes(text)
    (here / "counter_2.db").mkdir()
    assert counted_page(url, 20)().series().keys() == before


@pytest.mark.parametrize("text", [b"\x40\x00\x00\x00" * 20, b"not what it seems" * 100])
def test_a_torn_file_of_nobody_is_said_once_and_gone(
    processes: Processes, environ: dict[str, str], channel: Any, text: bytes
) -> None:
    worker, url = start(processes, environ, *ONE)
    publish_stays(channel, 0, 5)
    before = eventually(counted_page(url, 5), 30).series().keys()
    (numbers_of(environ, worker) / "counter_4194305.db").write_bytes(text)
    answer = requests.get(url, timeout=10)
    assert (answer.status_code, answer.text.count("\n")) == (503, 1)
    assert "counter_4194305.db" in answer.text
    assert counted_page(url, 5)().series().keys() == before


@pytest.mark.parametrize("harm", ["the folder", "a file", "garbage in a file", "zeros in a file", "another file"])
def test_numbers_that_somebody_removed_or_spoiled_are_there_again_and_none_is_lost(
    processes: Processes, environ: dict[str, str], channel: Any, harm: str
) -> None:
    worker, url = start(processes, environ, *TWO)
    publish_stays(channel, 0, 20)
    before = eventually(counted_page(url, 20), 30).series()
    here = numbers_of(environ, worker)
    counters = min(here.glob("counter_*.db"))
    if harm == "the folder":
        shutil.rmtree(here)
    elif harm == "a file":
        counters.unlink()
    elif harm == "garbage in a file":
        with counters.open("r+b") as file:
            file.seek(4)
            file.write(b"\xff" * 2000)
    elif harm == "zeros in a file":
        with counters.open("r+b") as file:
            file.write(bytes(64))
    else:
        (here / "mine").write_bytes(b"\x08" + b"\0" * 100)
        (here / "mine").replace(counters)
    if harm in ("the folder", "a file", "garbage in a file", "zeros in a file"):
        answer = requests.get(url, timeout=10)
        assert (answer.status_code, answer.text.count("\n")) == (503, 1)
    after = eventually(counted_page(url, 20), 20).series()
    assert after.keys() == before.keys()
    publish_stays(channel, 20, 30)
    eventually(counted_page(url, 50), 30)
    assert worker.status is None


def test_when_its_process_is_killed_the_page_is_there_again_and_ends_with_the_worker(
    processes: Processes, environ: dict[str, str], channel: Any
) -> None:
    port = find_free_port()
    worker, url = start(processes, environ, *TWO, CARPARK_METRICS_PORT=str(port))
    publish_stays(channel, 0, 20)
    for times in (1, 2):
        eventually(counted_page(url, 20), 30)
        os.kill(listener_on(port), signal.SIGKILL)
        eventually(lambda seen=times: len(re.findall(PAGE, worker.output)) == 1 + seen, 30)
    eventually(counted_page(url, 20), 30)
    assert worker.terminate() == 0
    eventually(lambda: not is_listening(port))
    assert "Traceback" not in worker.output


def test_the_page_that_a_worker_process_started_closes_when_the_master_is_killed(
    processes: Processes, environ: dict[str, str]
) -> None:
    port = find_free_port()
    worker, url = start(processes, environ, *ONE, CARPARK_METRICS_PORT=str(port))
    eventually(lambda: Page.get(url).text)
    os.kill(listener_on(port), signal.SIGKILL)
    eventually(lambda: len(re.findall(PAGE, worker.output)) == 2, 40)
    worker.signal(signal.SIGKILL)
    eventually(lambda: not is_listening(port))


def listener_on(port: int) -> int:
    """Find the process that listens on a port of 127.0.0.1, as Linux tells it."""
    local = f"0100007F:{port:04X}"
    inode = next(line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines() if local in line.split()[1])
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if str(link.readlink()) == f"socket:[{inode}]":
                return int(link.parts[2])
    raise AssertionError(f"nobody listens on {port}")
