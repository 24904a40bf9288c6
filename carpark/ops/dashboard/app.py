"""dramatiq-dashboard's application over an interface of ours: more counts, bulk actions, questions, errors as pages."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from importlib import resources
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import parse_qsl

import jinja2
from dramatiq.common import dq_name, q_name, xq_name
from dramatiq_dashboard import DashboardApp
from dramatiq_dashboard.application import queue_for_tab, tab_from_q_name
from dramatiq_dashboard.csrf import csrf_protect, lookup_csrf_token
from dramatiq_dashboard.http import HTTP_405, Response, handler, redirect, templated

from carpark.errors import InvalidBody, QueueMismatch, ServiceError
from carpark.ops.dashboard.base import REACH, Interface, QueueUnknown, has_id, matches
from carpark.ops.dashboard.jobs import Job, check_mended
from carpark.ops.dashboard.park import CarPark
from carpark.ops.dashboard.safety import MAX_FORM
from carpark.ops.health import span

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

log = logging.getLogger(__name__)

_PLAIN = [("Content-Type", "text/plain; charset=utf-8")]
_TOKEN = "0123456789abcdef"
_TOKEN_LENGTH = 64
_NOTICES = {
    "requeued": "{} sent to the queue again.",
    "deleted": "{} deleted.",
    "sent": "{} mended and sent to the queue.",
    "gone": "That message is not there any more.",
}
_STYLE = resources.files(__package__).joinpath("templates", "style.css")

Link = tuple[str, str]


Handler = TypeVar("Handler", bound=Callable[..., Any])


def _page(template: str) -> Callable[[Handler], Handler]:
    """Make a method answer with a page; what it returns is what the page shows."""

    def decorate(method: Handler) -> Handler:
        return cast(Handler, handler(csrf_protect(templated(template)(method))))

    return decorate


def _action(method: Handler) -> Handler:
    """Make a method answer to the POST of a form of ours, and to nothing else."""

    def checked(self: Any, req: Any) -> Any:
        if req.method != "POST":
            return Response(HTTP_405, [*_PLAIN, ("Allow", "POST")], "Expected a POST request.\n")
        return method(self, req)

    return cast(Handler, handler(csrf_protect(checked)))


def _plain(method: Handler) -> Handler:
    """Make a method answer with what it returns."""
    return cast(Handler, handler(method))


class _NoRedis:
    """Stands where dramatiq-dashboard wants a broker over Redis, until it has got an interface of ours."""

    @property
    def client(self) -> _NoRedis:
        return self

    def register_script(self, script: bytes) -> None:
        """Take a script; it is never run."""


class Dashboard(DashboardApp):  # type: ignore[misc]
    """The dashboard as a WSGI application.

    Args:
        interface: The broker.
        park: Looks at the car park.
        links: Names and addresses of other pages.
        prefix: The path that it is mounted under, ``/dashboard`` or nothing.
    """

    iface: Any

    def __init__(
        self, interface: Interface, park: Callable[[], CarPark], links: Sequence[Link] = (), prefix: str = ""
    ) -> None:
        super().__init__(_NoRedis(), prefix)
        self.iface = interface
        self._park = park
        ours_first = ("carpark.ops.dashboard", "dramatiq_dashboard")
        self.templates.loader = jinja2.ChoiceLoader([jinja2.PackageLoader(each, "templates") for each in ours_first])
        self.templates.filters.update(timeago=timeago, clock=clock, span=span, number="{:,}".format)
        self.templates.globals.update(links=links, broker=interface.title, reach=REACH)
        catch_all = self._dispatch_table.pop()  # behind it, no route would ever be looked at
        for path, answer in {
            "/carpark": self.carpark,
            "/style.css": self.style,
            "/ask": self.ask,
            "/requeue-all": self.requeue_all,
            "/delete-all": self.delete_all,
            "/send-message": self.send_message,
        }.items():
            self.add_route(path, answer)
        self._dispatch_table.append(catch_all)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request; whatever goes wrong is a page too."""
        try:
            environ = _checked(environ)
            answer: Iterable[bytes] | None = super().__call__(environ, start_response)
            if answer is not None:
                return answer
            raise QueueUnknown("There is no such page.")
        except QueueUnknown as error:
            return self._problem(start_response, "404 Not Found", "Not here", str(error))
        except (QueueMismatch, ServiceError) as error:
            return self._problem(start_response, "503 Service Unavailable", "Nothing to see right now", str(error))
        except _BadRequest as error:
            return self._problem(start_response, "400 Bad Request", "That was not understood", str(error))
        except Exception:
            log.exception("dashboard: %s %s failed", environ.get("REQUEST_METHOD"), environ.get("PATH_INFO"))
            text = "The dashboard made a mistake; its log says which."
            return self._problem(start_response, "500 Internal Server Error", "That went wrong", text)

    def _problem(self, start_response: StartResponse, status: str, title: str, text: str) -> Iterable[bytes]:
        page = self.templates.get_template("problem.html").render(title=title, text=text, request=None)
        start_response(status, [("Content-Type", "text/html; charset=utf-8")])
        return [page.encode("utf-8", "replace")]

    @_plain
    def not_found(self, req: Any) -> Any:
        """Answer all other paths."""
        raise QueueUnknown("There is no such page.")

    @_page("carpark.html")
    def carpark(self, req: Any) -> Any:
        """Show how the car park is."""
        return {"park": self._park()}

    @_plain
    def style(self, req: Any) -> Any:
        """Give the style sheet."""
        headers = [("Content-Type", "text/css; charset=utf-8"), ("Cache-Control", "max-age=60")]
        return Response(headers=headers, content=_STYLE.read_text(encoding="utf-8"))

    @_page("queue.html")
    def queue(self, req: Any, *, name: str, current_tab: str = "standard") -> Any:
        """List a page of messages."""
        queue = self.iface.get_queue(name)
        match = req.params.get("match", "").strip()
        queue_name = queue_for_tab(name, current_tab)
        following, jobs = self.iface.get_jobs(
            queue_name, _number(req.params.get("cursor", "0")), matches(match) if match else None
        )
        return {
            "queue": queue,
            "jobs": jobs,
            "cursor": following,
            "current_tab": current_tab,
            "queue_for_tab": queue_name,
            "match": match,
            "notice": _notice(req.params),
        }

    @_page("job.html")
    def job(self, req: Any, *, name: str, current_tab: str, message_id: str) -> Any:
        """Show a message."""
        queue = self.iface.get_queue(name)
        job = self.iface.get_job(queue_for_tab(name, current_tab), message_id)
        if job is None:
            return self._back(queue_for_tab(name, current_tab), "gone")
        return self._job_page(queue, job)

    def _job_page(self, queue: Any, job: Job, error: str = "", text: str | None = None) -> dict[str, Any]:
        return {
            "queue": queue,
            "job": job,
            "current_tab": tab_from_q_name(job.queue_name),
            "queue_for_tab": job.queue_name,
            "error": error,
            "text": job.text if text is None else text,
        }

    @_page("ask.html")
    def ask(self, req: Any) -> Any:
        """Ask before something that cannot be taken back."""
        queue_name = self._movable(req.params)
        action, match = req.params.get("do", ""), req.params.get("match", "").strip()
        context = {"action": action, "queue_for_tab": queue_name, "match": match, "job": None, "count": 1}
        context |= {"queue": self.iface.get_queue(q_name(queue_name)), "current_tab": tab_from_q_name(queue_name)}
        if action == "delete-message":
            job = self.iface.get_job(queue_name, req.params.get("id", ""))
            return {**context, "job": job} if job else self._back(queue_name, "gone")
        if action not in ("delete-all", "requeue-all"):
            raise _BadRequest("There is no such action.")
        _, jobs = self.iface.get_jobs(queue_name, 0, matches(match) if match else None)
        return {**context, "count": jobs.total}

    @_action
    def requeue_message(self, req: Any) -> Any:
        """Send one message to its queue again."""
        return self._move(req, "requeued", lambda name, form: self.iface.requeue(name, has_id(form.get("id", "")), 1))

    @_action
    def delete_message(self, req: Any) -> Any:
        """Delete one message."""
        return self._move(req, "deleted", lambda name, form: self.iface.delete(name, has_id(form.get("id", "")), 1))

    @_action
    def requeue_all(self, req: Any) -> Any:
        """Send all messages, or those that match, to their queue again."""
        return self._move(
            req,
            "requeued",
            lambda name, form: self.iface.requeue(name, matches(form.get("match", "")), _number(form.get("count"))),
        )

    @_action
    def delete_all(self, req: Any) -> Any:
        """Delete all messages, or those that match."""
        return self._move(
            req,
            "deleted",
            lambda name, form: self.iface.delete(name, matches(form.get("match", "")), _number(form.get("count"))),
        )

    @_action
    def send_message(self, req: Any) -> Any:
        """Send a message with a mended body, in place of the one that is dead."""
        form = req.post_data
        queue_name, message_id, text = self._movable(form), form.get("id", ""), form.get("body", "")
        job = self.iface.get_job(queue_name, message_id)
        if job is None:
            return self._back(queue_name, "gone")
        body = text.replace("\r\n", "\n").encode("utf-8", "replace")
        try:
            check_mended(job, body)
        except InvalidBody as error:
            context = self._job_page(self.iface.get_queue(q_name(queue_name)), job, str(error), text)
            page = self.templates.get_template("job.html").render(request=req, **context)
            return "422 Unprocessable Content", page
        sent = self.iface.requeue(queue_name, has_id(message_id), 1, body)
        return self._back(queue_name, "sent" if sent else "gone")

    def _move(self, req: Any, done: str, move: Callable[[str, dict[str, str]], int]) -> Any:
        queue_name = self._movable(req.post_data)
        count = move(queue_name, req.post_data)
        return self._back(queue_name, done if count else "gone", count, req.post_data.get("match", ""))

    def _movable(self, form: dict[str, str]) -> str:
        """Read the name of a queue whose messages may be moved: those that wait to be worked on may not."""
        queue_name = form.get("queue", "")
        if queue_name not in (dq_name(queue_name), xq_name(queue_name)):
            raise QueueUnknown("That queue has neither dead nor delayed messages.")
        self.iface.get_queue(q_name(queue_name))
        return queue_name

    def _back(self, queue_name: str, said: str, count: int = 1, match: str = "") -> Any:
        params = {"said": said, "count": count, **({"match": match} if match else {})}
        uri = self.make_uri("queues", q_name(queue_name), tab_from_q_name(queue_name), params=params)
        return redirect(uri)


