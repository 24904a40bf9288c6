"""The dashboard on a port of its own, or mounted in another WSGI application."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from werkzeug.middleware.dispatcher import DispatcherMiddleware

from carpark.broker import STUB
from carpark.errors import InvalidSetting, PackageMissing
from carpark.ops.dashboard.base import Interface
from carpark.ops.dashboard.park import look
from carpark.ops.dashboard.safety import MAX_FORM, check_login, guarded
from carpark.records import Records, open_records
from carpark.services import SERVICES
from carpark.settings import Settings
from carpark.web.ports import is_login, is_loopback, listen
from carpark.web.server import HttpServer, Limits

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

    from carpark.ops.dashboard.app import Link

_REMEDY = "pip install --no-deps dramatiq-dashboard==0.4.0"
_THREADS = 8


def make_app(
    settings: Settings,
    interface: Interface | None = None,
    records: Records | None = None,
    links: Sequence[Link] | None = None,
    prefix: str = "",
) -> WSGIApplication:
    """Make the dashboard as a WSGI application, without a guard."""
    try:
        from carpark.ops.dashboard.app import Dashboard
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "dramatiq_dashboard":
            raise
        raise PackageMissing("the dashboard", "dramatiq-dashboard", _REMEDY) from None
    broker = interface or _rabbitmq(settings)
    counts = records or open_records(settings.redis_url, settings.retention, settings.sinks, attempts=1)
    return Dashboard(broker, partial(look, counts, broker), links_of(settings) if links is None else links, prefix)


def mount_dashboard(
    app: WSGIApplication, settings: Settings, prefix: str = "/dashboard", interface: Interface | None = None
) -> WSGIApplication:
    """Mount the dashboard in another WSGI application."""
    prefix = "/" + prefix.strip("/")
    dashboard = guarded(make_app(settings, interface, prefix=prefix), settings.dashboard_login, local=False)
    return DispatcherMiddleware(app, {prefix: dashboard})


class DashboardServer(HttpServer):
    """The dashboard on its port. Making one opens the port; then `start` or `run`, and `stop`."""

    limits = Limits(body=MAX_FORM)

    def __init__(
        self,
        settings: Settings,
        interface: Interface | None = None,
        records: Records | None = None,
        links: Sequence[Link] | None = None,
    ) -> None:
        login = settings.dashboard_login

        def wants_body(method: str, headers: Mapping[str, str]) -> bool:
            return method == "POST" and (not login or is_login(headers.get("AUTHORIZATION", ""), login))

        check_login(settings)
        app = make_app(settings, interface, records, links)
        safe = guarded(app, login, local=is_loopback(settings.bind))
        listener = listen(settings.bind, settings.dashboard_port, SERVICES["dashboard"].setting)
        super().__init__(safe, listener, settings.bind, "dashboard", wants_body, threads=_THREADS)


def links_of(settings: Settings) -> list[Link]:
    """Say where the dashboard links to."""
    if settings.dashboard_links:
        pairs = (link.partition("=") for link in settings.dashboard_links)
        return [(name, address) for name, _, address in pairs]
    known = (("RabbitMQ", settings.management_url), ("Writer", settings.writer_url))
    return [(name, _without_user(url)) for name, url in known if url and is_loopback(urlsplit(url).hostname or "")]


def _without_user(url: str) -> str:
    split = urlsplit(url)
    return split._replace(netloc=split.netloc.rpartition("@")[2]).geturl()


def _rabbitmq(settings: Settings) -> Interface:
    from carpark.ops.dashboard.rabbitmq import RabbitmqInterface

    if settings.broker_url.startswith(STUB):
        wanted = "RabbitMQ, amqp://user:password@host:port; `carpark run` shows its own broker"
        raise InvalidSetting("CARPARK_BROKER_URL", settings.broker_url, wanted)
    return RabbitmqInterface(settings)
