"""The writer's HTTP interface, rule by rule."""

from __future__ import annotations

import errno
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from carpark.ledger import Ledger
from carpark.settings import Settings
from tests.support.summaries import HEADER, ids_in, posted, read_csv, summary
from writer.app import MAX_BODY, make_app


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "summaries.csv"


@pytest.fixture
def file(path: Path) -> Iterator[Ledger]:
    with Ledger(path) as file:
        yield file


@pytest.fixture
def app(make_settings: Callable[..., Settings], file: Ledger) -> Flask:
    return make_app(make_settings(), file)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def post(client: FlaskClient, body: Any, **options: Any) -> TestResponse:
    return client.post("/summaries", data=body if isinstance(body, bytes) else json.dumps(body).encode(), **options)


def refused(answer: TestResponse, status: int, *, index: int | None = None, field: str | None = None) -> str:
    """Check that an answer is an error as the contract has it, and give its text."""
    assert answer.status_code == status, answer.text
    assert answer.mimetype == "application/json"
    body = answer.get_json()
    assert list(body) == ["error", "index", "field"]
    assert (body["index"], body["field"]) == (index, field)
    assert isinstance(body["error"], str)
    assert body["error"]
    assert "\n" not in body["error"]
    text: str = body["error"]
    return text


# -- POST /summaries


def test_one_summary_is_written(client: FlaskClient, path: Path) -> None:
    answer = post(client, posted("a"))
    assert (answer.status_code, answer.get_json()) == (201, {"written": 1, "duplicates": 0})
    assert ids_in(path) == ["a"]


def test_a_list_is_written_and_repeats_in_it_are_duplicates(client: FlaskClient, path: Path) -> None:
    answer = post(client, [posted("a"), posted("b"), posted("a", plate="C1")])
    assert (answer.status_code, answer.get_json()) == (201, {"written": 2, "duplicates": 1})
    assert post(client, [posted("b"), posted("c")]).get_json() == {"written": 1, "duplicates": 1}
    assert post(client, posted("c")).get_json() == {"written": 0, "duplicates": 1}
    assert ids_in(path) == ["a", "b", "c"]


def test_an_empty_list_is_fine(client: FlaskClient, path: Path) -> None:
    answer = post(client, [])
    assert (answer.status_code, answer.get_json()) == (201, {"written": 0, "duplicates": 0})
    assert path.read_bytes() == HEADER


def test_what_is_written_is_in_canonical_form(client: FlaskClient, path: Path) -> None:
    fields = posted(
        'i,"d"',
        vehicle_plate="b-ä 1",
        entry_date_time="2026-11-23t12:00:00+02:00",
        exit_date_time="2026-11-23T11:30:00.1234567z",
        duration=5400.123456,
        colour="red",
    )
    assert post(client, fields).status_code == 201
    assert read_csv(path) == [
        {
            "id": 'i,"d"',
            "vehicle_plate": "BÄ1",
            "entry_date_time": "2026-11-23T10:00:00.000000Z",
            "exit_date_time": "2026-11-23T11:30:00.123456Z",
            "duration": "5400.123456",
        }
    ]


@pytest.mark.parametrize("duration", [0, 5400, 0.000001, 1e15, 1e300])
def test_any_duration_that_is_a_number_is_written_as_that_number(
    client: FlaskClient, path: Path, duration: float
) -> None:
    assert post(client, posted("a", duration=duration)).status_code == 201
    text = read_csv(path)[0]["duration"]
    assert re.fullmatch(r"[0-9]+(\.[0-9]{1,6})?", text)
    assert float(text) == duration
    assert client.get("/summaries").get_json()[0]["duration"] == duration
    assert client.get("/").status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"plain",
        b"\xff\xfe",
        b'{"id": NaN}',
        b"[Infinity]",
        b"[" * 100_000,
        b'["\xed\xa0\x80"]',
        b"1" * 5000,
        b"[] []",
    ],
    ids=repr,
)
def test_what_is_not_json_is_400(client: FlaskClient, path: Path, body: bytes) -> None:
    refused(post(client, body), 400)
    assert path.read_bytes() == HEADER


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"id": ""}, "id"),
        ({"id": "x" * 129}, "id"),
        ({"id": "a\nb"}, "id"),
        ({"id": 7}, "id"),
        ({"id": "=1+1"}, "id"),
        ({"id": "+1*2"}, "id"),
        ({"id": None}, "id"),
        ({"vehicle_plate": "?"}, "vehicle_plate"),
        ({"vehicle_plate": "A" * 25}, "vehicle_plate"),
        ({"entry_date_time": "2026-11-23"}, "entry_date_time"),
        ({"entry_date_time": 1700000000}, "entry_date_time"),
        ({"exit_date_time": "2026-11-23T12:00:00"}, "exit_date_time"),
        ({"exit_date_time": "2020-01-01T00:00:00Z"}, "exit_date_time"),
        ({"duration": -1}, "duration"),
        ({"duration": "5"}, "duration"),
        ({"duration": 0.0000001}, "duration"),
        ({"duration": True}, "duration"),
        ({"duration": 10**400}, "duration"),
    ],
    ids=repr,
)
def test_an_invalid_summary_is_422_with_its_field(
    client: FlaskClient, path: Path, changes: dict[str, Any], field: str
) -> None:
    assert field in refused(post(client, posted("a", **changes)), 422, field=field)
    wrong = posted("b", **changes)
    refused(post(client, [posted("c"), wrong, posted("d"), wrong]), 422, index=1, field=field)
    assert path.read_bytes() == HEADER, "a list with one that is invalid is refused whole"


