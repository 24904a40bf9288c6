"""Who may see the dashboard, and what a browser may do with its pages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from werkzeug.wrappers import Response

from carpark.errors import InvalidSetting
from carpark.settings import Settings
from carpark.web.ports import is_login, is_loopback, is_same_site, names_loopback

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

MAX_FORM = 1024 * 1024
"""The longest form that is read, in bytes: a body of 64 KiB, with every character escaped."""

_POLICY = (
    "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS = [
    ("Content-Security-Policy", _POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "same-origin"),  # with none at all, browsers would say Origin: null of our own forms
    ("Cache-Control", "no-store"),
]


def check_login(settings: Settings) -> None:
    """Refuse to be open to other machines without a password."""
    if not settings.dashboard_login and not is_loopback(settings.bind):
        wanted = f"user:password, because CARPARK_BIND={settings.bind} lets other machines reach the dashboard"
        raise InvalidSetting("CARPARK_DASHBOARD_LOGIN", "", wanted)


def guarded(app: WSGIApplication, login: str, *, local: bool) -> WSGIApplication:
    """Put a guard before an application."""

    def guard(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        response = _refusal(environ, login, local) or Response.from_app(app, environ)
        for name, value in _HEADERS:
            response.headers.setdefault(name, value)
        cookies = response.headers.getlist("Set-Cookie")
        response.headers.setlist("Set-Cookie", [f"{cookie}; SameSite=Strict" for cookie in cookies])
        return response(environ, start_response)

    return guard


def _refusal(environ: WSGIEnvironment, login: str, local: bool) -> Response | None:
    host = environ.get("HTTP_HOST", "")
    if login and not is_login(environ.get("HTTP_AUTHORIZATION", ""), login):
        ask = {"WWW-Authenticate": 'Basic realm="carpark dashboard", charset="UTF-8"'}
        return Response("A user and a password are needed.\n", 401, ask)
    if local and not login and not names_loopback(host):
        text = "Without a password this dashboard is for localhost only: set CARPARK_DASHBOARD_LOGIN.\n"
        return Response(text, 403)
    if environ["REQUEST_METHOD"] == "POST" and not is_same_site(environ.get("HTTP_ORIGIN"), host):
        text = (
            "Forms are not taken from pages of other sites. A proxy before this one has to pass on the header Host.\n"
        )
        return Response(text, 403)
    return None
