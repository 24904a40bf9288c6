"""The dashboard as tests use it: over an in-process broker, asked without a browser."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import unescape

from werkzeug.test import Client, TestResponse

from carpark.broker import StubBroker
from carpark.broker.dead_letters import headers_for
from carpark.broker.stub import StoredMessage
from carpark.rabbitmq.topology import all_queues

CSRF = "__dd_csrf"


class Pages:
    """Asks a WSGI application for pages, and sends the forms that are on them.

    Args:
        app: The application.
        prefix: The path that it is mounted under.
    """

    def __init__(self, app: object, prefix: str = "") -> None:
        self.client = Client(app)  # type: ignore[arg-type]
        self.prefix = prefix

    def get(self, path: str, **headers: str) -> TestResponse:
        """Ask for a page."""
        return self.client.get(self.prefix + path, headers={"Host": "localhost", **headers})

    def text(self, path: str) -> str:
        """Ask for a page and give what it says, without its markup."""
        return text_of(self.get(path))

    def post(self, path: str, form: Mapping[str, object], *, token: bool = True, **headers: str) -> TestResponse:
        """Send a form, with the token that a page has given."""
        fields = dict(form)
        if token:
            page = self.get("/queues/vehicle_entry/failed").get_data(as_text=True)
            cookie = self.client.get_cookie(CSRF)
            fields[CSRF] = cookie.value if cookie else page
        return self.client.post(self.prefix + path, data=fields, headers={"Host": "localhost", **headers})


def text_of(response: TestResponse) -> str:
    """Give what a page says, without its markup."""
    body = response.get_data(as_text=True).partition("<main")[2]
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())


def broker_with(*bodies: bytes, queue: str = "vehicle_entry", why: str = "not wanted") -> StubBroker:
    """Make a broker of this process that has dead letters."""
    broker = StubBroker([])
    for name in all_queues(1):
        broker.declare_queue(name)
    broker.dead[queue] += [StoredMessage(body, {**headers_for(why), "n": n}) for n, body in enumerate(bodies)]
    return broker