class _BadRequest(Exception):
    """What a browser sent cannot be read."""


def timeago(moment: datetime) -> str:
    """Say how long ago something was, or in how long it will be.

    Args:
        moment: An aware datetime.

    Returns:
        ``3 min ago``, ``in 2 h``.
    """
    seconds = (datetime.now(UTC) - moment).total_seconds()
    text = span(abs(seconds))
    return f"in {text}" if seconds < 0 else f"{text} ago"


def clock(moment: datetime) -> str:
    """Write a time for people.

    Args:
        moment: An aware datetime.

    Returns:
        ``2026-11-23 18:00:00 UTC``.
    """
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _checked(environ: WSGIEnvironment) -> WSGIEnvironment:
    """Read a form before dramatiq-dashboard does, and drop a cookie that cannot be its own: it would print it."""
    environ = {**environ, "PATH_INFO": environ.get("PATH_INFO") or "/"}
    if environ["REQUEST_METHOD"] == "POST":
        try:
            length = int(environ.get("CONTENT_LENGTH") or 0)
        except ValueError:
            raise _BadRequest("The length is not a number.") from None
        if not 0 <= length <= MAX_FORM:
            raise _BadRequest("The form is too long.")
        body = environ["wsgi.input"].read(length)
        try:
            for name, value in parse_qsl(body):
                (name + value).decode()
        except ValueError:
            raise _BadRequest("The form is not text in UTF-8.") from None
        environ |= {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
    cookie = environ.get("HTTP_COOKIE")
    if cookie:
        token = lookup_csrf_token(type("Request", (), {"headers": {"cookie": cookie}}))
        if len(token) != _TOKEN_LENGTH or not set(token) <= set(_TOKEN):
            del environ["HTTP_COOKIE"]
    return environ


def _number(text: str | None) -> int:
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 9:
        raise _BadRequest("Wanted a whole number.")
    return int(text)


def _notice(params: dict[str, str]) -> str:
    said, count = params.get("said", ""), params.get("count", "1")
    if said not in _NOTICES or not count.isascii() or not count.isdigit():
        return ""
    number = int(count[:9])
    return _NOTICES[said].format(f"{number:,} message was" if number == 1 else f"{number:,} messages were")
