"""The sinks that post: ``http-csv``, to the writer, and ``webhook``, to any URL."""

from __future__ import annotations

import hashlib
import hmac
import json
import string
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, urlsplit

from pydantic import BaseModel, Field

from carpark.domain.events import StaySummary
from carpark.errors import SinkUnavailable, SummaryRefused
from carpark.ledger import CSV_LINES
from carpark.plugins.base import PluginContext, ReadBack, Sink, SinkType
from carpark.plugins.findings import Finding
from carpark.plugins.spec import hookimpl
from carpark.settings import Settings, values
from carpark.settings.values import mask_url
from carpark.web.ports import cause_of, client

if TYPE_CHECKING:
    import requests

_REFUSED = {400, 413, 422}
"""The statuses that judge what was posted; all others are about the server, the address or the credentials, and an
operator can mend those, so the summaries wait."""

_READ_BYTES = 64 * 1024
"""How much of an answer is read; what is longer is not worth the connection that reading it would save."""

CONNECTIONS = 8
"""Over how many connections the summaries of a batch are posted at once, where each is a post of its own."""

_SHOWN_CHARACTERS = 200
_LOOK: dict[str, Any] = {"timeout": 1.5, "allow_redirects": False}  # seconds, twice; the doctor has 4 for all
_VISIBLE = string.punctuation.replace("%", "")


class HttpSink(Sink):
    """Posts summaries as JSON and takes any 2xx as kept.

    A request carries an ``Idempotency-Key`` that stays the same when it is repeated and, with a secret, the header
    ``X-Carpark-Signature: sha256=…``, the HMAC-SHA256 of the body in hexadecimal.

    Args:
        url: Where to post; http or https.
        timeout: Seconds that connecting, and each wait for an answer, may take.
        headers: Sent with every request.
        secret: The key of the signature; empty for none.
        singly: Post an object per summary rather than one list; its key is then the summary's id, so that a server
            that knows nothing but keys keeps each summary once.
        proxies: Heed the proxies that the environment names. Its certificates are heeded in any case.
    """

    def __init__(
        self,
        url: str,
        timeout: float,
        headers: Mapping[str, str] | None = None,
        *,
        secret: str = "",
        singly: bool = False,
        proxies: bool = False,
    ) -> None:
        import requests  # here, because a process that only looks at the offers need not wait for it

        self._timeout, self._singly = timeout, singly
        if singly:
            self.batch = CONNECTIONS  # so that a batch takes no longer than its slowest post
        self._pool = ThreadPoolExecutor(CONNECTIONS, "webhook") if singly else None
        self._secret = secret.encode()
        # To look up proxies and certificates and to build a request costs requests as much as to post it, and comes out
        # the same each time. The adapter may be used by several threads, and opens its connections when they post.
        session = client()  # so the request has no password but that of the URL
        every = {"Content-Type": "application/json", **(headers or {})}
        self._request = session.prepare_request(requests.Request("POST", url, every))
        target = str(self._request.url)
        session.trust_env = proxies
        self._environment: dict[str, Any] = {**session.merge_environment_settings(target, {}, True, None, None)}
        self._adapter = session.get_adapter(target)
        split = urlsplit(url)
        # The rest of a URL is often a secret, and errors end up in logs and dead letters.
        self._shown = f"{split.scheme}://{split.netloc.rpartition('@')[2]}"

    def deliver(self, summaries: Sequence[StaySummary]) -> None:
        """Post the summaries.

        Args:
            summaries: What is posted. Of a list that is refused the halves are offered, so that the good ones arrive.

        Raises:
            SummaryRefused: The server refused the ones that ``ids`` names; it has the others.
            SinkUnavailable: It did not answer in time, or said that it cannot for now.
        """
        if not summaries:
            return
        if self._pool is None:
            refused = self._offer(list(summaries))
        else:
            offers = [self._pool.submit(self._offer, [summary]) for summary in summaries]
            wait(offers)
            refused = {id_: reason for offer in offers for id_, reason in offer.result().items()}
        if refused:
            raise SummaryRefused(next(iter(refused.values())), tuple(refused))

    def close(self) -> None:
        """Close all connections."""
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self._adapter.close()

    def _offer(self, summaries: list[StaySummary]) -> dict[str, str]:
        reason = self._post(summaries)
        if reason is None:
            return {}
        if len(summaries) == 1:
            return {summaries[0].id: reason}
        half = len(summaries) // 2
        return self._offer(summaries[:half]) | self._offer(summaries[half:])

    def _post(self, summaries: list[StaySummary]) -> str | None:
        bodies = [summary.to_dict() for summary in summaries]
        body = json.dumps(bodies[0] if self._singly else bodies, ensure_ascii=False, separators=(",", ":")).encode()
        request = self._request.copy()
        request.headers["Idempotency-Key"] = _key([summary.id for summary in summaries])
        if self._secret:
            signature = hmac.new(self._secret, body, hashlib.sha256).hexdigest()
            request.headers["X-Carpark-Signature"] = f"sha256={signature}"
        request.prepare_body(body, None)
        deadline = time.monotonic() + self._timeout
        try:
            with self._adapter.send(request, timeout=self._timeout, **self._environment) as response:
                status = response.status_code
                text = b"".join(_read(response, deadline)).decode("utf-8", "replace")
        except OSError as error:  # every error of requests is one
            raise SinkUnavailable(f"{self._shown}: {cause_of(error)}") from error
        if 200 <= status < 300:
            return None
        answer = " ".join(text.split())[:_SHOWN_CHARACTERS]
        reason = f"{self._shown} answered {status}{answer and ': ' + answer}"
        if status in _REFUSED:
            return reason
        raise SinkUnavailable(reason)


