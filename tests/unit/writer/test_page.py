"""The page for people."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest

from carpark.ledger import Ledger
from carpark.settings import Settings
from tests.support.helpers import eventually
from tests.support.summaries import NOON, summary
from writer import inside, page
from writer.app import make_app
from writer.inside import InsideCount, inside_of_redis
from writer.page import human_duration, look

NOW = NOON.timestamp()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "summaries.csv") as file:
        yield file


def fill(file: Ledger, *seconds_ago: float) -> None:
    for number, seconds in enumerate(sorted(seconds_ago, reverse=True)):
        file.append([summary(f"{number}", left=NOON - timedelta(seconds=seconds))])


class Page(HTMLParser):
    """What a browser would make of it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def show(make_settings: Callable[..., Settings], file: Ledger, known: int | None = None, query: str = "") -> Page:
    answer = make_app(make_settings(), file, inside=lambda: known).test_client().get(f"/{query}")
    assert (answer.status_code, answer.mimetype) == (200, "text/html")
    return Page(answer.text)


def test_an_empty_file_has_a_page(make_settings: Callable[..., Settings], file: Ledger) -> None:
    words = " ".join(show(make_settings, file).words)
    assert "No stays yet" in words
    assert "Nothing to draw yet" in words


def test_the_page_shows_numbers_stays_and_bars(make_settings: Callable[..., Settings], file: Ledger) -> None:
    fill(file, 5, 15, 16)
    shown = show(make_settings, file, known=1234)
    words = " ".join(shown.words)
    for text in ("1,234", "1 h 30 min", "B123", "2 stays ended in the 10 seconds from 23 Nov 11:59:40"):
        assert text in words
    assert len([tag for tag, _ in shown.tags if tag == "rect"]) == 2
    links = {attrs.get("href") for tag, attrs in shown.tags if tag == "a"}
    assert {"/summaries", "/summaries.csv"} <= links


def test_vehicles_inside_are_a_dash_when_they_are_not_known(
    make_settings: Callable[..., Settings], file: Ledger
) -> None:
    assert page.UNKNOWN in show(make_settings, file, known=None).words
    fill(file, 5)
    assert page.UNKNOWN not in show(make_settings, file, known=0).words


def test_everything_is_escaped(make_settings: Callable[..., Settings], file: Ledger) -> None:
    evil = """<script>alert(1)</script>"'&<img src=x onerror=alert(2)>"""
    plain = show(make_settings, file)
    file.append([summary(evil)])
    shown = show(make_settings, file, query="?span=%22%3E%3Cscript%3E")
    assert evil in shown.words
    assert len([tag for tag, _ in shown.tags if tag == "script"]) == 1
    assert len([tag for tag, _ in plain.tags if tag == "script"]) == 1
    assert not [tag for tag, attrs in shown.tags if tag == "img" or any(name.startswith("on") for name in attrs)]


def test_nothing_is_loaded_from_elsewhere_and_only_our_script_runs(
    make_settings: Callable[..., Settings], file: Ledger
) -> None:
    fill(file, 5)
    client = make_app(make_settings(), file).test_client()
    first, second = client.get("/"), client.get("/")
    policy = first.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    nonces = [attrs.get("nonce") for tag, attrs in Page(first.text).tags if tag in ("script", "style")]
    assert len(nonces) == 2
    assert all(f"'nonce-{nonce}'" in policy for nonce in nonces)
    assert policy != second.headers["Content-Security-Policy"]
    for tag, attrs in Page(first.text).tags:
        assert "style" not in attrs, f"the policy forbids style attributes: {tag}"
        for name in ("src", "href"):
            assert not re.match("(https?:)?//", attrs.get(name) or "")


@pytest.mark.parametrize(
    ("oldest", "key"), [(0, "10m"), (590, "10m"), (660, "6h"), (5 * 3600, "6h"), (86400, "3d"), (90 * 86400, "3d")]
)
def test_the_chart_chooses_the_shortest_time_that_shows_all(file: Ledger, oldest: int, key: str) -> None:
    fill(file, 0, oldest) if oldest else fill(file, 0)
    chart = look(file, "", None, NOW).chart
    assert chart is not None
    assert chart.span.key == key


