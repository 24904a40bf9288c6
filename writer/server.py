"""The writer as a server: in a thread of another process, or as a service of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector
from waitress.task import ErrorTask

from carpark.errors import InvalidSetting, ServiceError
from carpark.ledger import Ledger
from carpark.services import SERVICES
from carpark.settings import Settings
from carpark.web.ports import is_loopback, listen
from carpark.web.server import Channel, HttpServer, Limits
from writer.app import MAX_BODY, is_authorised, make_app
from writer.inside import inside_of_redis

_THREADS = 8
_BACKLOG = 256


class _JsonErrorTask(ErrorTask):
    """Answers what is not even an HTTP request as the application answers errors."""

    def execute(self) -> None:
        error = self.request.error
        body = json.dumps({"error": f"{error.reason}: {error.body}", "index": None, "field": None}).encode()
        self.status = f"{error.code} {error.reason}"
        self.response_headers.append(("Content-Type", "application/json"))
        self.set_close_on_finish()
        vars(self)["content_length"] = len(body)
        self.write(body)  # type: ignore[no-untyped-call]


class _Channel(Channel):
    error_task_class = _JsonErrorTask


class WriterServer(HttpServer):
    """The open file and the HTTP server before it. Making one opens both; then `start` or `run`, and `stop`."""

    limits = Limits(body=MAX_BODY, held=2 * MAX_BODY, connections=1000)
    channel_class = _Channel

    def __init__(
        self,
        settings: Settings,
        registry: CollectorRegistry | None = None,
        inside: Callable[[], int | None] | None = None,
    ) -> None:
        self.summaries = Ledger(settings.csv)  # first, so that what was typed is judged before a port is tried
        try:
            listener = listen(settings.bind, settings.writer_port, SERVICES["writer"].setting, _BACKLOG)
        except BaseException:
            self.summaries.close()
            raise

        def wants_body(method: str, headers: Mapping[str, str]) -> bool:
            return method == "POST" and is_authorised(headers.get("AUTHORIZATION", ""), settings.writer_token)

        self.app = make_app(settings, self.summaries, registry, inside)
        super().__init__(self.app, listener, settings.bind, "writer", wants_body, threads=_THREADS, backlog=_BACKLOG)

    def close_behind(self) -> None:
        """Close the file."""
        self.summaries.close()


def serve(settings: Settings) -> None:
    """Be the service: serve until SIGTERM or SIGINT, then finish the requests in hand and close the file."""
    if not is_loopback(settings.bind) and not settings.dashboard_login and not settings.writer_token:
        wanted = (
            f"user:password, because CARPARK_BIND={settings.bind} lets other machines ask for the stays; "
            "or set CARPARK_WRITER_TOKEN"
        )
        raise InvalidSetting("CARPARK_DASHBOARD_LOGIN", "", wanted)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    server = WriterServer(settings, registry, inside_of_redis(settings.redis_url))
    server.summaries.on_foreign = server.ask_to_stop
    server.run_until_signal(f"writer: {server.url} appends to {settings.csv}")
    if server.summaries.foreign:
        raise ServiceError(server.summaries.foreign)
