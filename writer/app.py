"""The writer's HTTP interface: summaries in, the file and a page for people out."""

from __future__ import annotations

import errno
import hmac
import logging
import re
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import IO, cast
from urllib.parse import urlsplit

from flask import Flask, Response, g, jsonify, render_template, request
from flask.json.provider import DefaultJSONProvider
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.wsgi import wrap_file

from carpark.domain.events import StaySummary
from carpark.errors import CarparkError, InvalidBody, InvalidSummary
from carpark.ledger import CSV_LINES, Ledger, Line
from carpark.ledger.index import Index
from carpark.settings import Settings
from carpark.web.ports import in_url, is_login, is_loopback, is_same_site, names_loopback
from writer import page
from writer.body import Body
from writer.metrics import WriterMetrics

MAX_BODY = 8 * 1024 * 1024
"""The longest body of a POST, in bytes."""

_MOST_ROWS = 1000
_MOST_SUMMARIES = MAX_BODY // 64  # the shortest one has 115 bytes
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_LIMIT = re.compile("[0-9]{1,9}")
_BIG = 256 * 1024
_ROUTES = {
    "page": "GET /",
    "newest": "GET /summaries",
    "append": "POST /summaries",
    "download": "GET /summaries.csv",
    "healthz": "GET /healthz",
    "metrics": "GET /metrics",
}
_OPEN = ("healthz", "metrics")

logger = logging.getLogger("writer")


class Refusal(Exception):
    """A request that is answered with an error."""

    def __init__(
        self, status: int, error: str, index: int | None = None, field: str | None = None, scheme: str = "Bearer"
    ) -> None:
        super().__init__(error)
        self.status, self.error, self.index, self.field, self.scheme = status, error, index, field, scheme


class _Json(DefaultJSONProvider):
    """Keeps fields in the order of the CSV's columns."""

    sort_keys = False


def make_app(
    settings: Settings,
    summaries: Ledger,
    registry: CollectorRegistry | None = None,
    inside: Callable[[], int | None] | None = None,
) -> Flask:
    """Make the WSGI application."""
    app = Flask(__name__, static_folder=None)
    # One more than is taken: of a stream without a length Werkzeug silently gives the first so many bytes.
    app.config.update(MAX_CONTENT_LENGTH=MAX_BODY + 1, PROVIDE_AUTOMATIC_OPTIONS=False)
    app.json = _Json(app)
    metrics = WriterMetrics(CollectorRegistry() if registry is None else registry)
    _count_requests(app, metrics)
    _turn_away_other_sites(app, local=is_loopback(settings.bind) and not settings.writer_token)
    _ask_who_reads(app, settings)
    _answer_errors_in_json(app, summaries)
    _take_posts(app, summaries, metrics, settings.writer_token)
    _give_out(app, summaries, metrics)
    app.config["DASHBOARD_PORT"] = settings.dashboard_port
    _show_people(app, settings, summaries, inside)
    return app


def _count_requests(app: Flask, metrics: WriterMetrics) -> None:
    @app.before_request
    def begin() -> None:
        g.began = time.perf_counter()

    @app.after_request
    def end(response: Response) -> Response:
        endpoint = _ROUTES.get(request.endpoint or "", "other")
        metrics.request(endpoint, response.status_code, time.perf_counter() - g.began)
        response.headers["X-Content-Type-Options"] = "nosniff"
        if "Cache-Control" not in response.headers:
            response.headers["Cache-Control"] = "no-store"
        return response


def _turn_away_other_sites(app: Flask, *, local: bool) -> None:
    """Refuse what a page of another site makes the browser of somebody who can reach this port send."""

    @app.before_request
    def refuse() -> None:
        host, origin = request.headers.get("Host", ""), request.headers.get("Origin")
        if local and not names_loopback(host):
            raise Refusal(
                403, "without CARPARK_WRITER_TOKEN this writer is for localhost only: call it by that name, or set one"
            )
        if request.method == "POST" and not is_same_site(origin, host):
            raise Refusal(403, "summaries are not taken from pages of other sites")


def _ask_who_reads(app: Flask, settings: Settings) -> None:
    """Plates are personal data: where other machines can ask for them, only who has the login or the token is told."""
    login, token = settings.dashboard_login, settings.writer_token
    if not login and is_loopback(settings.bind):
        return

    @app.before_request
    def refuse() -> None:
        if request.method == "POST" or request.endpoint in _OPEN:
            return
        given = request.headers.get("Authorization", "")
        if not (login and is_login(given, login)) and not (token and is_authorised(given, token)):
            wanted = "wanted the user and password of CARPARK_DASHBOARD_LOGIN, or the writer's token"
            raise Refusal(401, wanted, scheme="Basic" if login else "Bearer")  # a browser asks for what is Basic


def _answer_errors_in_json(app: Flask, summaries: Ledger) -> None:
    def answer(status: int, error: str, index: int | None = None, field: str | None = None) -> Response:
        response = jsonify(error=error, index=index, field=field)
        response.status_code = status
        return response

    @app.errorhandler(Refusal)
    def refuse(refusal: Refusal) -> Response:
        response = answer(refusal.status, refusal.error, refusal.index, refusal.field)
        if refusal.status == 401:
            response.headers["WWW-Authenticate"] = f'{refusal.scheme} realm="carpark writer"'
        return response

    @app.errorhandler(OSError)
    def disk(error: OSError) -> Response:
        response = answer(507 if error.errno in _FULL else 503, _said_of(error, summaries))
        response.headers["Retry-After"] = "5"
        return response

    @app.errorhandler(CarparkError)
    def unavailable(error: CarparkError) -> Response:
        return answer(503, str(error))

    @app.errorhandler(HTTPException)
    def http(error: HTTPException) -> Response:
        status = error.code or 500
        text = f"the body has more than {MAX_BODY} bytes" if status == 413 else error.description or error.name
        response = answer(status, text)
        for name, value in error.get_headers():
            if name not in ("Content-Type", "Content-Length"):
                response.headers[name] = value
        return response


