"""What the settings' values are made with: masking, the guess of the management API, text for people."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from carpark.settings import load_settings
from carpark.settings.values import as_text, management_url_of, mask_url, mask_urls, url


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("amqp://guest:guest@localhost:5672", "amqp://guest:***@localhost:5672"),
        ("amqp://guest:guest@[::1]:5672/v", "amqp://guest:***@[::1]:5672/v"),
        ("amqp://u:p@h?heartbeat=5&ssl_options=x", "amqp://u:***@h?***"),
        ("redis://:p@h:6379/0", "redis://:***@h:6379/0"),
        ("redis://h/0?password=p", "redis://h/0?***"),
        ("redis://h/0?password=p&x=a:b", "redis://h/0?***"),
        ("amqps://h?ssl_options={'password':'p'}", "amqps://h?***"),
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("http://[::1]:15672", "http://[::1]:15672"),
        ("http://h:80/a/b", "http://h:80/a/b"),
        ("http://u@h", "http://u@h"),
        ("http://u:@h", "http://u:***@h"),
        ("http://u:p@ss@h", "http://u:***@h"),
        ("http://u:p/a?s#s@h", "http://u:***"),
        ("redis://h/0?password=p@ss", "redis://h/0?***"),
        ("redis://u:p@h/0?password=p@ss", "redis://u:***"),
        ("u?p:q@ss@h", "***"),
        ("http://u:p//ss@h", "http://u:***@h"),
        ("u:p@h", "***@h"),
        ("u:p//q@h", "***@h"),
        ("amqp://u:p", "amqp://u:***"),
        ("amqp://u:123456", "amqp://u:***"),
        ("amqp://h:5672", "amqp://h:5672"),
        ("stub://", "stub://"),
        ("", ""),
        ("text", "text"),
    ],
)
def test_a_password_in_a_url_is_masked(text: str, masked: str) -> None:
    assert mask_url(text) == masked


def test_the_passwords_of_several_urls_are_masked_also_one_with_a_semicolon() -> None:
    assert mask_urls("amqp://u:p@a;amqp://v:q@b:1") == "amqp://u:***@a;amqp://v:***@b:1"
    assert mask_urls("amqp://u:p1;p2@a") == "amqp://u:***@a"
    assert mask_urls("amqp://a;u:p@b") == "amqp://a;u:***@b"
    assert mask_urls("amqp://u:p1@p2;p3//p4@a") == "amqp://u:***@a"


URLS = st.sampled_from(["amqp://user:{}@host:5672/v", "redis://:{}@h", "http://u:{}@[::1]:1/x?y", "u:{}@h"])
WITHOUT_HOST = st.just("amqp://u:{}")


def passwords(without: str = "") -> st.SearchStrategy[str]:
    characters = st.characters(categories=["L", "P", "S"], exclude_characters=without)
    return st.text(st.one_of(characters, st.sampled_from([c for c in ";:@/?#[]%" if c not in without])), min_size=8)


@settings(deadline=None, max_examples=500)
@given(st.tuples(URLS, passwords()) | st.tuples(WITHOUT_HOST, passwords("@")))
@example(("amqp://u:{}", ";:::::::"))
@example(("amqp://user:{}@host:5672/v", "p@ss;w//d:?"))
def test_no_password_of_whatever_characters_is_shown(pair: tuple[str, str]) -> None:
    pattern, password = pair
    assert password not in mask_urls(pattern.format(password))


@pytest.mark.parametrize(
    ("broker", "management"),
    [
        ("amqp://guest:guest@localhost:5672", "http://guest:guest@localhost:15672"),
        ("amqp://localhost", "http://guest:guest@localhost:15672"),
        ("amqp://user:@h", "http://user:@h:15672"),
        ("amqps://u:p@h:5671/vhost?heartbeat=5", "http://u:p@h:15672"),
        ("amqp://u:p%40s%2Fs%3A@h", "http://u:p%40s%2Fs%3A@h:15672"),
        ("amqp://%C3%A4:%E7%B2%A4@h", "http://%C3%A4:%E7%B2%A4@h:15672"),
        ("amqp://u:p+q~r@h", "http://u:p%2Bq~r@h:15672"),
        ("amqp://u:p@[2001:db8::1]:5672", "http://u:p@[2001:db8::1]:15672"),
        ("amqp://u:p@10.0.0.1", "http://u:p@10.0.0.1:15672"),
        ("amqp://u:p@Rabbit.Example", "http://u:p@rabbit.example:15672"),
        (" amqp://u:p@a ; amqp://v:q@b", "http://u:p@a:15672"),
        ("stub://", ""),
    ],
)
def test_the_management_api_is_guessed_from_the_first_broker_url(broker: str, management: str) -> None:
    assert management_url_of(broker) == management
    assert load_settings({"CARPARK_BROKER_URL": broker}).management_url == management
    if management:
        assert url("", "http").parse(management) == management
        password = urlsplit(broker.split(";")[0].strip()).password
        assert unquote(urlsplit(management).password or "") == unquote("guest" if password is None else password)


def test_a_management_url_that_is_given_is_not_guessed() -> None:
    given_url = "https://u:p@elsewhere/rabbit"
    assert load_settings({"CARPARK_MANAGEMENT_URL": given_url}).management_url == given_url


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""), ("a", "a"), (5, "5"), (5.0, "5"), (0.25, "0.25"), (1234567.0, "1234567"), (1e-6, "1e-06"),
        ((), ""), (("a", "b"), "a,b"), (Path("a/b"), "a/b"),
    ],
)  # fmt: skip
def test_a_value_is_written_as_a_person_would_give_it(value: object, text: str) -> None:
    assert as_text(value) == text
