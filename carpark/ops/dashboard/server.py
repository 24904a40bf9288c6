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
    """Make the dashboard as a WSGI application, without a guard.

    Args:
        settings: The servers' URLs, the sinks in use, the links.
        interface: The broker; by default the RabbitMQ of the settings.
        records: Where the counts are; by default in the Redis of the settings.
        links: Names and addresses of other pages; by default as the settings say.
        prefix: The path that it is mounted under, ``/dashboard`` or nothing.

    Returns:
        The application.

    Raises:
        PackageMissing: dramatiq-dashboard is not installed.
        InvalidSetting: The broker is the in-process one, of which only its own process knows.
    """
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
    """Mount the dashboard in another WSGI application.

    Args:
        app: The application that answers everything else.
        settings: As for `make_app`; with ``dashboard_login`` the dashboard asks for it, otherwise who may see it is up
            to the other application.
        prefix: The path of the dashboard.
        interface: The broker; by default the RabbitMQ of the settings.

    Returns:
        Both applications as one.

    Raises:
        PackageMissing: dramatiq-dashboard is not installed.
        InvalidSetting: The broker is the in-process one, of which only its own process knows.
    """
    prefix = "/" + prefix.strip("/")
    dashboard = guarded(make_app(settings, interface, prefix=prefix), settings.dashboard_login, local=False)
    return DispatcherMiddleware(app, {prefix: dashboard})


class DashboardServer(HttpServer):
    """The dashboard on its port. Making one opens the port; then `start` or `run`, and `stop`.

    Args:
        settings: Of these, ``bind``, ``dashboard_port``, ``dashboard_login`` and those of `make_app` are used.
        interface: The broker; by default the RabbitMQ of the settings.
        records: Where the counts are; by default in the Redis of the settings.
        links: Names and addresses of other pages; by default as the settings say.

    Raises:
        PackageMissing: dramatiq-dashboard is not installed.
        PortTaken: The port is in use.
        InvalidSetting: The address cannot be used, other machines could reach it and there is no password, or the
            broker is one that only its own process knows.
    """

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
    """Say where the dashboard links to.

    Args:
        settings: Of these, ``dashboard_links``, ``management_url`` and ``writer_url`` are used.

    Returns:
        The links of the settings; else RabbitMQ's management UI and the writer, where they are on this machine, because
        from elsewhere a browser may know them by other names.
    """
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