def _said_of(error: OSError, summaries: Ledger) -> str:
    reason = error.strerror or "the disk fails"
    if not summaries.foreign:  # which the service ends with, in a line of its own
        logger.error("writer: %s", reason)
    return f"nothing of this was written ({reason}); send it again later" if request.method == "POST" else reason


def _take_posts(app: Flask, summaries: Ledger, metrics: WriterMetrics, token: str) -> None:
    big = threading.Lock()

    @app.post("/summaries")
    def append() -> tuple[Response, int]:
        if not is_authorised(request.headers.get("Authorization", ""), token):
            raise Refusal(401, "wanted the writer's token: Authorization: Bearer <CARPARK_WRITER_TOKEN>")
        if (encoding := request.headers.get("Content-Encoding", "identity").lower()) != "identity":
            raise Refusal(415, f"the body is compressed ({encoding[:20]}); wanted JSON as it is")
        # Big lists one at a time: eight of them at once would take eight times the memory.
        with big if (request.content_length or 0) > _BIG else nullcontext():
            written, duplicates = summaries.append(_read_body(metrics))
        metrics.summaries("written", written)
        metrics.summaries("duplicate", duplicates)
        return jsonify(written=written, duplicates=duplicates), 201


def is_authorised(header: str, token: str) -> bool:
    """Look whether a POST may be taken."""
    scheme, _, given = header.partition(" ")
    return not token or (
        hmac.compare_digest(given.strip().encode("latin-1", "replace"), token.encode()) and scheme.lower() == "bearer"
    )


def _read_body(metrics: WriterMetrics) -> list[Line]:
    """Read the summaries one by one: of a body of 8 MiB, whatever is in it, no more than its valid lines is held."""
    if (request.content_length or 0) > MAX_BODY:
        raise RequestEntityTooLarge  # the server has not even read it
    body, lines, refusal, count = Body(request.stream), [], None, 0
    try:
        for count, item in enumerate(body, 1):
            if refusal and count > _MOST_SUMMARIES:
                break  # they cannot all be summaries, so nobody needs to know how many they are
            try:
                lines += [] if refusal else [CSV_LINES.line(StaySummary.parse(item))]
            except InvalidSummary as error:
                field = None if error.field == "body" else error.field
                refusal = Refusal(422, str(error), count - 1 if body.is_list else None, field)
                lines.clear()
    except InvalidBody as error:
        raise Refusal(400, str(error)) from None
    if body.size > MAX_BODY:
        raise RequestEntityTooLarge
    if refusal:
        metrics.summaries("rejected", count)
        raise refusal
    return lines


def _give_out(app: Flask, summaries: Ledger, metrics: WriterMetrics) -> None:
    @app.get("/summaries")
    def newest() -> Response:
        limit = request.args.get("limit", "100")
        if not _LIMIT.fullmatch(limit) or not 1 <= int(limit) <= _MOST_ROWS:
            raise Refusal(422, f"limit: wanted a whole number from 1 to {_MOST_ROWS}", field="limit")
        return jsonify(summaries.latest(int(limit)))

    @app.get("/summaries.csv")
    def download() -> Response:
        snapshot = summaries.snapshot()
        response = Response(wrap_file(request.environ, cast(IO[bytes], snapshot)), direct_passthrough=True)
        response.headers["Content-Type"] = "text/csv; charset=utf-8; header=present"
        response.headers["Content-Disposition"] = 'inline; filename="summaries.csv"'
        response.headers["Content-Length"] = str(snapshot.size)
        return response

    @app.get("/healthz")
    def healthz() -> tuple[Response, int]:
        problem = summaries.problem()
        if problem:
            raise Refusal(503, problem)
        return jsonify(status="ok", rows=summaries.ask(Index.totals).rows), 200

    @app.get("/metrics", endpoint="metrics")
    def show_metrics() -> Response:
        return Response(generate_latest(metrics.registry), content_type=CONTENT_TYPE_LATEST)


def _show_people(app: Flask, settings: Settings, summaries: Ledger, inside: Callable[[], int | None] | None) -> None:
    @app.get("/", endpoint="page")
    def show_page() -> Response:
        nonce = secrets.token_urlsafe(16)
        view = page.look(summaries, request.args.get("span", ""), inside() if inside else None, time.time())
        dashboard = _beside(request.host, app.config["DASHBOARD_PORT"])
        page_ = render_template("page.html", view=view, nonce=nonce, csv=settings.csv.name, dashboard=dashboard)
        response = Response(page_)
        response.headers["Content-Security-Policy"] = (
            f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; "
            "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        return response


def _beside(host: str, port: int) -> str:
    """Say where the dashboard is: on the machine that this page was asked of, by the name that it was asked by."""
    name = urlsplit(f"//{host}").hostname
    return f"http://{in_url(name)}:{port}/" if name and port else ""
