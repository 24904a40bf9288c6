"""A WSGI application on a port: in a thread of another process, or as a service of its own.

waitress serves it. Here is what waitress has no setting for, against clients that are slow, on purpose or not:
deadlines for a request as a whole, bodies that are not read, room for the next client however many hold connections.
"""
# mypy: allow-untyped-calls

from __future__ import annotations

import contextlib
import gc
import logging
import math
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

import click
from waitress.buffers import ReadOnlyFileBasedBuffer
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import create_server
from waitress.task import ThreadedTaskDispatcher
from waitress.utilities import BadRequest

from carpark.web.ports import IDENTITY, in_url
from carpark.web.signals import on_signal

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

logger = logging.getLogger(__name__)

PROBES = {"/healthz", "/metrics"}
"""What is asked whether a service is well. A thread of its own answers, so that it waits for no other request."""

_LONGEST_HEAD = 16 * 1024
_LONGEST_FRAMING = 4 * 1024  # of a chunked body: the line before a chunk, or what follows the last one
_SMALL_BODY = 16 * 1024
_IN_MEMORY = 64 * 1024  # a longer body is in a file, so that memory does not go to pieces over many of them
_SEND_BUFFER = 64 * 1024  # so that what is taken of an answer is seen, and a client that takes nothing holds little
_LOOK_SECONDS = 1.0
_SAY_SECONDS = 60.0
_GRACE_SECONDS = 0.1
_MORE_CONNECTIONS = 64  # are accepted while others are being closed
_OTHER_FILES = 192


@dataclass(frozen=True)
class Limits:
    """What the clients of a server may take of it."""

    head: float = 10.0
    request: float = 30.0
    answer: float = 30.0
    idle: float = 120.0
    body: int = 0
    held: int = 16 * 1024 * 1024
    connections: int = 100


class _Request(HTTPRequestParser):
    """Reads a request.

    A body that is too long, or that the application does not want when it sees the head, is not read: the application
    answers what the head says, and the connection is closed.
    """

    error: Any
    is_body_left = False

    def __init__(self, adj: Any, server: Any) -> None:
        super().__init__(adj)
        self._server = server

    def received(self, data: bytes) -> int:
        in_head = self.body_rcv is None
        try:
            consumed: int = super().received(data)
        except ValueError:  # of Python, which reads no length of thousands of digits and no address that begins [
            self.error, self.completed, self.headers_finished = BadRequest("Head is invalid"), True, True
            return len(data)
        body = self.body_rcv
        if in_head and self.chunked and "CONTENT_LENGTH" in self.headers:  # two programs may see two requests in it
            self.error, self.completed = BadRequest("Content-Length beside Transfer-Encoding is invalid"), True
        if self.error:
            self.expect_continue = False
        elif body is not None:
            size = max(self.content_length, len(body) + getattr(body, "chunk_remainder", 0))
            if size > self._server.limits.body or (in_head and not self._server.wants_body(self.command, self.headers)):
                self._leave_body(size)
                return len(data)
            if self.chunked and max(len(body.control_line), len(body.trailer)) > _LONGEST_FRAMING:
                self.error, self.completed = BadRequest("Chunk is invalid"), True
        return consumed

    def _leave_body(self, size: int) -> None:
        self.close()
        self.body_rcv, self.expect_continue = None, False
        self.headers |= {"CONTENT_LENGTH": str(size), "CONNECTION": "close"}
        self.is_body_left = self.completed = True


