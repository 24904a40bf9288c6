"""URLs of RabbitMQ and Redis: what one of Sentinels says, and which options the clients take, in words for people."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import certifi
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carpark.errors import InvalidSetting
from carpark.records.connection import address, connect
from carpark.settings import load_settings
from carpark.settings.urls import AMQP_OPTIONS, REDIS_OPTIONS, TLS_OPTIONS, Sentinels, is_sentinel_url, sentinels_of
from carpark.settings.values import ENCODED, MASK, mask_url
from tests.support.processes import ROOT
from tests.support.texts import SECRET

FULL = "rediss+sentinel://me:p%40ss%2C@a:1,[::1]:2,c/stays/3?sentinel_user=s&sentinel_password=q%26"


def test_a_url_says_all_that_is_needed() -> None:
    hosts = (("a", 1), ("::1", 2), ("c", 26379))
    assert sentinels_of(FULL) == Sentinels(hosts, "stays", 3, "me", "p@ss,", "s", "q&", tls=True)


def test_a_plus_in_a_password_is_a_plus_wherever_it_stands() -> None:
    found = sentinels_of("redis+sentinel://:p+w@a/stays?sentinel_password=p+w&sentinel_user=s%20u")
    assert (found.password, found.sentinel_password, found.sentinel_user) == ("p+w", "p+w", "s u")


def test_what_a_url_leaves_out_has_a_default() -> None:
    found = sentinels_of("redis+sentinel://a/my-stays.1")
    assert found == Sentinels((("a", 26379),), "my-stays.1", 0, None, None, None, None, tls=False)


def test_only_its_scheme_makes_it_one() -> None:
    assert is_sentinel_url("REDIS+SENTINEL://h/stays")
    assert not any(
        map(is_sentinel_url, ["redis://h/0", "redis://sentinel:1", "memory://", "redis+sentinel+x://h/stays"])
    )


def test_passwords_are_masked_and_hosts_are_not() -> None:
    assert mask_url(FULL) == f"rediss+sentinel://me:{MASK}@a:1,[::1]:2,c/stays/3?{MASK}"
    assert mask_url("redis+sentinel://a:1,b:2/stays/0") == "redis+sentinel://a:1,b:2/stays/0"


def test_the_client_asks_each_sentinel_with_its_own_password_and_redis_with_redis_s() -> None:
    client = connect(FULL.replace("rediss", "redis"), database=1)
    pool = client.connection_pool
    kwargs = pool.connection_kwargs
    assert (kwargs["db"], kwargs["username"], kwargs["password"]) == (1, "me", "p@ss,")
    sentinels = [each.connection_pool.connection_kwargs for each in pool.sentinel_manager.sentinels]  # type: ignore[attr-defined]
    assert [(each["host"], each["port"], each["password"]) for each in sentinels] == [
        ("a", 1, "q&"),
        ("::1", 2, "q&"),
        ("c", 26379, "q&"),
    ]
    assert address(client) == "stays (by Sentinel)"
    client.close()


PEM = certifi.where()
SECONDS = "a number of seconds from 0.001 to 1000000"
FILE = "a file that is there and can be read"
DICT = "a Python dict like {'cafile': '/etc/ca.pem'}, of files that are there,"

REDIS = {
    "redis://h?ssl_cert_reqs=none": "no option ssl_cert_reqs, which is one of rediss://",
    "unix:///r.sock?ssl_ca_certs=/x": "no option ssl_ca_certs, which is one of rediss://",
    "redis+sentinel://h/stays?ssl_ca_certs=/x": "no option ssl_ca_certs, which is one of rediss://",
    "redis+sentinel://h/stays/0?db=1": "no option db; there are sentinel_password, sentinel_user",
    "redis://h?socket_timeout=abc": f"{SECONDS} for its option socket_timeout",
    "redis://h?socket_timeout=nan": f"{SECONDS} for its option socket_timeout",
    "redis://h?socket_connect_timeout=-1": f"{SECONDS} for its option socket_connect_timeout",
    "redis://h?socket_timeout=": f"{SECONDS} for its option socket_timeout",
    "redis://h?db=first": "a whole number from 0 to 9999 for its option db",
    "redis://h?protocol=4": "a whole number from 2 to 3 for its option protocol",
    "redis://h?max_connections=1": "no option max_connections; each thread has a connection of its own, which none may "
    "lack",
    "redis://h?health_check_interval=1.5": "a whole number of seconds from 0 to 1000000 for its option "
    "health_check_interval",
    "redis://h?socket_keepalive=off": "yes or no or true or false or 1 or 0 for its option socket_keepalive",
    "unix:///r.sock?socket_keepalive=yes": "yes or no or true or false or 1 or 0 for its option socket_keepalive",
    "redis://h?socket_timeut=5": "no option socket_timeut; there is socket_timeout",
    "redis://h?timeout=5": "no option timeout; there is socket_timeout, in seconds",
    "redis://h?retry=3": f"no option retry; there are {', '.join(REDIS_OPTIONS)}",
    "redis://h?retry_on_error=x": "no option retry_on_error; there is retry_on_timeout",
    "redis://h?encoding=nothing": f"no option encoding; there are {', '.join(REDIS_OPTIONS)}",
    "redis://h?socket_timeout": "its options as name=value, separated by &",
    "redis://h?db=0&db=1": "each of its options once",
    "redis://h/0#1": "%23 for a #",
    "rediss://h?ssl_ca_certs=/nowhere/ca.pem": f"{FILE} for its option ssl_ca_certs",
    "rediss://h?ssl_keyfile=/nowhere/key.pem": f"{FILE} for its option ssl_keyfile",
    f"rediss://h?ssl_ca_certs={__file__}": f"{FILE} for its option ssl_ca_certs (no certificate or crl found)",
    f"rediss://h?ssl_ca_certs={PEM}&ssl_certfile={__file__}": f"{FILE} for its option ssl_certfile (pem lib)",
    "rediss://h?ssl_cert_reqs=maybe": "none or optional or required for its option ssl_cert_reqs",
    "rediss://h?ssl_ciphers=RC5": "ciphers as OpenSSL names them for its option ssl_ciphers",
    "rediss://h?ssl_include_verify_flags=NO": "names of Python's ssl.VerifyFlags for its option "
    "ssl_include_verify_flags",
    "rediss://h?ssl_min_version=12": "a number of Python's ssl.TLSVersion from 768 to 772 for its option "
    "ssl_min_version",
}
AMQP = {
    "amqp://h?connection_timeout=30000": "no option connection_timeout; there is socket_timeout, in seconds",
    "amqps://h?cacertfile=/ca.pem&verify=verify_peer": "no option cacertfile; there is ssl_options",
    "amqps://h?verify=verify_none": "no option verify; there is ssl_options",
    "amqp://h?name=mine": "no option name; each service names its connections itself",
    "amqp://h?auth_mechanism=PLAIN": f"no option auth_mechanism; there are {', '.join(AMQP_OPTIONS)}",
    "amqp://h?heartbeat=abc": "a whole number of seconds from 0 to 65535 for its option heartbeat",
    "amqp://h?heartbeat=-1": "a whole number of seconds from 0 to 65535 for its option heartbeat",
    "amqp://a;amqp://h?heartbeat=1.5": "a whole number of seconds from 0 to 65535 for its option heartbeat",
    "amqp://h?frame_max=1": "a whole number from 4096 to 131072 for its option frame_max",
    "amqp://h?stack_timeout=0": f"{SECONDS} for its option stack_timeout",
    "amqp://h?retry_delay=inf": "a number of seconds from 0 to 1000000 for its option retry_delay",
    "amqps://h?ssl_options={'cafile':'/nowhere/ca.pem'}": f"{DICT} for its option ssl_options (no such file or "
    "directory)",
    f"amqps://h?ssl_options={{'cafile':'{PEM}','certfile':'{__file__}'}}": f"{DICT} for its option ssl_options "
    "(pem lib)",
    "amqps://h?ssl_options={}": f"{DICT} for its option ssl_options",
    "amqps://h?ssl_options=[1]": f"{DICT} for its option ssl_options",
    "amqps://h?ssl_options=yes": f"{DICT} for its option ssl_options",
    f"amqps://h?ssl_options={'[' * 500}": f"{DICT} for its option ssl_options",
    "amqp://h?tcp_options={'TCP_KEEPIDLE':'x'}": "a Python dict for its option tcp_options",
    "amqp://me@h": "user and password, amqp://user:password@host",
    "amqp://h//": "%2F for a / in the virtual host",
    "amqp://h/a/b": "%2F for a / in the virtual host",
}
TORN = [
    ("broker_url", "amqp://me:{}/word@h:5672"),
    ("broker_url", "amqp://me:12/{}@h:5672"),
    ("broker_url", "amqp://me:12?{}@h"),
    ("broker_url", "amqp://me:12#{}@h/vhost"),
    ("broker_url", "amqp://me:p@{}/3@h"),
    ("broker_url", "amqp://me:[{}@h"),
    ("redis_url", "redis://:{}/word@h:6379/0"),
    ("redis_url", "redis://:1/{}@h"),
    ("redis_url", "redis://me:{}?x@h"),
    ("redis_url", "redis://me:p@{}?x=1@h"),
    ("redis_url", "redis+sentinel://:1/{}]@a,b/stays"),
    ("management_url", "http://me:12/{}@h:15672"),
    ("management_url", "http://me:{}/4@h:15672"),
    ("management_url", "http://me:{}?x@h:15672"),
    ("writer_url", "http://me:1/{}@h:40000"),
]


def refused(**flags: str) -> InvalidSetting:
    with pytest.raises(InvalidSetting) as caught:
        load_settings({}, flags)
    assert str(caught.value).isprintable()
    return caught.value


@pytest.mark.parametrize("text", REDIS)
def test_an_option_that_redis_s_client_cannot_use_is_named_with_what_is_wanted(text: str) -> None:
    assert (refused(redis_url=text).name, refused(redis_url=text).wanted) == ("CARPARK_REDIS_URL", REDIS[text])


@pytest.mark.parametrize("text", AMQP)
def test_an_option_that_rabbitmq_s_client_cannot_use_is_named_with_what_is_wanted(text: str) -> None:
    assert (refused(broker_url=text).name, refused(broker_url=text).wanted) == ("CARPARK_BROKER_URL", AMQP[text])


@pytest.mark.parametrize(
    "flags",
    [
        {"redis_url": "redis://h/0?socket_timeout=0.5&client_name=one&retry_on_timeout=no&protocol=3"},
        {"redis_url": f"rediss://h?ssl_ca_certs={PEM}&ssl_check_hostname=no&ssl_min_version=771"},
        {"redis_url": "rediss://h?ssl_cert_reqs=none&ssl_include_verify_flags=VERIFY_X509_STRICT"},
        {"redis_url": "unix:///r.sock?db=0&password=p%40ss"},
        {"broker_url": "amqp://h/%2F?heartbeat=6&connection_attempts=3&blocked_connection_timeout=9&locale=en_US"},
        {"broker_url": f"amqps://h?ssl_options={{'cafile':'{PEM}','server_hostname':'h'}}&frame_max=131072"},
        {"broker_url": "amqp://h?tcp_options={'TCP_KEEPIDLE':60,'TCP_KEEPCNT':3}&client_properties={'a':'b'}"},
        {"management_url": "http://h/@rabbit", "writer_url": "http://h:80/a?b=c@d"},
    ],
)
def test_options_that_the_clients_know_are_taken(flags: dict[str, str]) -> None:
    read = load_settings({}, flags)
    assert {name: getattr(read, name) for name in flags} == flags


@pytest.mark.parametrize(("name", "holder"), TORN)
def test_a_password_that_tears_its_url_is_named_and_not_shown(name: str, holder: str) -> None:
    error = refused(**{name: holder.format(SECRET)})
    assert error.wanted == ENCODED
    assert SECRET not in str(error)


@pytest.mark.parametrize("name", ["broker_url", "redis_url"])
@pytest.mark.parametrize(
    "query", [SECRET, f"{SECRET}=1", f"p@{SECRET}=1", f"password={SECRET}&x=a:b", f"heartbeat={SECRET}:"]
)
def test_no_part_of_a_query_is_shown_that_may_be_a_secret(name: str, query: str) -> None:
    scheme = name.replace("broker_url", "amqp").removesuffix("_url")
    assert SECRET not in str(refused(**{name: f"{scheme}://h/0?{query}"})).replace(f"no option {SECRET}", "")


NAMES = st.sampled_from([*AMQP_OPTIONS, *REDIS_OPTIONS, *TLS_OPTIONS, "name", "verify"])


@given(st.lists(st.tuples(NAMES, st.text("0123456789.-{}[]'abcyesnoé %&=/:", max_size=12)), min_size=1, max_size=3))
def test_whatever_the_options_are_they_are_taken_or_refused_in_one_line(options: list[tuple[str, str]]) -> None:
    query = "&".join(f"{name}={value}" for name, value in options)
    for name, url in (("broker_url", "amqps://h"), ("redis_url", "redis://h"), ("redis_url", "rediss://h")):
        given_: dict[str, Any] = {name: f"{url}?{query}"}
        try:
            load_settings({}, given_)
        except InvalidSetting as error:
            assert str(error).isprintable()  # noqa: PT017


def test_every_option_is_on_the_page_of_the_settings() -> None:
    page = (ROOT / "docs/reference/settings.md").read_text(encoding="utf-8")
    assert [name for name in (*AMQP_OPTIONS, *REDIS_OPTIONS, *TLS_OPTIONS) if f"`{name}`" not in page] == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("redis_url", "redis://h"),
        ("rate", "5"),
        ("csv", "data/x.csv"),
        ("sinks", "http-csv"),
        ("plates", "uk"),
        ("bind", "127.0.0.1"),
    ],
)
@pytest.mark.parametrize("wrap", ["'{}'", '"{}"', ' "{}" ', "\ufeff{}"])
def test_what_an_env_file_puts_around_a_value_is_named(name: str, text: str, wrap: str) -> None:
    variable = f"CARPARK_{name.upper()}"
    with pytest.raises(InvalidSetting) as caught:
        load_settings({variable: wrap.format(text)})
    assert caught.value.name == variable
    assert caught.value.wanted.startswith("it without the " + ("byte order mark" if "\ufeff" in wrap else "quotes"))


def test_an_env_file_that_begins_with_a_byte_order_mark_is_named() -> None:
    with pytest.raises(InvalidSetting) as caught:
        load_settings({"\ufeffCARPARK_WRITER_TOKEN": SECRET})
    said = "CARPARK_WRITER_TOKEN='***': wanted the env file without the byte order mark (U+FEFF)"
    assert str(caught.value).startswith(said)


def test_it_is_named_in_an_encoding_that_has_no_such_mark_and_nothing_fails_without_it() -> None:
    # To begin with the encoding that names of variables have, which is that of the terminal.
    plain = {b"LC_ALL": b"C", b"PYTHONUTF8": b"0", b"PYTHONCOERCECLOCALE": b"0"}
    command = [sys.executable, "-m", "carpark", "dlq", "list", "--broker-url", "stub://x"]
    ends = [
        subprocess.run(command, env=environ, capture_output=True, encoding="ascii")
        for environ in (plain, {**plain, "\ufeffCARPARK_BROKER_URL".encode(): b"x"})
    ]
    assert [ended.returncode for ended in ends] == [2, 2]
    assert "Traceback" not in ends[0].stderr
    assert "byte order mark" not in ends[0].stderr
    assert "CARPARK_BROKER_URL='***': wanted the env file without the byte order mark" in ends[1].stderr


def test_a_file_name_may_have_quotes_in_it() -> None:
    assert load_settings({}, {"csv": "it's.csv"}).csv == Path("it's.csv")
