"""The default sink: posts summaries to the writer, which appends them to a CSV file."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence

import requests

from carpark.errors import SinkUnavailable, SummaryRefused
from carpark.events import StaySummary
from carpark.plugins.base import PluginContext, Sink, SinkType
from carpark.plugins.spec import hookimpl

_RETRIED = {408, 409, 425, 429}  # of the 4xx, those that another attempt can cure (RFC 9110, 6585, 8470)


class HttpSink(Sink):
    """Posts a JSON list of summaries to a URL and takes any 2xx as kept.

    Args:
        url: Where to post.
        timeout: Seconds that connecting, and each wait for an answer, may take.
        headers: Sent with every request.
    """

    def __init__(self, url: str, timeout: float, headers: dict[str, str]) -> None:
        self._url, self._timeout = url, timeout
        self._headers = {"Content-Type": "application/json", **headers}
        self._sessions = threading.local()

    def deliver(self, summaries: Sequence[StaySummary]) -> None:
        """Post the summaries.

        Args:
            summaries: What is posted, as one list.

        Raises:
            SummaryRefused: The server answered with a status that another attempt does not cure.
            SinkUnavailable: It did not answer in time, or said that it cannot for now.
        """
        body = json.dumps([summary.to_dict() for summary in summaries], ensure_ascii=False).encode()
        try:
            response = self._session().post(
                self._url, data=body, headers=self._headers, timeout=self._timeout, allow_redirects=False
            )
        except requests.RequestException as error:
            raise SinkUnavailable(f"{self._url}: {type(error).__name__}") from error
        if response.ok and not response.is_redirect:
            return
        reason = f"{self._url} answered {response.status_code}: {response.text[:200]}"
        if response.status_code < 500 and response.status_code not in _RETRIED | {401, 403, 404, 413}:
            raise SummaryRefused(reason)
        raise SinkUnavailable(reason)

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._sessions, "session", None)
        if session is None:
            session = self._sessions.session = requests.Session()
            session.trust_env = False  # neither a proxy nor a .netrc stands between the sink and its server
        return session


def _make(context: PluginContext) -> HttpSink:
    settings = context.settings
    token = settings.writer_token
    return HttpSink(
        settings.writer_url.rstrip("/") + "/summaries",
        settings.sink_timeout,
        {"Authorization": f"Bearer {token}"} if token else {},
    )


@hookimpl
def carpark_register_sinks() -> Sequence[SinkType]:
    """Offer ``http-csv``.

    Returns:
        The one offer.
    """
    return [SinkType("http-csv", _make, "posts to the writer (CARPARK_WRITER_URL), which appends to its CSV file")]
