"""The page on which a service shows its metrics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from carpark.errors import NumbersMissing
from carpark.services import METRICS_SETTING
from carpark.web.ports import listen
from carpark.web.server import HttpServer

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from prometheus_client import CollectorRegistry


class MetricsPage(HttpServer):
    """The page ``/metrics`` of a service, 503 while it would not be right. Making one opens the port."""

    drain_seconds = 2.0  # a scrape that takes longer is not worth waiting for

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        # Imported here: a worker must not import prometheus_client before it has booted (its numbers would be lost).
        from prometheus_client import disable_created_metrics, make_wsgi_app

        disable_created_metrics()  # type: ignore[no-untyped-call] # a series more for each one, which nobody asks for
        super().__init__(
            _right_or_503(make_wsgi_app(registry)), listen(host, port, METRICS_SETTING), host, "metrics", threads=1
        )
        self.url += "/metrics"


def _right_or_503(page: WSGIApplication) -> WSGIApplication:
    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            return page(environ, start_response)
        except NumbersMissing as error:
            start_response("503 Service Unavailable", [("Content-Type", "text/plain; charset=utf-8")])
            return [f"{error}\n".encode()]

    return answer
