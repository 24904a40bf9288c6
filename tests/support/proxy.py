"""What stands between our processes and their servers, and spoils it: cut connections, late deliveries and answers."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Container
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_PUBLISH = b"\x00\x3c\x00\x28"
"""Class 60, method 40 of AMQP 0-9-1: basic.publish."""

_DELIVER = b"\x00\x3c\x00\x3c"
"""Class 60, method 60: basic.deliver. A frame's type, channel and size, seven bytes, stand before it."""

HELD_SECONDS = 3.0
"""How long the writer's answers are held back; longer than the sink waits for them."""


class TcpProxy:
    """Passes the connections to RabbitMQ on, until it is told to cut or to stall them.

    Args:
        url: RabbitMQ's.

    Attributes:
        url: The same by way of this proxy.
        cuts: How many connections it has cut in a publish.
    """

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._target = (address.hostname or "", address.port or 5672)
        self._listener = socket.create_server(("127.0.0.1", 0))
        login = address.netloc.rpartition("@")[0]
        self.url = address._replace(netloc=f"{login}@127.0.0.1:{self._listener.getsockname()[1]}").geturl()
        self._lock = threading.Lock()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._publishes: list[float] = []
        self._stalls: list[float] = []
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def connections(self) -> int:
        """How many connections go through it."""
        with self._lock:
            return len(self._pairs)

    def cut(self, ports: Container[int] | None = None) -> int:
        """Cut connections.

        Args:
            ports: Those to cut, by their ports as the server sees them; all if not given.

        Returns:
            How many there were.
        """
        with self._lock:
            pairs = {pair for pair in self._pairs if ports is None or pair[1].getsockname()[1] in ports}
            self._pairs -= pairs
        for pair in pairs:
            _close(pair)
        return len(pairs)

    def cut_in_publish(self, share: float) -> None:
        """Cut the connection that publishes next, in the middle of it.

        Args:
            share: How much of it is passed on; with all of it only the confirm is lost.
        """
        self._publishes.append(share)

    def stall_delivery(self, seconds: float) -> None:
        """Hold the next delivery back, and all that the server says after it.

        Args:
            seconds: How long.
        """
        self._stalls.append(seconds)

    def close(self) -> None:
        """Cut all, and listen no more."""
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(self._target, timeout=5)
                except OSError:
                    client.close()
                    continue
                server.settimeout(None)
                pair = (client, server)
                with self._lock:
                    self._pairs.add(pair)
                for source, sink in (pair, pair[::-1]):
                    threading.Thread(target=self._pump, args=(pair, source, sink), daemon=True).start()

    def _pump(self, pair: tuple[socket.socket, socket.socket], source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if source is pair[0] and _PUBLISH in data and (share := self._next(self._publishes)):
                    self._cut(pair, data, share)
                    break
                if source is pair[1] and _DELIVER in data and (seconds := self._next(self._stalls)):
                    before = data.index(_DELIVER) - 7
                    sink.sendall(data[:before])
                    data = data[before:]
                    time.sleep(seconds)
                sink.sendall(data)
        with self._lock:
            self._pairs.discard(pair)
        _close(pair)

    def _next(self, planned: list[float]) -> float | None:
        with self._lock:  # several connections may publish at this moment
            return planned.pop() if planned else None

    def _cut(self, pair: tuple[socket.socket, socket.socket], data: bytes, share: float) -> None:
        client, server = pair
        try:
            if share >= 1:
                # The confirm must not come through: the client hears nothing from here on.
                client.shutdown(socket.SHUT_WR)
            server.sendall(data[: int(len(data) * share)])
        except OSError:
            self._publishes.append(share)  # it was gone already: the next one
            raise
        self.cuts += 1


class WriterGateway:
    """Passes what is posted on to the writer, and answers as it is told.

    Args:
        url: The writer.

    Attributes:
        mode: ``well``; ``error`` (500, nothing is passed on); ``hang`` (nothing is passed on and nothing answered for
            `HELD_SECONDS`); ``late`` (passed on, and the answer held back so long); ``twice`` (passed on twice).
        spoiled: How many requests each mode but the first has had.
        statuses: How often the writer has answered what.
    """

    def __init__(self, url: str) -> None:
        self.mode = "well"
        self.spoiled: dict[str, int] = {}
        self.statuses: dict[int, int] = {}
        address = urlsplit(url)
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, answer = gateway._answer(self.path, dict(self.headers), body)
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)
                except OSError:
                    self.close_connection = True  # the client has given up waiting

            def log_message(self, *args: object) -> None:
                """Be quiet."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *args: object) -> None:
                """Be quiet: a client that is killed leaves its connection behind."""

        self._writer = (address.hostname or "", address.port or 0)
        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, path: str, headers: dict[str, Any], body: bytes) -> tuple[int, bytes]:
        mode = self.mode
        if mode != "well":
            self.spoiled[mode] = self.spoiled.get(mode, 0) + 1
        if mode == "error":
            return 500, b"{}"
        if mode == "hang":
            time.sleep(HELD_SECONDS)
            return 503, b"{}"
        if mode == "twice":
            self._pass_on(path, headers, body)
        answer = self._pass_on(path, headers, body)
        if mode == "late":
            time.sleep(HELD_SECONDS)
        return answer

    def _pass_on(self, path: str, headers: dict[str, Any], body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(*self._writer, timeout=10)
        try:
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            status, answer = response.status, response.read()
        except (OSError, http.client.HTTPException):
            return 502, b"{}"
        finally:
            connection.close()
        self.statuses[status] = self.statuses.get(status, 0) + 1
        return status, answer


def _close(pair: tuple[socket.socket, socket.socket]) -> None:
    for each in pair:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
