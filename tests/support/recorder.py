"""A sink's server for tests: takes summaries over HTTP, and fails when it is told to."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self


class Recorder:
    """Remembers the ids of the summaries that it took.

    Attributes:
        status: What it answers.
        taken: The ids that it took, in their order, repeats included.
        refused: How many requests it refused.
        posts: How many requests it answered.
    """

    def __init__(self) -> None:
        self.status = 201
        self.taken: list[str] = []
        self.refused = 0
        self.posts = 0
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                recorder.posts += 1
                if recorder.status < 300:
                    recorder.taken += [summary["id"] for summary in (body if isinstance(body, list) else [body])]
                else:
                    recorder.refused += 1
                self.send_response(recorder.status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *args: object) -> None:
                """Be quiet."""

        class Server(ThreadingHTTPServer):
            request_queue_size = 64  # the kit's sinks come at once

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def ids(self) -> set[str]:
        """The ids that it took."""
        return set(self.taken)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
