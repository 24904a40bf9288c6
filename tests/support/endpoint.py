"""An HTTP server that a sink posts to, and that a test can make answer anything."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Request:
    """What was posted.

    Args:
        path: The path of the URL.
        headers: The headers, names in lower case.
        body: The bytes.
        json: The body, decoded.
    """

    path: str
    headers: dict[str, str]
    body: bytes
    json: Any


class Endpoint:
    """Takes POSTs on a free port.

    Args:
        answer: From a request to the status of its answer, or the status and the answer's text.
    """

    def __init__(self, answer: Callable[[Request], int | tuple[int, str]]) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.headers: dict[str, str] = {}
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 10

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                request = Request(
                    self.path, {name.lower(): text for name, text in self.headers.items()}, body, json.loads(body)
                )
                endpoint.requests.append(request)
                answer = endpoint.answer(request)
                status, text = (answer, "") if isinstance(answer, int) else answer
                data = text.encode()
                try:
                    self.send_response(status)
                    for name, value in endpoint.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    self.close_connection = True  # the client has given up waiting

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
