"""A WSGI application on a port: in a thread of another process, or as a service of its own."""

from __future__ import annotations

import contextlib
import gc
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from waitress.server import create_server

from carpark.web.ports import IDENTITY, in_url
from carpark.web.signals import on_signal

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

    from waitress.channel import HTTPChannel


class HttpServer:
    """An HTTP server on a port that is open already. `start` or `run` it, then `stop` it.

    Args:
        app: What answers.
        listener: The open port; it is this object's from now on.
        host: The address that the port is bound to.
        name: What its thread is called.
        options: Further options of waitress.

    Attributes:
        port: The port.
        url: Where it is.
    """

    drain_seconds = 8.0
    """How long requests in hand may take at the end: within the 10 s that container engines give after SIGTERM."""

    def __init__(self, app: WSGIApplication, listener: socket.socket, host: str, name: str, **options: Any) -> None:
        self._name = name
        self._thread: threading.Thread | None = None
        self._stopping = self._finished = False
        self.port: int = listener.getsockname()[1]
        self.url = f"http://{in_url(host)}:{self.port}"
        self._server: Any = create_server(  # type: ignore[no-untyped-call]
            app, sockets=[listener], asyncore_use_poll=True, ident=IDENTITY, **options
        )

    def start(self) -> Self:
        """Serve in a thread of its own until `stop`.

        Returns:
            Itself.
        """
        self._thread = threading.Thread(target=self.run, name=self._name, daemon=True)
        self._thread.start()
        return self

    def run(self) -> None:
        """Serve until `stop` or `ask_to_stop` is called; then finish the requests in hand."""
        server = self._server
        try:
            while not self._stopping:
                server.asyncore.loop(timeout=1, map=server._map, use_poll=True, count=1)
            self._drain()
        finally:
            self._finish()

    def run_until_signal(self, ready: Callable[[], None]) -> None:
        """Serve until SIGTERM or SIGINT, then finish the requests in hand. A second signal ends the process at once.

        Args:
            ready: Called when a signal would be heeded: the time to say where the server is.
        """
        gc.freeze()  # what is imported stays; to look through it again and again stops all requests for 20 ms each time
        with on_signal(self.ask_to_stop):
            try:
                ready()
                self.run()
            finally:
                self.stop()

    def ask_to_stop(self) -> None:
        """Say that it is time to end, and return at once. May be called by a signal's handler."""
        if not self._stopping:
            self._stopping = True
            with contextlib.suppress(OSError):  # it has ended by itself meanwhile
                self._server.pull_trigger()

    def stop(self) -> None:
        """Finish the requests in hand and close the port. May be called again."""
        self.ask_to_stop()
        if self._thread is None:
            self._finish()
        else:
            self._thread.join()

    def close_behind(self) -> None:
        """Let go of what the application worked with; called once, after the last answer."""

    def _drain(self) -> None:
        server = self._server
        server.accepting = False
        server.del_channel()
        server.socket.close()
        deadline = time.monotonic() + self.drain_seconds
        while time.monotonic() < deadline and any(_in_hand(one) for one in list(server.active_channels.values())):
            server.asyncore.loop(timeout=0.05, map=server._map, use_poll=True, count=1)

    def _finish(self) -> None:
        if self._finished:
            return
        self._stopping = self._finished = True  # from here on there is no trigger to pull
        self._server.task_dispatcher.shutdown()
        self._server.asyncore.close_all(self._server._map, ignore_all=True)
        self.close_behind()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _in_hand(channel: HTTPChannel) -> bool:
    return bool(channel.requests or channel.request or channel.total_outbufs_len)
