"""What the pages show that speak of messages is run, on a real RabbitMQ."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pika
import pytest
import redis

from carpark.broker.reading import EventMessage, RejectedMessage, read_body
from carpark.domain.events import Event, StaySummary, VehicleEntered, VehicleExited, canonical_plate, load_json
from carpark.domain.schemas import schema_of
from tests.support.helpers import eventually
from tests.support.processes import ROOT, WORKER_READY, Processes
from tests.support.recorder import Recorder

PAGE = (ROOT / "docs/reference/messages.md").read_text(encoding="utf-8")
PAGES = PAGE + "".join(
    (ROOT / "docs" / name).read_text(encoding="utf-8")
    for name in ("how-to/publish-events.md", "tutorial/events-by-hand.md")
)


def example(name: str) -> str:
    """The text of the code block behind a marker."""
    found = re.findall(rf"<!-- example: {name} -->\n```\w+\n(.*?)```\n", PAGES, re.DOTALL)
    assert len(found) == 1, f"wanted one example {name!r} on the pages"
    text: str = found[0]
    return text


def run(argv: list[str], text: str, **environ: str) -> str:
    done = subprocess.run(
        argv, input=text, env={**os.environ, **environ}, capture_output=True, encoding="utf-8", timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def needed(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"there is no {program} on this machine to run the example with")
    return path


@pytest.fixture
def shell(broker_url: str, management_url: str) -> dict[str, str]:
    """The variables that the page's shell examples look at."""
    return {"CARPARK_MANAGEMENT_URL": management_url, "VHOST": urlsplit(broker_url).path.strip("/") or "%2F"}


def take(channel: Any, queue: str) -> tuple[Event, Any]:
    """The one message of a queue, as the backend reads it."""
    method, properties, body = channel.basic_get(queue, auto_ack=True)
    assert method is not None, f"{queue} is empty"
    assert channel.basic_get(queue, auto_ack=True)[0] is None
    message = read_body(queue, body)
    assert isinstance(message, EventMessage), message
    assert message.event == type(message.event).parse(load_json(body))
    return message.event, properties


def test_the_pika_example_publishes_an_entry_and_an_exit_of_one_vehicle(channel: Any, broker_url: str) -> None:
    printed = run([sys.executable, "-"], example("pika"), CARPARK_BROKER_URL=broker_url)
    entered, properties = take(channel, "vehicle_entry")
    exited, _ = take(channel, "vehicle_exit")
    assert isinstance(entered, VehicleEntered)
    assert isinstance(exited, VehicleExited)
    assert entered.vehicle_plate == exited.vehicle_plate == "BÄB123"
    assert StaySummary.of_stay(exited.id, "BÄB123", entered.time, exited.time).duration == 5400
    assert printed == f"vehicle_entry {entered.id}\nvehicle_exit {exited.id}\n"
    assert properties.delivery_mode == 2


def test_the_pika_example_imports_nothing_of_ours() -> None:
    tree = ast.parse(example("pika"))
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names])
    }
    assert imported - set(sys.stdlib_module_names) == {"pika"}


def test_the_pika_example_fails_when_the_exchange_or_the_queue_is_not_there(broker_url: str) -> None:
    with pytest.raises(AssertionError, match="no exchange 'vehicle_events'"):
        run([sys.executable, "-"], example("pika"), CARPARK_BROKER_URL=broker_url)
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        connection.channel().exchange_declare("vehicle_events", durable=True)
    with pytest.raises(AssertionError, match="UnroutableError"):
        run([sys.executable, "-"], example("pika"), CARPARK_BROKER_URL=broker_url)


def test_the_curl_example_publishes_an_entry(channel: Any, shell: dict[str, str]) -> None:
    needed("curl")
    assert json.loads(run(["sh", "-eu"], example("curl"), **shell)) == {"routed": True}
    event, properties = take(channel, "vehicle_entry")
    assert isinstance(event, VehicleEntered)
    assert event.vehicle_plate == "BAB123"
    assert properties.delivery_mode == 2


def test_the_events_that_are_published_by_hand_are_of_one_vehicle_but_the_one_that_is_none(
    channel: Any, shell: dict[str, str]
) -> None:
    needed("curl")
    run(["sh", "-eu"], example("curl") + example("leaving"), **shell)
    assert take(channel, "vehicle_entry")[0].vehicle_plate == take(channel, "vehicle_exit")[0].vehicle_plate
    run(["sh", "-eu"], example("curl") + example("garbage"), **shell)
    bodies = [channel.basic_get("vehicle_entry", auto_ack=True)[2] for _ in range(2)]
    assert [type(read_body("vehicle_entry", body)) for body in bodies] == [EventMessage, RejectedMessage]


