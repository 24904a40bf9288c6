"""The dashboard as its users see it: dead letters are looked at, sent again and deleted in a real browser."""

from __future__ import annotations

import contextlib
import csv
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from selenium.common.exceptions import WebDriverException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.browser.looking import WIDTHS, faults
from tests.support.dashboard_service import start_dashboard
from tests.support.garbage import GARBAGE
from tests.support.helpers import eventually, find_free_port
from tests.support.mailbox import bodies, count
from tests.support.processes import WORKER_READY, Process, Processes
from tests.support.writer_service import READY as WRITER_READY

pytestmark = pytest.mark.timeout(300)  # a browser needs a processor, and others may have it

GARBAGE_LETTERS = 300
STAYS = 50
START = datetime(2026, 11, 23, 18, tzinfo=UTC)
SCRIPT = b'{"id":"s","vehicle_plate":"<script>document.title=1</script>","entry_date_time":"2026-11-23T18:00:00Z"}'


def publish(channel: BlockingChannel) -> None:
    """Publish garbage, and stays whose summaries no sink will take."""
    garbage = [*(body for body in GARBAGE.values() if len(body) < 5000), SCRIPT]
    for number in range(GARBAGE_LETTERS):
        body = garbage[number] if number < len(garbage) else b"garbage %d" % number
        channel.basic_publish("", "vehicle_entry", body, pika.BasicProperties(message_id=f"g{number}"))
    for number in range(STAYS):
        entered = START + timedelta(seconds=number)
        plate = {"vehicle_plate": f"PL {number:05}"}
        entry = {"id": f"e{number}", **plate, "entry_date_time": entered.isoformat()}
        exit_ = {"id": f"x{number}", **plate, "exit_date_time": (entered + timedelta(hours=1)).isoformat()}
        channel.basic_publish("", "vehicle_entry", json.dumps(entry).encode())
        channel.basic_publish("", "vehicle_exit", json.dumps(exit_).encode())


def start_worker(processes: Processes, environ: dict[str, str]) -> Process:
    worker = processes.start(["dramatiq", "carpark.actors", "--processes", "1", "--threads", "4"], env=environ)
    worker.wait_for_line(WORKER_READY, 60)
    return worker


def click(browser: Chrome, text: str) -> None:
    """Click what bears a text, and wait for the page that follows."""
    follow(browser, browser.find_element(By.XPATH, f"//*[self::a or self::button][normalize-space()='{text}']"))


def follow(browser: Chrome, link: WebElement) -> None:
    """Click something, and wait for the page that follows."""
    page = browser.find_element(By.TAG_NAME, "html")
    link.click()

    def is_new() -> bool:
        # Between two pages there is none, and whatever is asked of it is an error.
        with contextlib.suppress(WebDriverException):
            found = browser.find_elements(By.TAG_NAME, "html")
            return found not in ([], [page]) and browser.execute_script("return document.readyState") == "complete"
        return False

    eventually(is_new, 30, "the next page")


def walk(browser: Chrome, url: str) -> list[str]:
    """Go through all pages of a failed tab; give the addresses of its messages, each of which says why it is there."""
    seen: list[str] = []
    browser.get(url)
    while True:
        seen += [job.get_attribute("href") or "" for job in browser.find_elements(By.CSS_SELECTOR, "a.job")]
        reasons = [reason.text for reason in browser.find_elements(By.CSS_SELECTOR, "tbody tr .reason")]
        assert len(reasons) == len(browser.find_elements(By.CSS_SELECTOR, "tbody tr"))
        assert all(reasons)
        if not browser.find_elements(By.CSS_SELECTOR, "a[rel=next]"):
            return seen
        click(browser, "Next page")


def main_text(browser: Chrome) -> str:
    return " ".join(browser.find_element(By.TAG_NAME, "main").text.split())