class Channel(HTTPChannel):
    """A connection. Knows since when it waits for its client, and how much it holds for it."""

    parser_class: Any
    socket: Any

    def __init__(self, server: Any, sock: socket.socket, addr: Any, adj: Any, map: Any = None) -> None:  # noqa: A002
        self.parser_class = partial(_Request, server=server)
        self._began: float | None = time.monotonic()  # the request that comes, or that has to come; None: may come
        self._moved = self._began
        self._lingers = False
        super().__init__(server, sock, addr, adj, map)
        if len(server.active_channels) > server.limits.connections:
            server.is_crowded = True

    def waits(self) -> tuple[float, float]:
        """Since when it waits for its client, and for how many seconds it may: for ever while it is we who work."""
        limits, request = self.server.limits, self.request
        if self.total_outbufs_len:
            return self._moved, limits.answer
        if self.requests:
            return self._moved, math.inf
        if self._began is None:
            return self._moved, limits.idle
        return self._began, limits.request if request is not None and request.headers_finished else limits.head

    def held(self) -> int:
        """How many bytes of the client's bodies, and of answers to it, are held. A file that is sent is not."""
        requests = [*self.requests, *([self.request] if self.request else [])]
        bodies = sum(len(request.body_rcv) for request in requests if request.body_rcv is not None)
        return bodies + sum(len(each) for each in [*self.outbufs] if not isinstance(each, ReadOnlyFileBasedBuffer))

    def abort(self, status: str, error: str) -> None:
        """Close the connection now. A client that is still sending a request is told why, if it happens to look."""
        with contextlib.suppress(OSError):
            if self.total_outbufs_len:  # what the client does not take would stay with the system
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif self.request is not None:
                body = f'{{"error": "{error}", "index": null, "field": null}}'
                head = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close"
                self.socket.send(f"HTTP/1.1 {status}\r\n{head}\r\n\r\n{body}".encode())
        self._lingers = False
        self.handle_close()

    def received(self, data: bytes) -> bool:
        """Take what the client sent."""
        if self._began is None:
            self._began = time.monotonic()
        taken: bool = super().received(data)
        if self.request is not None and self.request.body_bytes_received > _SMALL_BODY:
            self.server.is_crowded = True
        return taken

    def service(self) -> None:
        """Answer a request, and no other that was sent before its answer was read: answers would heap up."""
        request = self.requests[0]
        if is_early := len(self.requests) > 1:
            with self.requests_lock:  # not before that: whoever reads still has it, and each answer would wait
                del self.requests[1:]
            request.headers["CONNECTION"] = "close"
        self._lingers, self._began = is_early or request.is_body_left or request.error is not None, None
        super().service()
        if self.total_outbufs_len:
            self.server.is_crowded = True

    def write_soon(self, data: Any) -> int:
        """Hold a part of an answer until it is sent."""
        if not self.total_outbufs_len:
            self._moved = time.monotonic()
        held: int = super().write_soon(data)
        return held

    def send(self, data: bytes, do_close: bool = True) -> int:
        """Send what goes at once."""
        sent: int = super().send(data, do_close)
        if sent:
            self._moved = time.monotonic()
        return sent

    def handle_close(self) -> None:
        """Close the connection; what the client is still sending is waited for, so that it gets to see our answer.

        The system would answer its next bytes with a reset, at which it would throw the answer away.
        """
        if self._lingers and self.will_close and not self.total_outbufs_len:
            self._lingers = self.will_close = False
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_WR)
                self._began = time.monotonic()
                # As attributes, because methods would cost each look at each connection.
                vars(self).update(readable=lambda: True, handle_read=partial(self.recv, 1 << 16))
                return
        if self.request is not None:
            self.request.close()
        super().handle_close()