@pytest.mark.parametrize("missing", ["id", "vehicle_plate", "entry_date_time", "exit_date_time", "duration"])
def test_a_missing_field_is_422(client: FlaskClient, missing: str) -> None:
    fields = posted("a")
    del fields[missing]
    assert "missing" in refused(post(client, fields), 422, field=missing)


@pytest.mark.parametrize("body", [7, "text", None, True])
def test_json_that_is_neither_an_object_nor_a_list_is_422(client: FlaskClient, body: Any) -> None:
    refused(post(client, body), 422)
    refused(post(client, [posted("a"), body]), 422, index=1)
    refused(post(client, [[posted("a")]]), 422, index=0)


def test_a_lone_surrogate_is_422(client: FlaskClient) -> None:
    fields = json.dumps(posted("x")).replace('"x"', r'"\ud800"').encode()
    refused(post(client, fields), 422, field="id")


def test_a_body_over_8_mib_is_413_and_one_of_8_mib_is_read(client: FlaskClient, path: Path) -> None:
    body = json.dumps(posted("a")).encode()
    fitting = body + b" " * (MAX_BODY - len(body))
    assert MAX_BODY == 8 * 1024 * 1024
    assert post(client, fitting).status_code == 201
    refused(post(client, fitting + b" "), 413)
    refused(
        client.post("/summaries", input_stream=io.BytesIO(fitting + b" "), environ_overrides=CHUNKED),
        413,
    )
    assert ids_in(path) == ["a"]


CHUNKED = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}


def test_a_chunked_body_without_a_length_is_read(client: FlaskClient, path: Path) -> None:
    body = io.BytesIO(json.dumps([posted("a")]).encode())
    answer = client.post("/summaries", input_stream=body, environ_overrides=CHUNKED)
    assert answer.get_json() == {"written": 1, "duplicates": 0}
    assert ids_in(path) == ["a"]


# -- the token