def test_garbage_and_failed_deliveries_from_the_first_look_to_the_last_row(
    browser: Chrome,
    processes: Processes,
    server_environ: dict[str, str],
    channel: BlockingChannel,
    tmp_path: Path,
) -> None:
    port = find_free_port()
    environ = {
        **server_environ,
        "CARPARK_WRITER_URL": f"http://127.0.0.1:{port}",
        "CARPARK_SINK_RETRIES": "1",
        "CARPARK_SINK_RETRY_MIN": "0.1",
        "CARPARK_SINK_RETRY_MAX": "0.2",
    }
    publish(channel)
    start_worker(processes, environ)
    _, url = start_dashboard(processes, environ)
    eventually(lambda: count(channel, "vehicle_entry.XQ") == GARBAGE_LETTERS, 60, "garbage is dead-lettered")
    eventually(lambda: count(channel, "carpark_work.XQ") == STAYS, 60, "deliveries are given up")

    # The failed tab, page by page, with reasons.
    browser.get(url)
    # The last one is still in hand for a moment after its copy is dead-lettered.
    queues = f"vehicle_entry 0 0 0 {GARBAGE_LETTERS} vehicle_exit 0 0 0 0 carpark_work 0 0 0 {STAYS}"
    eventually(lambda: browser.refresh() or queues in main_text(browser), 30, "nothing is in hand or delayed")
    # RabbitMQ's list of connections is some seconds old.
    eventually(lambda: browser.refresh() or "carpark backend" in main_text(browser), 30, "the worker is listed")
    seen = walk(browser, f"{url}/queues/vehicle_entry/failed")
    assert len(seen) == len(set(seen)) == GARBAGE_LETTERS

    # The sink works again: all of the fifty are sent, and each is in the CSV once.
    processes.start(["carpark", "writer", "--port", str(port)], env=environ).wait_for_line(WRITER_READY, 60)
    browser.get(f"{url}/queues/carpark_work/failed")
    assert "http-csv" in main_text(browser)
    click(browser, "Requeue all")
    click(browser, f"Requeue {STAYS} messages")
    assert f"{STAYS} messages were sent to the queue again." in main_text(browser)
    path = tmp_path / "summaries.csv"

    def rows_of_csv() -> list[str]:
        with path.open(newline="", encoding="utf-8") as stream:
            return [row["id"] for row in csv.DictReader(stream)]

    eventually(lambda: len(rows_of_csv()) >= STAYS, 60, "every stay is in the CSV")
    eventually(lambda: count(channel, "carpark_work") + count(channel, "carpark_work.XQ") == 0, 30)
    assert sorted(rows_of_csv()) == sorted(f"x{number}" for number in range(STAYS))

    # One piece of garbage goes, and the others stay in order.
    browser.get(f"{url}/queues/vehicle_entry/failed?match=garbage+200")
    (deleted,) = browser.find_elements(By.CSS_SELECTOR, "a.job")
    seen.remove(deleted.get_attribute("href") or "")
    click(browser, "Delete")
    assert "Delete this message?" in main_text(browser)
    click(browser, "Delete")
    assert "1 message was deleted." in main_text(browser)
    assert walk(browser, f"{url}/queues/vehicle_entry/failed") == seen
    assert "251 to 299 of 299" in main_text(browser)
    assert b"garbage 200" not in (left := bodies(channel, "vehicle_entry.XQ"))
    assert len(left) == GARBAGE_LETTERS - 1


def test_a_dead_letter_is_read_understood_mended_and_sent_again(
    browser: Chrome, processes: Processes, server_environ: dict[str, str], channel: BlockingChannel
) -> None:
    channel.basic_publish("", "vehicle_entry", SCRIPT)
    start_worker(processes, server_environ)
    _, url = start_dashboard(processes, server_environ)
    eventually(lambda: count(channel, "vehicle_entry.XQ") == 1, 60)
    browser.get(f"{url}/queues/vehicle_entry/failed")
    follow(browser, browser.find_element(By.CSS_SELECTOR, "a.job"))
    assert "vehicle_plate: " in main_text(browser)
    assert "<script>document.title=1</script>" in main_text(browser)
    assert browser.title != "1"
    browser.find_element(By.TAG_NAME, "summary").click()
    area = browser.find_element(By.TAG_NAME, "textarea")
    assert area.get_attribute("value") == SCRIPT.decode()
    area.clear()
    area.send_keys(SCRIPT.decode().replace("<script>document.title=1</script>", "--"))
    click(browser, "Send")
    assert "vehicle_plate: " in browser.find_element(By.CSS_SELECTOR, "form .note").text
    area = browser.find_element(By.TAG_NAME, "textarea")
    area.clear()
    area.send_keys(SCRIPT.decode().replace("<script>document.title=1</script>", "ab-12"))
    click(browser, "Send")
    assert "1 message was mended and sent to the queue." in main_text(browser)
    browser.get(f"{url}/carpark")
    eventually(lambda: browser.refresh() or "Inside 1 vehicles now" in main_text(browser), 30)