class HttpServer:
    """An HTTP server on a port that is open already. `start` or `run` it, then `stop` it."""

    limits: ClassVar[Limits] = Limits()
    """What clients may take."""

    channel_class: ClassVar[type[Channel]] = Channel
    """What a connection is."""

    drain_seconds = 8.0
    """How long requests in hand may take at the end: within the 10 s that container engines give after SIGTERM."""

    def __init__(
        self,
        app: WSGIApplication,
        listener: socket.socket,
        host: str,
        name: str,
        wants_body: Callable[[str, Mapping[str, str]], bool] = lambda method, headers: True,
        **options: Any,
    ) -> None:
        # A line for each request that waits for a thread: which is usual, and what the writer's group commit lives on.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        self._name = name
        self._thread: threading.Thread | None = None
        self._stopping = self._finished = False
        self._next_look = self._last_said = -math.inf
        self._turned_away = 0
        self.port: int = listener.getsockname()[1]
        self.url = f"http://{in_url(host)}:{self.port}"
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = max(1, (files - _OTHER_FILES) // 2) if files != resource.RLIM_INFINITY else self.limits.connections
        limits = replace(self.limits, connections=min(self.limits.connections, most))
        self._server: Any = create_server(
            app,
            sockets=[listener],
            asyncore_use_poll=True,
            ident=IDENTITY,
            connection_limit=limits.connections + _MORE_CONNECTIONS,
            cleanup_interval=10**9,  # that is done here
            max_request_header_size=_LONGEST_HEAD,
            max_request_body_size=10**5000,  # so is this; Python reads no number of so many digits
            inbuf_overflow=_IN_MEMORY,
            **options,
        )
        self._probes = ThreadedTaskDispatcher()
        self._probes.set_thread_count(1)
        vars(self._server).update(
            channel_class=self.channel_class,
            limits=limits,
            wants_body=wants_body,
            is_crowded=False,
            add_task=self._hand_out,
        )

    def start(self) -> Self:
        """Serve in a thread of its own until `stop`."""
        self._thread = threading.Thread(target=self.run, name=self._name, daemon=True)
        self._thread.start()
        return self

    def run(self) -> None:
        """Serve until `stop` or `ask_to_stop` is called; then finish the requests in hand."""
        server = self._server
        try:
            while not self._stopping:
                server.asyncore.loop(timeout=_LOOK_SECONDS, map=server._map, use_poll=True, count=1)
                self._turn_away(time.monotonic())
            self._drain()
        finally:
            self._finish()

    def run_until_signal(self, line: str) -> None:
        """Serve until SIGTERM or SIGINT, then finish the requests in hand. A second signal ends the process at once."""
        gc.freeze()  # what is imported stays; to look through it again and again stops all requests for 20 ms each time
        with on_signal(self.ask_to_stop):
            try:
                with contextlib.suppress(BrokenPipeError):  # nobody reads it: no reason not to serve
                    click.echo(line)
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

    def _hand_out(self, channel: Channel) -> None:
        is_probe = getattr(channel.requests[0], "path", "") in PROBES
        (self._probes if is_probe else self._server.task_dispatcher).add_task(channel)

    def _turn_away(self, now: float) -> None:
        """Close what waits for its client for too long and, of too much, what waits for the longest time."""
        server = self._server
        if not server.is_crowded and now < self._next_look:
            return
        server.is_crowded, self._next_look = False, now + _LOOK_SECONDS
        limits, left = server.limits, []
        for channel in list(server.active_channels.values()):
            since, patience = channel.waits()
            if now - since > patience:
                channel.abort("408 Request Timeout", f"no whole request within {patience:g} s")
                self._turned_away += patience != limits.idle
            else:
                left.append((since, patience, channel.held(), channel))
        surplus, held = len(left) - limits.connections, sum(size for _, _, size, _ in left)
        for since, patience, size, channel in sorted(left, key=itemgetter(0)):
            if patience == math.inf:
                continue
            if (held > limits.held and size) or (surplus > 0 and now - since > _GRACE_SECONDS):
                channel.abort("503 Service Unavailable", "too many clients at once; send it again later")
                self._turned_away, surplus, held = self._turned_away + 1, surplus - 1, held - size
        if self._turned_away and now - self._last_said > _SAY_SECONDS:
            logger.warning("%s: closed %d connections of clients that were slow", self._name, self._turned_away)
            self._turned_away, self._last_said = 0, now

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
        for dispatcher in (self._probes, self._server.task_dispatcher):
            dispatcher.shutdown()
        for channel in list(self._server.active_channels.values()):
            channel.abort("503 Service Unavailable", "the server ends")
        self._server.asyncore.close_all(self._server._map, ignore_all=True)
        self.close_behind()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _in_hand(channel: Channel) -> bool:
    return bool(channel.requests or channel.request or channel.total_outbufs_len)
