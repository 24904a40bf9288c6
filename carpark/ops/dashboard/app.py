"""dramatiq-dashboard's application over an interface of ours: more counts, bulk actions, questions, errors as pages."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from importlib import resources
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl

import jinja2
from dramatiq.common import dq_name, q_name, xq_name
from dramatiq_dashboard import DashboardApp
from dramatiq_dashboard.application import queue_for_tab, tab_from_q_name
from dramatiq_dashboard.csrf import csrf_protect
from dramatiq_dashboard.http import HTTP_405, Response, handler, redirect, templated
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.wsgi import get_input_stream

from carpark.errors import InvalidBody, QueueMismatch, ServiceError
from carpark.ops.dashboard.base import REACH, Interface, QueueUnknown, has_id, matches
from carpark.ops.dashboard.jobs import check_mended
from carpark.ops.dashboard.park import CarPark
from carpark.ops.dashboard.safety import MAX_FORM
from carpark.ops.health import span

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

log = logging.getLogger(__name__)

_FOREIGN_TOKEN = re.compile(r"__dd_csrf=(?![0-9a-f]{64}(;|\Z))")
_NOTICES = {
    "requeued": "{} sent to the queue again.",
    "deleted": "{} deleted.",
    "sent": "{} mended and sent to the queue.",
    "gone": "That message is not there any more.",
}
_STYLE = resources.files(__package__).joinpath("templates", "style.css")

Link = tuple[str, str]
Handler = Callable[..., Any]


def _page(template: str) -> Callable[[Handler], Handler]:
    """Make a method answer with a page; what it returns is what the page shows."""

    def decorate(method: Handler) -> Handler:
        return cast(Handler, handler(csrf_protect(templated(template)(method))))

    return decorate


def _action(method: Handler) -> Handler:
    """Make a method answer to the POST of a form of ours, and to nothing else."""

    def checked(self: Any, req: Any, **path: str) -> Any:
        if req.method != "POST":
            headers = [("Content-Type", "text/plain; charset=utf-8"), ("Allow", "POST")]
            return Response(HTTP_405, headers, "Expected a POST request.\n")
        return method(self, req, **path)

    return cast(Handler, handler(csrf_protect(checked)))


# Stands where dramatiq-dashboard wants a broker over Redis, until it has got an interface of ours.
_NO_REDIS = SimpleNamespace(client=SimpleNamespace(register_script=lambda script: None))


class Dashboard(DashboardApp):  # type: ignore[misc]
    """The dashboard as a WSGI application."""

    iface: Any
    _dispatch_table: list[tuple[re.Pattern[str], Handler]]

    def __init__(
        self, interface: Interface, park: Callable[[], CarPark], links: Sequence[Link] = (), prefix: str = ""
    ) -> None:
        super().__init__(_NO_REDIS, prefix)
        self.iface = interface
        self._park = park
        ours_first = ("carpark.ops.dashboard", "dramatiq_dashboard")
        self.templates.loader = jinja2.ChoiceLoader([jinja2.PackageLoader(each, "templates") for each in ours_first])
        self.templates.filters.update(
            timeago=timeago, clock="{:%Y-%m-%d %H:%M:%S} UTC".format, span=span, number="{:,}".format
        )
        self.templates.globals.update(links=links, broker=interface.title, reach=REACH)
        theirs, self._dispatch_table = self._dispatch_table[:-1], []  # the last one catches all
        for path, answer in {
            "/carpark": self.carpark,
            "/style.css": self.style,
            "/ask": self.ask,
            "/(?P<action>requeue|delete)-(?P<which>message|all)": self.move,
            "/send-message": self.send_message,
        }.items():
            self.add_route(path, answer)
        self._dispatch_table += theirs

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

    @_page("carpark.html")
    def carpark(self, req: Any) -> Any:
        """Show how the car park is."""
        return {"park": self._park()}

    def style(self, req: Any, start_response: StartResponse) -> Iterable[bytes]:
        """Give the style sheet."""
        start_response("200 OK", [("Content-Type", "text/css; charset=utf-8"), ("Cache-Control", "max-age=60")])
        return [_STYLE.read_bytes()]

    @_page("queue.html")
    def queue(self, req: Any, *, name: str, current_tab: str = "standard") -> Any:
        """List a page of messages."""
        queue_name, match = queue_for_tab(name, current_tab), req.params.get("match", "").strip()
        context = self._in_queue(queue_name, match=match, notice=_notice(req.params))
        cursor = _number(req.params.get("cursor", "0"))
        following, jobs = self.iface.get_jobs(queue_name, cursor, matches(match) if match else None)
        return {**context, "jobs": jobs, "cursor": following}

    @_page("job.html")
    def job(self, req: Any, *, name: str, current_tab: str, message_id: str) -> Any:
        """Show a message."""
        queue_name = queue_for_tab(name, current_tab)
        context = self._in_queue(queue_name)
        job = self.iface.get_job(queue_name, message_id)
        return {**context, "job": job, "text": job.text} if job else self._back(queue_name, "gone")

    @_page("ask.html")
    def ask(self, req: Any) -> Any:
        """Ask before something that cannot be taken back."""
        action, match = req.params.get("do", ""), req.params.get("match", "").strip()
        queue_name = self._movable(req.params)
        context = self._in_queue(queue_name, action=action, match=match)
        if action == "delete-message":
            job = self.iface.get_job(queue_name, req.params.get("id", ""))
            return {**context, "job": job, "count": 1} if job else self._back(queue_name, "gone")
        if action not in ("delete-all", "requeue-all"):
            raise _BadRequest("There is no such action.")
        _, jobs = self.iface.get_jobs(queue_name, 0, matches(match) if match else None)
        return {**context, "count": jobs.total}

    @_action
    def move(self, req: Any, *, action: str, which: str) -> Any:
        """Requeue or delete one message, or all of a queue, or those that match."""
        form = req.post_data
        queue_name, match = self._movable(form), form.get("match", "")
        if which == "message":
            wanted, limit = has_id(form.get("id", "")), 1
        else:
            wanted, limit = matches(match), _number(form.get("count"))
        count = {"requeue": self.iface.requeue, "delete": self.iface.delete}[action](queue_name, wanted, limit)
        return self._back(queue_name, f"{action}d" if count else "gone", count, match)

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
            context = self._in_queue(queue_name, job=job, text=text, error=str(error))
            return "422 Unprocessable Content", self.templates.get_template("job.html").render(request=req, **context)
        sent = self.iface.requeue(queue_name, has_id(message_id), 1, body)
        return self._back(queue_name, "sent" if sent else "gone")

    def _in_queue(self, queue_name: str, **shown: object) -> dict[str, Any]:
        """Say what every page about a queue or a companion shows."""
        queue, tab = self.iface.get_queue(q_name(queue_name)), tab_from_q_name(queue_name)
        return {"queue": queue, "current_tab": tab, "queue_for_tab": queue_name, **shown}

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
    """Say how long ago something was, or in how long it will be."""
    seconds = (datetime.now(UTC) - moment).total_seconds()
    text = span(abs(seconds))
    return f"in {text}" if seconds < 0 else f"{text} ago"


def _checked(environ: WSGIEnvironment) -> WSGIEnvironment:
    """Read a form before dramatiq-dashboard does, and drop a cookie that cannot be its own: it would print it."""
    environ = {**environ, "PATH_INFO": environ.get("PATH_INFO") or "/"}
    if environ["REQUEST_METHOD"] == "POST":
        try:
            body = get_input_stream(environ, max_content_length=MAX_FORM).read()
            for name, value in parse_qsl(body):
                (name + value).decode()
        except RequestEntityTooLarge:
            raise _BadRequest("The form is too long.") from None
        except ValueError:
            raise _BadRequest("The form is not text in UTF-8.") from None
        environ |= {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
    if _FOREIGN_TOKEN.search(environ.get("HTTP_COOKIE", "")):
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