def test_every_page_is_readable_on_a_desk_and_on_a_phone(
    browser: Chrome, processes: Processes, server_environ: dict[str, str], channel: BlockingChannel, tmp_path: Path
) -> None:
    environ = {**server_environ, "CARPARK_WRITER_URL": "http://127.0.0.1:9", "CARPARK_SINK_RETRIES": "0"}
    publish(channel)
    worker = start_worker(processes, environ)
    _, url = start_dashboard(processes, {**environ, "CARPARK_DASHBOARD_LINKS": "Grafana=http://g,RabbitMQ=http://r"})
    eventually(lambda: count(channel, "vehicle_entry.XQ") == GARBAGE_LETTERS, 60)
    eventually(lambda: count(channel, "carpark_work.XQ") == STAYS, 60)
    failed = "/queues/vehicle_entry/failed"
    browser.get(url + failed)
    jobs = [job.get_attribute("href") for job in browser.find_elements(By.CSS_SELECTOR, "a.job")]
    browser.get(f"{url}/queues/carpark_work/failed")
    jobs.append(browser.find_element(By.CSS_SELECTOR, "a.job").get_attribute("href"))
    paths = [
        *(
            "/",
            "/carpark",
            "/nope",
            failed,
            f"{failed}?cursor=50",
            f"{failed}?match=plate",
            f"{failed}?match=none+of+it",
        ),
        *(
            "/queues/vehicle_entry",
            "/queues/vehicle_entry/delayed",
            "/queues/carpark_work/failed?said=requeued&count=50",
        ),
        *("/ask?do=delete-all&queue=vehicle_entry.XQ", "/ask?do=requeue-all&queue=carpark_work.XQ&match=http"),
        f"/ask?do=delete-message&queue=vehicle_entry.XQ&id={jobs[5].rpartition('/')[2]}",
        *(job.removeprefix(url) for job in [*jobs[::12], jobs[-1]]),
    ]
    found = {}
    for number, path in enumerate(paths):
        browser.get(url + path)
        for summary in browser.find_elements(By.TAG_NAME, "summary"):
            summary.click()
        for width in WIDTHS:
            if wrong := faults(browser, width, tmp_path / f"{number}-{width}.png"):
                found[path, width] = wrong
    assert found == {}
    assert worker.status is None


def test_the_same_pages_in_carpark_run(browser: Chrome, processes: Processes, tmp_path: Path) -> None:
    environ = {
        "CARPARK_WEBHOOK_URL": f"http://127.0.0.1:{find_free_port()}",
        "CARPARK_SINK_RETRIES": "0",
        "CARPARK_CSV": str(tmp_path / "stays.csv"),
        **{f"CARPARK_{name}_PORT": "0" for name in ("WRITER", "METRICS", "DASHBOARD")},
    }
    command = ["carpark", "run", "--rate", "20", "--capacity", "20", "--sinks", "http-csv,webhook"]
    run = processes.start(command, env=environ)
    url = run.wait_for_line(r"^dashboard at (\S+)$", 60)[1]
    browser.get(f"{url}/queues/carpark_work/failed")
    eventually(lambda: browser.refresh() or browser.find_elements(By.CSS_SELECTOR, ".reason"), 60)
    assert "sink 'webhook'" in browser.find_element(By.CSS_SELECTOR, ".reason").text
    click(browser, "Delete")
    click(browser, "Delete")
    assert "1 message was deleted." in main_text(browser)
    for number, path in enumerate(("/", "/carpark", "/queues/vehicle_entry", "/queues/vehicle_exit/delayed")):
        browser.get(url + path)
        assert "vehicle" in main_text(browser)
        for width in WIDTHS:
            assert faults(browser, width, tmp_path / f"{number}-{width}.png") == []
    run.kill()