def _read(response: requests.Response, deadline: float) -> Iterator[bytes]:
    size = 0
    for chunk in response.iter_content(4096):
        size += len(chunk)
        if size > _READ_BYTES or time.monotonic() > deadline:
            return
        yield chunk


def _key(ids: list[str]) -> str:
    if len(ids) == 1:
        return quote(ids[0], safe=_VISIBLE)
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()  # no id has a line break


def _token(settings: Settings) -> dict[str, str]:
    return {"Authorization": f"Bearer {settings.writer_token}"} if settings.writer_token else {}


def _make_http_csv(context: PluginContext) -> HttpSink:
    settings = context.settings
    return HttpSink(settings.writer_url.rstrip("/") + "/summaries", settings.sink_timeout, _token(settings))


def _check_writer(context: PluginContext) -> list[Finding]:
    """Look whether the writer is there and takes our token. It is posted an empty list."""
    settings = context.settings
    url = settings.writer_url.rstrip("/")
    where = mask_url(url)
    with client() as session:  # as the sink does
        try:
            health = session.get(f"{url}/healthz", **_LOOK)
            posted = session.post(f"{url}/summaries", json=[], headers=_token(settings), **_LOOK)
        except OSError as error:  # every error of requests is one
            advice = "start `carpark writer`, or correct CARPARK_WRITER_URL"
            return [Finding.problem("writer", f"{where}: {cause_of(error)}", advice)]
    return [_judge_writer(where, bool(settings.writer_token), health, posted)]


def _judge_writer(where: str, with_token: bool, health: requests.Response, posted: requests.Response) -> Finding:
    advice = "correct CARPARK_WRITER_URL"
    if posted.status_code == 401:
        found = f"{where} refuses {'the token' if with_token else 'a request without a token'}"
        advice = "give both sides the same CARPARK_WRITER_TOKEN"
    elif posted.status_code == 403:
        found, advice = f"{where}: {_error_of(posted)}", f"{advice} or CARPARK_WRITER_TOKEN"
    elif health.status_code == 503:
        found, advice = f"{where} is not well: {_error_of(health)}", "look into its log"
    elif health.status_code != 200 or posted.status_code != 201:
        found = f"{where} answers {health.status_code} and {posted.status_code}, as the writer does not"
    else:
        return Finding.ok("writer", f"{where}, takes summaries")
    return Finding.problem("writer", found, advice)


def _error_of(response: requests.Response) -> str:
    try:
        return str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        return "no reason given"


class WebhookSettings(BaseModel, frozen=True, extra="forbid"):
    """The settings of the sink ``webhook``."""

    url: Annotated[str, values.url("http://host/path, because CARPARK_SINKS names webhook", "http", "https")] = Field(
        description="where the sink `webhook` posts each summary"
    )
    secret: Annotated[str, values.secret()] = Field(
        default="", description="if set, the sink `webhook` signs what it posts with it (HMAC-SHA256)"
    )


def _make_webhook(context: PluginContext) -> HttpSink:
    own: WebhookSettings = context.own
    return HttpSink(own.url, context.settings.sink_timeout, secret=own.secret, singly=True, proxies=True)


@hookimpl
def carpark_register_sinks() -> Sequence[SinkType]:
    """Offer ``http-csv`` and ``webhook``.

    Returns:
        The two offers.
    """
    return [
        SinkType(
            "http-csv",
            _make_http_csv,
            "posts to the writer (CARPARK_WRITER_URL), which appends to its CSV file",
            check=_check_writer,
            read_back=lambda context: ReadBack.of_file(context.settings.csv, CSV_LINES.read),
            service="writer",
        ),
        SinkType(
            "webhook",
            _make_webhook,
            "posts each summary to CARPARK_WEBHOOK_URL, signed with a secret if set",
            WebhookSettings,
        ),
    ]
