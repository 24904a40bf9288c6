"""The dashboard's pages over the in-process broker: what they show, what they do, what they refuse."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from carpark.broker import StubBroker
from carpark.broker.stub import StoredMessage
from carpark.errors import BrokerUnavailable, InvalidSetting, RecordsUnavailable
from carpark.ops.dashboard import make_app, mount_dashboard
from carpark.ops.dashboard.stub import StubInterface
from carpark.records import Batch, Records, Settlement, forget_memory, open_records
from carpark.records.memory import MemoryRecords, Store
from carpark.settings import Settings
from tests.support.audited import stay
from tests.support.dashboards import CSRF, Pages, broker_with, text_of
from tests.support.garbage import GARBAGE, bare, dramatiq_body
from tests.support.stays import entered, exited

ACTIONS = ("requeue-message", "delete-message", "requeue-all", "delete-all", "send-message")
FAILED = "/queues/vehicle_entry/failed"
NONE = "\N{EN DASH}"
MakeSettings = Callable[..., Settings]


@pytest.fixture
def open_pages(make_settings: MakeSettings) -> Callable[[StubBroker], Pages]:
    def pages(broker: StubBroker) -> Pages:
        return Pages(make_app(make_settings(), StubInterface(broker)))

    return pages


OpenPages = Callable[[StubBroker], Pages]


def ids_on(page: str) -> list[str]:
    return list(dict.fromkeys(re.findall(r"/failed/([0-9a-f]{16})\"", page)))


def ids(pages: Pages, query: str = "") -> list[str]:
    return ids_on(pages.get(FAILED + query).get_data(as_text=True))


def test_the_queues_with_four_counts_and_the_worker(open_pages: OpenPages) -> None:
    broker = broker_with(b"one", b"two")
    for number in range(1234):
        broker.publish("vehicle_exit", b"%d" % number)
    text = open_pages(broker).text("/")
    assert "vehicle_entry 0 0 0 2" in text
    assert "vehicle_exit 1,234 0 0 0" in text
    assert "carpark_work 0 0 0 0" in text
    assert "carpark run" in text


def test_a_list_of_dead_letters_says_actor_arguments_times_and_reason(open_pages: OpenPages) -> None:
    pages = open_pages(broker_with(dramatiq_body(), why="sink 'http-csv': connection refused"))
    text = pages.text(FAILED)
    assert 'vehicle_entry id="g", vehicle_plate="G1", entry_date_time="2026-11-23T18:00:00Z"' in text
    assert "sink 'http-csv': connection refused 0 s ago" in text
    assert re.search(r"\d days ago Requeue", text)


def test_a_message_is_shown_with_all_that_is_known_of_it(open_pages: OpenPages) -> None:
    broker = broker_with()
    headers = {"x-carpark-error": "ValueError: no", "x-carpark-traceback": "Traceback ...\n  line 1", "mine": "kept"}
    broker.dead["vehicle_entry"].append(StoredMessage(dramatiq_body(), headers))
    pages = open_pages(broker)
    text = pages.text(f"{FAILED}/{ids(pages)[0]}")
    for part in ("ValueError: no", "Traceback ... line 1", "mine kept", "2023-11-14 22:13:20 UTC", '"kwargs": {'):
        assert part in text


def test_every_piece_of_garbage_has_its_row_and_its_pages(open_pages: OpenPages) -> None:
    pages = open_pages(broker_with(*GARBAGE.values()))
    found = ids(pages)
    assert len(found) == len(GARBAGE)
    for message_id in found:
        for path in (f"{FAILED}/{message_id}", f"/ask?do=delete-message&queue=vehicle_entry.XQ&id={message_id}"):
            response = pages.get(path)
            assert response.status_code == 200
            assert "not wanted" in text_of(response)


def test_what_a_message_says_is_text_and_never_markup(open_pages: OpenPages) -> None:
    script = "<script>alert(1)</script>\"'>"
    broker = broker_with()
    body = bare(vehicle_plate=script, **{script: script}) + b" "
    broker.dead["vehicle_entry"].append(StoredMessage(body, {"x-carpark-error": script, script: script}))
    pages = open_pages(broker)
    for path in (
        *(FAILED, f"{FAILED}/{ids(pages)[0]}", f"{FAILED}?match=%3Cscript%3E", f"{FAILED}?said={script}"),
        f"/ask?do=delete-all&queue=vehicle_entry.XQ&match={script}",
    ):
        response = pages.get(path)
        assert response.status_code == 200
        assert "<script" not in response.get_data(as_text=True)


def test_five_megabytes_are_shown_shortened(open_pages: OpenPages) -> None:
    pages = open_pages(broker_with(b'"' + b"x" * 5_000_000 + b'"'))
    for path in (FAILED, f"{FAILED}/{ids(pages)[0]}"):
        assert len(pages.get(path).data) < 120_000
    assert "Shortened: the body has 5,000,002 bytes" in pages.text(f"{FAILED}/{ids(pages)[0]}")


def test_pages_of_fifty_lead_on_and_back(open_pages: OpenPages) -> None:
    pages = open_pages(broker_with(*(b"%d" % number for number in range(120))))
    seen = [ids(pages, f"?cursor={cursor}") for cursor in (0, 50, 100)]
    assert [len(each) for each in seen] == [50, 50, 20]
    assert len({message_id for each in seen for message_id in each}) == 120
    first, last = pages.get(FAILED).get_data(as_text=True), pages.get(f"{FAILED}?cursor=100").get_data(as_text=True)
    assert f'rel="next" href="{FAILED}?cursor=50"' in first
    assert 'rel="prev"' not in first
    assert f'rel="prev" href="{FAILED}?cursor=50"' in last
    assert 'rel="next"' not in last


def test_behind_the_thousandth_message_the_page_points_to_the_command(open_pages: OpenPages) -> None:
    pages = open_pages(broker_with(*(b"%d" % number for number in range(1001))))
    hint = "carpark dlq list --queue vehicle_entry --offset 1000"
    assert hint not in pages.text(FAILED)
    assert hint in pages.text(f"{FAILED}?cursor=950")


def test_requeue_puts_a_message_back_as_it_came(open_pages: OpenPages) -> None:
    broker = broker_with(b"one", b"two", b"three")
    pages = open_pages(broker)
    answer = pages.post("/requeue-message", {"queue": "vehicle_entry.XQ", "id": ids(pages)[1]})
    assert answer.status_code == 302
    assert "1 message was sent to the queue again" in pages.text(answer.location)
    assert [letter.body for letter in broker.dead["vehicle_entry"]] == [b"one", b"three"]
    assert broker.messages("vehicle_entry") == [StoredMessage(b"two", {"n": 1})]


def test_delete_asks_and_then_takes_that_one_alone(open_pages: OpenPages) -> None:
    broker = broker_with(b"one", b"two", b"three")
    pages = open_pages(broker)
    page = pages.get(f"/ask?do=delete-message&queue=vehicle_entry.XQ&id={ids(pages)[1]}")
    assert "Delete this message?" in text_of(page)
    assert 'action="/delete-message"' in page.get_data(as_text=True)
    answer = pages.post("/delete-message", {"queue": "vehicle_entry.XQ", "id": ids(pages)[1]})
    assert "1 message was deleted" in pages.text(answer.location)
    assert [letter.body for letter in broker.dead["vehicle_entry"]] == [b"one", b"three"]


def test_all_that_match_and_no_more_than_were_asked_about(open_pages: OpenPages) -> None:
    broker = broker_with(*(b"%s %d" % (kind, n) for n in range(3) for kind in (b"red", b"blue")))
    pages = open_pages(broker)
    assert "Requeue 3 dead letters" in pages.text("/ask?do=requeue-all&queue=vehicle_entry.XQ&match=RED")
    broker.dead["vehicle_entry"].append(StoredMessage(b"red 4"))
    pages.post("/requeue-all", {"queue": "vehicle_entry.XQ", "match": "RED", "count": 3})
    assert [letter.body for letter in broker.messages("vehicle_entry")] == [b"red 0", b"red 1", b"red 2"]
    assert "Delete 4 dead letters" in pages.text("/ask?do=delete-all&queue=vehicle_entry.XQ")
    broker.dead["vehicle_entry"].append(StoredMessage(b"new"))
    pages.post("/delete-all", {"queue": "vehicle_entry.XQ", "count": 4})
    assert [letter.body for letter in broker.dead["vehicle_entry"]] == [b"new"]


def test_a_mended_body_is_sent_in_place_of_the_dead_one(open_pages: OpenPages) -> None:
    broker = broker_with(bare(vehicle_plate="<b>"), b"next")
    pages = open_pages(broker)
    form = {"queue": "vehicle_entry.XQ", "id": ids(pages)[0], "body": bare(vehicle_plate="-").decode()}
    refused = pages.post("/send-message", form)
    assert refused.status_code == 422
    assert "vehicle_plate:" in text_of(refused)
    assert len(broker.dead["vehicle_entry"]) == 2
    answer = pages.post("/send-message", {**form, "body": '{\r\n"a": 1, ' + bare().decode()[1:]})
    assert "1 message was mended and sent" in pages.text(answer.location)
    assert [letter.body for letter in broker.messages("vehicle_entry")] == [b'{\n"a": 1, ' + bare()[1:]]
    assert [letter.body for letter in broker.dead["vehicle_entry"]] == [b"next"]


def test_what_somebody_has_put_on_a_delay_queue_can_be_looked_at(open_pages: OpenPages) -> None:
    broker = broker_with()
    broker.publish("vehicle_exit.DQ", bare())
    text = open_pages(broker).text("/queues/vehicle_exit/delayed")
    assert 'vehicle_plate="G1"' in text
    assert "Requeue" not in text


@pytest.mark.parametrize(
    "path", ["/requeue-message", "/delete-message", "/requeue-all", "/delete-all", "/send-message"]
)
def test_nothing_moves_without_a_post_and_its_token(open_pages: OpenPages, path: str) -> None:
    broker = broker_with(bare())
    pages = open_pages(broker)
    form = {"queue": "vehicle_entry.XQ", "id": ids(pages)[0], "count": 1, "body": bare().decode()}
    assert pages.get(f"{path}?queue=vehicle_entry.XQ&id={form['id']}&count=1").status_code == 405
    assert pages.post(path, form, token=False).status_code == 403
    assert pages.post(path, {**form, CSRF: "0" * 64}, token=False).status_code == 403
    assert len(broker.dead["vehicle_entry"]) == 1
    assert pages.post(path, form).status_code == 302
    assert broker.dead["vehicle_entry"] == []


def test_a_foreign_cookie_is_not_printed(open_pages: OpenPages) -> None:
    pages = open_pages(broker_with(b"x"))
    answer = pages.get(FAILED, Cookie=f'{CSRF}="><script>alert(1)</script>')
    assert b"<script" not in answer.data
    assert "SameSite=Strict" not in answer.headers["Set-Cookie"]  # the guard adds it


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nope", 404),
        ("/queues/other", 404),
        ("/queues/other/failed", 404),
        ("/queues/vehicle_entry/other", 404),
        ("/queues/vehicle_entry%0a/failed", 404),
        (f"{FAILED}?cursor=x", 400),
        (f"{FAILED}?cursor=-1", 400),
        (f"{FAILED}?cursor=²", 400),
        ("/ask?do=other&queue=vehicle_entry.XQ", 400),
        ("/ask?do=delete-all&queue=vehicle_entry", 404),
        ("/ask?do=delete-all", 404),
        (f"{FAILED}/0000000000000000", 302),
    ],
)
def test_wrong_addresses_are_answered_with_a_page(open_pages: OpenPages, path: str, status: int) -> None:
    answer = open_pages(broker_with(b"x")).get(path)
    assert answer.status_code == status
    assert b"Traceback" not in answer.data


def test_wrong_forms_are_answered_with_a_page(open_pages: OpenPages) -> None:
    pages = open_pages(broker_with(b"x"))
    assert pages.post("/requeue-all", {"queue": "vehicle_entry", "count": 1}).status_code == 404
    assert pages.post("/requeue-all", {"queue": "vehicle_entry.XQ"}).status_code == 400
    assert pages.post("/delete-all", {"queue": "vehicle_entry.XQ", "count": "1e3"}).status_code == 400
    assert pages.client.post("/delete-all", data=b"a=%ff").status_code == 400
    assert pages.client.post("/delete-all", data=b"a" * 2_000_000).status_code == 400


def test_a_broker_that_is_away_is_a_page_that_says_so(make_settings: MakeSettings) -> None:
    class Away(StubInterface):
        @property
        def queues(self) -> Any:
            raise BrokerUnavailable("RabbitMQ at there: connection refused; start RabbitMQ")

    pages = Pages(make_app(make_settings(), Away(broker_with())))
    for path in ("/", FAILED):
        answer = pages.get(path)
        assert answer.status_code == 503
        assert "connection refused; start RabbitMQ" in text_of(answer)
    park = pages.get("/carpark")
    assert park.status_code == 200
    assert "connection refused; start RabbitMQ" in text_of(park)


def test_a_mistake_of_its_own_is_logged_and_not_shown(
    make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(StubInterface):
        @property
        def queues(self) -> Any:
            raise ZeroDivisionError("secret")

    answer = Pages(make_app(make_settings(), Broken(broker_with()))).get("/")
    assert answer.status_code == 500
    assert b"secret" not in answer.data
    assert "ZeroDivisionError: secret" in caplog.text


@pytest.fixture
def park(make_settings: MakeSettings) -> Iterator[tuple[Pages, StubBroker, Records, list[float]]]:
    """The pages over records of this process with two sinks; what time it is can be set."""
    now = [1000.0]
    settings = make_settings(redis_url="memory://dashboard-page", sinks="http-csv,webhook")
    records = open_records(settings.redis_url, settings.retention, settings.sinks, lambda: now[0])
    broker = broker_with()
    yield Pages(make_app(settings, StubInterface(broker), records)), broker, records, now
    forget_memory("memory://dashboard-page")


Park = tuple[Pages, StubBroker, Records, list[float]]


def test_the_car_park_at_one_look(park: Park) -> None:
    pages, broker, records, _ = park
    records.record([event for number in range(1200) for event in stay(number)])
    records.record([*(entered(f"in{number}", f"IN{number}") for number in range(2)), exited("out", "OUT")])
    records.reject("exit")
    for sink in ("http-csv", "webhook"):
        while isinstance(batch := records.outbox(sink).take(5), Batch):
            records.outbox(sink).settle(batch, Settlement(delivered=None))
    text = pages.text("/carpark")
    for part in (
        "Inside 2 vehicles",
        "Matched 1,200 exits",
        "Unmatched 1 exits",
        "Rejected 1 messages",
        "All is well.",
    ):
        assert part in text
    assert f"http-csv 1,200 0 {NONE} 0 0 {NONE} webhook 1,200 0 {NONE} 0 0 {NONE}" in text
    broker.dead["vehicle_exit"].append(StoredMessage(b"x"))
    assert "vehicle_exit has 1 dead letter." in pages.text("/carpark")


def test_a_sink_that_fails_says_what_waits_how_often_it_was_tried_and_when_it_is_tried_again(park: Park) -> None:
    pages, _, records, now = park
    records.record([event for number in range(12) for event in stay(number)])
    outbox = records.outbox("webhook")
    for attempt in (1, 2):
        now[0] += 60
        records.outbox("http-csv").take(5)
        batch = outbox.take(5)
        assert isinstance(batch, Batch)
        assert batch.attempt == attempt
        outbox.settle(batch, Settlement(error="connection <refused>", delay=20))
    text = pages.text("/carpark")
    assert (
        "Sink webhook has failed for 1 min (connection <refused>); 12 summaries not yet delivered to sink webhook, the "
        "oldest for 2 min, next attempt in 20 s: repair what it writes to" in text
    )
    assert "webhook connection <refused> 0 12 2 min 0 2 in 20 s" in text
    now[0] += 20
    batch = outbox.take(5)
    assert isinstance(batch, Batch)
    ids = [summary.id for summary in batch.summaries]
    outbox.settle(batch, Settlement(delivered=ids[:9], dead=ids[9:10], alone=dict.fromkeys(ids[10:], 30.0)))
    text = pages.text("/carpark")
    assert "Sink webhook takes others and not these: 2 summaries, each tried again alone, next attempt in 30 s" in text
    assert "1 summary given up for sink webhook: see why with `carpark dlq list --queue carpark_work" in text
    assert re.search(r"webhook 9 2 2 min 1 0 in 30 s", text)


def test_a_sink_that_no_worker_has_is_named_with_number_age_and_the_way_out(park: Park) -> None:
    pages, _, _, now = park
    old = open_records("memory://dashboard-page", 3600, ["gone"], lambda: now[0])
    old.record(stay(1))
    old.outbox("gone").take(5)
    now[0] += 34
    assert "no worker has" not in pages.text("/carpark"), "one asked for it just now"
    now[0] += 2
    text = pages.text("/carpark")
    assert (
        "1 summary not yet delivered to sink gone, the oldest for 36 s, and no worker asks for it: none has it, or its "
        "call hangs: start one with gone in CARPARK_SINKS, or make dead letters of them with "
        "`carpark dlq give-up gone`." in text
    )
    assert f"gone no worker has it 0 1 36 s 0 1 {NONE}" in text


def test_records_that_are_away_are_a_page_that_says_so(make_settings: MakeSettings) -> None:
    class Away(MemoryRecords):
        def counts(self) -> dict[str, int]:
            raise RecordsUnavailable("Redis: connection refused")

    away = Away(Store(), 1)
    answer = Pages(make_app(make_settings(), StubInterface(broker_with()), away)).get("/carpark")
    assert answer.status_code == 503
    assert "Redis: connection refused" in text_of(answer)


def test_one_call_mounts_it_in_another_application(make_settings: MakeSettings) -> None:
    def other(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [environ["PATH_INFO"].encode()]

    broker = broker_with(b"one", b"two")
    pages = Pages(mount_dashboard(other, make_settings(), "/dashboard", StubInterface(broker)), "/dashboard")
    assert pages.client.get("/dashboards").data == b"/dashboards"
    assert pages.client.get("/").data == b"/"
    assert "vehicle_entry 0 0 0 2" in pages.text("")
    page = pages.get(FAILED).get_data(as_text=True)
    assert set(re.findall(r'(?:href|action)="(/[^/"]*)', page)) == {"/dashboard"}
    answer = pages.post("/requeue-message", {"queue": "vehicle_entry.XQ", "id": ids_on(page)[0]})
    assert answer.location.startswith("/dashboard/queues/vehicle_entry/failed?")
    assert [letter.body for letter in broker.messages("vehicle_entry")] == [b"one"]


def test_a_broker_of_another_process_cannot_be_shown(make_settings: MakeSettings) -> None:
    with pytest.raises(InvalidSetting, match=r"CARPARK_BROKER_URL='stub://': wanted RabbitMQ"):
        make_app(make_settings())