@pytest.mark.parametrize("span", page.SPANS, ids=lambda span: span.key)
def test_every_span_counts_what_ended_in_it(file: Ledger, span: page.Span) -> None:
    fill(file, *(number * span.width for number in range(span.count + 30)), 0.5)
    chart = look(file, span.key, None, NOW).chart
    assert chart is not None
    assert chart.span == span
    assert chart.total in (span.count, span.count + 1)
    assert [bar.x for bar in chart.bars] == list(range(span.count))
    assert all(0 < bar.height <= 100 for bar in chart.bars)
    assert len(chart.ticks) == 5
    assert all(chart.ticks)


def test_stays_before_1970_and_at_both_ends_of_the_calendar_are_drawn(file: Ledger) -> None:
    for number, left in enumerate(
        (
            datetime(1, 1, 1, tzinfo=UTC),
            datetime(1969, 12, 31, 23, 59, 55, tzinfo=UTC),
            datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
        )
    ):
        file.append([summary(f"{number}", minutes=0, left=left)])
        for span in page.SPANS:
            chart = look(file, span.key, None, NOW).chart
            assert chart is not None
            assert chart.total == 1


def test_one_camera_with_a_wrong_clock_does_not_move_the_chart(file: Ledger) -> None:
    file.append([summary("now"), summary("wrong", left=NOON + timedelta(days=3000))])
    chart = look(file, "10m", None, NOW).chart
    assert chart is not None
    assert (chart.until, chart.total) == ("2026-11-23 12:00:10", 1)


def test_a_simulated_future_is_drawn_too(file: Ledger) -> None:
    file.append([summary(f"{number}", left=NOON + timedelta(days=3, seconds=number)) for number in range(30)])
    chart = look(file, "10m", None, NOW).chart
    assert chart is not None
    assert chart.total == 30


def test_a_look_does_not_read_the_file(file: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    file.append([summary(f"{number}", left=NOON - timedelta(seconds=number % 500)) for number in range(5000)])
    read = 0
    real = os.pread

    def pread(fd: int, size: int, offset: int) -> bytes:
        nonlocal read
        data = real(fd, size, offset)
        read += len(data)
        return data

    monkeypatch.setattr(os, "pread", pread)
    chart = look(file, "10m", None, NOW).chart
    assert chart is not None
    assert chart.total == 5000
    assert read <= 64 * 1024


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.25, "0.25 s"),
        (0.0004, "0 s"),
        (4.26, "4.3 s"),
        (59.99, "60 s"),
        (60, "1 min"),
        (61, "1 min 1 s"),
        (3599.9, "1 h"),
        (5400, "1 h 30 min"),
        (86400 * 2 + 3600 * 3 + 5, "2 d 3 h"),
    ],
)
def test_durations_are_said_as_people_do(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


# -- vehicles inside


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_count_is_asked_for_once_in_a_while() -> None:
    asked: list[int] = []
    clock = Clock()

    def ask() -> int:
        asked.append(1)
        return len(asked)

    count = InsideCount(ask, clock)
    assert [count() for _ in range(5)] == [1] * 5
    clock.now += inside.FRESH
    assert [count() for _ in range(5)] == [2] * 5


def test_a_failing_redis_is_a_dash_and_is_not_asked_again_at_once() -> None:
    asked = []
    clock = Clock()

    def fail() -> int:
        asked.append(1)
        raise ConnectionError("no")

    count = InsideCount(fail, clock)
    assert [count() for _ in range(5)] == [None] * 5
    assert len(asked) == 1


def test_a_redis_that_hangs_does_not_hold_the_page() -> None:
    go_on = threading.Event()
    started = []
    clock = Clock()

    def hang() -> int:
        started.append(1)
        assert go_on.wait(20)
        return 7

    count = InsideCount(hang, clock)
    assert count() is None
    assert count() is None
    assert len(started) == 1, "one question at a time"
    go_on.set()
    assert eventually(count) == 7


def test_the_in_process_store_of_another_process_is_not_asked() -> None:
    assert inside_of_redis("memory://") is None


def test_an_unreachable_redis_is_a_dash(free_port: int) -> None:
    count = inside_of_redis(f"redis://127.0.0.1:{free_port}/0")
    assert count is not None
    assert count() is None