@pytest.fixture
def guarded(make_settings: Callable[..., Settings], file: Ledger) -> FlaskClient:
    return make_app(make_settings(writer_token="s3cret"), file).test_client()


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic s3cret", "s3cret", "Bearer s3cret2", "Bearer \xfc"]
)
def test_a_post_without_the_token_is_401(guarded: FlaskClient, path: Path, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    answer = post(guarded, posted("a"), headers=headers)
    assert "s3cret" not in refused(answer, 401)
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    refused(post(guarded, b"not json", headers=headers), 401)
    assert path.read_bytes() == HEADER


@pytest.mark.parametrize("header", ["Bearer s3cret", "bearer s3cret"])
def test_a_post_with_the_token_is_taken(guarded: FlaskClient, path: Path, header: str) -> None:
    assert post(guarded, posted("a"), headers={"Authorization": header}).status_code == 201
    assert ids_in(path) == ["a"]


def test_the_token_is_compared_in_constant_time(guarded: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(first: bytes, second: bytes) -> bool:
        compared.append((first, second))
        return False

    monkeypatch.setattr("hmac.compare_digest", compare)
    assert post(guarded, [], headers={"Authorization": "Bearer guess"}).status_code == 401
    assert compared == [(b"guess", b"s3cret")]


@pytest.mark.parametrize("address", ["/", "/summaries", "/summaries.csv", "/healthz", "/metrics"])
def test_only_the_post_wants_the_token(guarded: FlaskClient, address: str) -> None:
    assert guarded.get(address).status_code == 200


def test_without_a_token_set_any_header_will_do(client: FlaskClient) -> None:
    assert post(client, [], headers={"Authorization": "Bearer whatever"}).status_code == 201


# -- trouble with the disk


@pytest.mark.parametrize(
    ("code", "status"),
    [(errno.ENOSPC, 507), (errno.EDQUOT, 507), (errno.EFBIG, 507), (errno.EIO, 503), (errno.ESTALE, 503)],
)
def test_a_disk_that_is_full_or_fails_is_said(
    client: FlaskClient, file: Ledger, monkeypatch: pytest.MonkeyPatch, code: int, status: int
) -> None:
    def fail(summaries: object) -> None:
        raise OSError(code, "the reason")

    monkeypatch.setattr(file, "append", fail)
    answer = post(client, posted("a"))
    assert "the reason" in refused(answer, status)
    assert answer.headers["Retry-After"] == "5"


def test_our_own_mistakes_are_500_in_json(
    app: Flask, file: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(summaries: object) -> None:
        raise ZeroDivisionError("a secret inside")

    monkeypatch.setattr(file, "append", fail)
    assert "secret" not in refused(post(app.test_client(), posted("a")), 500)
    assert "ZeroDivisionError" in caplog.text


# -- reading


def test_summaries_are_given_newest_first_as_they_were_posted(client: FlaskClient) -> None:
    post(client, [posted(f"{number}") for number in range(3)])
    answer = client.get("/summaries")
    assert answer.mimetype == "application/json"
    assert answer.get_json() == [posted("2"), posted("1"), posted("0")]
    assert list(answer.get_json()[0]) == ["id", "vehicle_plate", "entry_date_time", "exit_date_time", "duration"]


def test_the_limit_is_100_by_default_and_at_most_1000(client: FlaskClient, file: Ledger) -> None:
    assert client.get("/summaries").get_json() == []
    file.append([summary(f"{number}") for number in range(1200)])
    for query, count in (("", 100), ("?limit=1", 1), ("?limit=1000", 1000)):
        found = client.get(f"/summaries{query}").get_json()
        assert [one["id"] for one in found] == [f"{1199 - number}" for number in range(count)]


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "", "x", "1.5", "1_0", "\uff11", "9" * 5000, "%20"])
def test_a_wrong_limit_is_422(client: FlaskClient, limit: str) -> None:
    assert "1 to 1000" in refused(client.get(f"/summaries?limit={limit}"), 422, field="limit")


def test_the_csv_is_the_file(client: FlaskClient, path: Path) -> None:
    post(client, [posted("ä,1"), posted("b")])
    answer = client.get("/summaries.csv")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8; header=present"
    assert int(answer.headers["Content-Length"]) == path.stat().st_size
    assert answer.data == path.read_bytes()


def test_the_csv_ends_with_the_last_line_that_is_on_disk(client: FlaskClient, path: Path) -> None:
    post(client, posted("a"))
    whole = path.read_bytes()
    with path.open("ab") as being_written:
        being_written.write(b"torn,B1")
    assert client.get("/summaries.csv").data == whole


def test_health_is_ok_until_the_file_is_gone(client: FlaskClient, path: Path) -> None:
    post(client, posted("a"))
    assert client.get("/healthz").get_json() == {"status": "ok", "rows": 1}
    path.unlink()
    assert "moved or deleted" in refused(client.get("/healthz"), 503)
    assert "moved or deleted" in refused(post(client, posted("b")), 503)


def test_a_file_that_became_something_else_is_503_and_said(client: FlaskClient, path: Path) -> None:
    path.write_bytes(b"something else\n")
    assert "one whose first line is id,vehicle_plate" in refused(post(client, posted("a")), 503)
    path.write_bytes(b"")
    assert client.get("/summaries.csv").data == b""
    assert post(client, posted("a")).status_code == 201
    assert client.get("/summaries.csv").data == path.read_bytes()


@pytest.mark.parametrize("address", ["/nothing", "/summaries/", "/summaries/1", "/static/x", "/favicon.ico"])
def test_an_unknown_address_is_404_in_json(client: FlaskClient, address: str) -> None:
    refused(client.get(address), 404)


@pytest.mark.parametrize(
    ("method", "address"),
    [("PUT", "/summaries"), ("DELETE", "/summaries"), ("POST", "/"), ("POST", "/summaries.csv"), ("OPTIONS", "/")],
)
def test_a_wrong_method_is_405_in_json(client: FlaskClient, method: str, address: str) -> None:
    answer = client.open(address, method=method)
    refused(answer, 405)
    assert "GET" in answer.headers["Allow"]