def test_the_go_example_has_the_form_that_go_gives_it(tmp_path: Path) -> None:
    # Running it wants a module from outside; when the page was written it was run.
    source = tmp_path / "main.go"
    source.write_text(example("go"), encoding="utf-8")
    assert run([needed("gofmt"), "-l", "-e", str(source)], "") == ""


def test_the_events_of_the_page_become_its_summary() -> None:
    entered = VehicleEntered.parse(load_json(example("entry").encode()))
    exited = VehicleExited.parse(load_json(example("exit").encode()))
    shown = json.loads(example("summary"))
    assert entered.vehicle_plate == exited.vehicle_plate
    assert StaySummary.of_stay(exited.id, exited.vehicle_plate, entered.time, exited.time).to_dict() == shown


@pytest.mark.parametrize(
    ("name", "schema"), [("entry", "vehicle_entry"), ("exit", "vehicle_exit"), ("summary", "stay_summary")]
)
def test_the_objects_of_the_page_satisfy_their_schemas(name: str, schema: str) -> None:
    jsonschema.validate(json.loads(example(name)), schema_of(schema))
    assert f"(schemas/{schema}.json)" in PAGE


def test_the_dramatiq_form_of_the_page_is_the_bare_event_of_the_page() -> None:
    message = read_body("vehicle_entry", example("dramatiq").encode())
    assert isinstance(message, EventMessage), message
    assert message.event == VehicleEntered.parse(json.loads(example("entry")))
    assert message.message_id == json.loads(example("dramatiq"))["message_id"]
    assert message.sent_at == pytest.approx(json.loads(example("dramatiq"))["message_timestamp"] / 1000)


def error_rows() -> list[tuple[str, str]]:
    table = PAGE.partition("<!-- example: errors -->\n")[2]
    return re.findall(r"^\| `(.+?)` \| `(.+)` \|$", table, re.MULTILINE)


def test_the_table_of_errors_has_its_rows() -> None:
    assert len(error_rows()) >= 10


@pytest.mark.parametrize(("body", "error"), error_rows())
def test_the_errors_of_the_page_are_those_that_come(body: str, error: str) -> None:
    message = read_body("vehicle_entry", body.encode())
    assert isinstance(message, RejectedMessage)
    assert message.error == error


def test_the_spellings_of_the_page_are_of_one_plate_each() -> None:
    table = PAGE.partition("<!-- example: plates -->\n")[2].partition("\n\n")[0].splitlines()[2:]
    assert len(table) > 5
    for row in table:
        canonical, *spellings = re.findall(r"`([^`]+)`", row)
        assert spellings
        assert {canonical_plate(spelling) for spelling in spellings} == {canonical}


def test_published_as_the_page_says_a_stay_is_summarised_and_garbage_is_found_in_the_dead_letters(
    channel: Any, server_environ: dict[str, str], shell: dict[str, str], redis_url: str, processes: Processes
) -> None:
    needed("curl")
    with Recorder() as sink:
        environ = {**server_environ, "CARPARK_WRITER_URL": sink.url}
        worker = processes.start(["carpark", "worker", "--processes", "1", "--threads", "2"], environ)
        worker.wait_for_line(WORKER_READY, timeout=30)
        for body, _ in error_rows():
            channel.basic_publish("", "vehicle_entry", body.encode())
        printed = run([sys.executable, "-"], example("pika"), CARPARK_BROKER_URL=server_environ["CARPARK_BROKER_URL"])
        exit_id = printed.split()[-1]
        eventually(lambda: sink.taken == [exit_id], timeout=20, what="the summary of the stay")
        eventually(
            lambda: channel.queue_declare("vehicle_entry.XQ", passive=True).method.message_count == len(error_rows()),
            what="all dead letters",
        )
        with redis.Redis.from_url(redis_url, decode_responses=True) as client:
            assert json.loads(str(client.hget("BÄB123", "parking_exit_data")))["id"] == exit_id
        dead = json.loads(run(["sh", "-eu"], example("dead"), **shell))
    assert len(dead) == 10
    errors = dict(error_rows())
    for letter in dead:
        headers = letter["properties"]["headers"]
        assert headers["x-carpark-error"] == errors[letter["payload"]]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", headers["x-carpark-dead-at"])
        assert "x-carpark-traceback" not in headers
    assert channel.queue_declare("vehicle_entry.XQ", passive=True).method.message_count == len(errors)
