"""Who may see the dashboard, and what a browser may do with its pages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

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
]


def check_login(settings: Settings) -> None:
    """Refuse to be open to other machines without a password.

    Args:
        settings: Of these, ``bind`` and ``dashboard_login`` are used.

    Raises:
        InvalidSetting: Other machines can reach the dashboard, and no password is asked for.
    """
    if not settings.dashboard_login and not is_loopback(settings.bind):
        wanted = f"user:password, because CARPARK_BIND={settings.bind} lets other machines reach the dashboard"
        raise InvalidSetting("CARPARK_DASHBOARD_LOGIN", "", wanted)


def guarded(app: WSGIApplication, login: str, *, local: bool) -> WSGIApplication:
    """Put a guard before an application.

    Args:
        app: The application.
        login: ``user:password`` that is asked for, or nothing.
        local: Whether the application is for browsers on this machine alone: then a page of another site whose name
            was made to lead here is turned away.

    Returns:
        The guarded application.
    """

    def guard(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            named = {name.lower() for name, _ in headers}
            more = [(name, value) for name, value in _HEADERS if name.lower() not in named]
            if "cache-control" not in named:
                more.append(("Cache-Control", "no-store"))
            return start_response(status, [*map(_same_site, headers), *more], *rest)

        if login and not is_login(environ.get("HTTP_AUTHORIZATION", ""), login):
            ask = [("WWW-Authenticate", 'Basic realm="carpark dashboard", charset="UTF-8"')]
            return _say(start, "401 Unauthorized", "A user and a password are needed.", ask)
        if local and not login and not names_loopback(environ.get("HTTP_HOST", "")):
            text = "Without a password this dashboard is for localhost only: set CARPARK_DASHBOARD_LOGIN."
            return _say(start, "403 Forbidden", text)
        if environ["REQUEST_METHOD"] == "POST" and not is_same_site(
            environ.get("HTTP_ORIGIN"), environ.get("HTTP_HOST", "")
        ):
            text = (
                "Forms are not taken from pages of other sites. A proxy before this one has to pass on the header Host."
            )
            return _say(start, "403 Forbidden", text)
        return app(environ, start)

    return guard


def _say(start: Any, status: str, text: str, headers: Iterable[tuple[str, str]] = ()) -> Iterable[bytes]:
    start(status, [("Content-Type", "text/plain; charset=utf-8"), *headers])
    return [f"{text}\n".encode()]


def _same_site(header: tuple[str, str]) -> tuple[str, str]:
    name, value = header
    return (name, f"{value}; SameSite=Strict") if name.lower() == "set-cookie" else header
