"""The writer as a server: in a thread of another process, or as a service of its own."""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from prometheus_client import CollectorRegistry, ProcessCollector
from waitress.channel import HTTPChannel
from waitress.server import create_server
from waitress.task import ErrorTask

from carpark.ports import IDENTITY, in_url, listen
from carpark.settings import Settings
from writer.app import make_app
from writer.csvfile import SummaryFile
from writer.inside import inside_of_redis

_PORT_SETTING = "CARPARK_WRITER_PORT"
_THREADS = 8
_CONNECTIONS = 1000
_READ_AND_REFUSED = 64 * 1024 * 1024  # up to here a too long body is read, so that its sender gets to see the answer
_DRAIN_SECONDS = 8.0  # within the 10 s that container engines give after SIGTERM
_BACKLOG = 256


class _JsonErrorTask(ErrorTask):
    """Answers what is not even an HTTP request, or far too long, as the application answers errors."""

    def execute(self) -> None:
        error = self.request.error
        body = json.dumps({"error": f"{error.reason}: {error.body}", "index": None, "field": None}).encode()
        self.status = f"{error.code} {error.reason}"
        self.response_headers.append(("Content-Type", "application/json"))
        self.set_close_on_finish()
        vars(self)["content_length"] = len(body)
        self.write(body)  # type: ignore[no-untyped-call]


class _Channel(HTTPChannel):
    error_task_class = _JsonErrorTask


class WriterServer:
    """The open file and the HTTP server before it. Making one opens both; then `start` or `run`, and `stop`.

    Args:
        settings: Of these, ``csv``, ``writer_token``, ``bind`` and ``writer_port`` are used.
        registry: Where the metrics go and what ``GET /metrics`` shows; a new one by default.
        inside: Says how many vehicles are inside, or None when that is not known.

    Raises:
        FileInUse: Another writer holds the file.
        PortTaken: The port is in use.
        InvalidSetting: The file or the address cannot be used.
        ServiceError: The disk is full or fails.
    """

    def __init__(
        self,
        settings: Settings,
        registry: CollectorRegistry | None = None,
        inside: Callable[[], int | None] | None = None,
    ) -> None:
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a short queue is what group commit lives on
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._finished = False
        listener = listen(settings.bind, settings.writer_port, _PORT_SETTING, _BACKLOG)
        try:
            self.summaries = SummaryFile(settings.csv)
        except BaseException:
            listener.close()
            raise
        self.port: int = listener.getsockname()[1]
        self.url = f"http://{in_url(settings.bind)}:{self.port}"
        self._server: Any = create_server(  # type: ignore[no-untyped-call]
            make_app(settings, self.summaries, registry, inside),
            sockets=[listener],
            threads=_THREADS,
            connection_limit=_CONNECTIONS,
            backlog=_BACKLOG,
            max_request_body_size=_READ_AND_REFUSED,
            asyncore_use_poll=True,
            ident=IDENTITY,
        )
        self._server.channel_class = _Channel

    def start(self) -> Self:
        """Serve in a thread of its own until `stop`.

        Returns:
            Itself.
        """
        self._thread = threading.Thread(target=self.run, name="writer", daemon=True)
        self._thread.start()
        return self

    def run(self) -> None:
        """Serve until `stop` or `ask_to_stop` is called; then finish the requests in hand and close the file."""
        server = self._server
        try:
            while not self._stopping.is_set():
                server.asyncore.loop(timeout=1, map=server._map, use_poll=True, count=1)
            self._drain()
        finally:
            self._finish()

    def ask_to_stop(self) -> None:
        """Say that it is time to end, and return at once. May be called by a signal's handler."""
        self._stopping.set()
        with contextlib.suppress(OSError):  # it has ended by itself meanwhile
            self._server.pull_trigger()

    def stop(self) -> None:
        """Finish the requests in hand, close the port and the file. May be called again."""
        self.ask_to_stop()
        if self._thread is None:
            self._finish()
        else:
            self._thread.join()

    def _drain(self) -> None:
        server = self._server
        server.accepting = False
        server.del_channel()
        server.socket.close()
        deadline = time.monotonic() + _DRAIN_SECONDS
        while time.monotonic() < deadline and any(_in_hand(one) for one in list(server.active_channels.values())):
            server.asyncore.loop(timeout=0.05, map=server._map, use_poll=True, count=1)

    def _finish(self) -> None:
        if self._finished:
            return
        self._finished = True
        self._server.task_dispatcher.shutdown()
        self._server.asyncore.close_all(self._server._map, ignore_all=True)
        self.summaries.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def serve(settings: Settings, say: Callable[[str], None]) -> None:
    """Be the service: serve until SIGTERM or SIGINT, then finish the requests in hand and close the file.

    Args:
        settings: See `WriterServer`; ``redis_url`` too, for the number of vehicles inside.
        say: Prints a line.

    Raises:
        ConfigurationError: The file or the port cannot be used.
        ServiceError: The disk is full or fails.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    server = WriterServer(settings, registry, inside_of_redis(settings.redis_url))

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # the second one ends it at once; the file survives that
        server.ask_to_stop()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        say(f"writer: {server.url} appends to {settings.csv}")
        server.run()
    finally:
        server.stop()
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_hand(channel: HTTPChannel) -> bool:
    return bool(channel.requests or channel.request or channel.total_outbufs_len)
