"""The built-in sinks run the suite that outside packages run."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

from carpark.plugins import Plugins, Sink
from carpark.plugins.sinks.lines import JSON_LINES, StreamSink
from carpark.testing import SinkConformance, make_context
from tests.support.endpoint import Endpoint, Request

PLUGINS = Plugins()


def make(name: str, **environ: object) -> Sink:
    given = {f"CARPARK_{key.upper()}": str(value) for key, value in environ.items()}
    return PLUGINS.make_sinks(make_context({"CARPARK_SINKS": name, "CARPARK_SINK_TIMEOUT": "5", **given}))[name]


class FileConformance(SinkConformance):
    """Both sinks that write a file, which a folder in its place breaks."""

    @property
    def path(self) -> Path:
        return self.folder / "deep" / "stays"

    def break_sink(self) -> None:
        self.path.rename(self.folder / "aside")
        self.path.mkdir()

    def mend_sink(self) -> None:
        self.path.rmdir()
        (self.folder / "aside").rename(self.path)


class TestCsvSink(FileConformance):
    def make_sink(self) -> Sink:
        return make("csv", sink_csv=self.path)

    def stored_ids(self) -> list[str]:
        with self.path.open(encoding="utf-8", newline="") as file:
            return [row["id"] for row in csv.DictReader(file, strict=True)]


class TestJsonlSink(FileConformance):
    def make_sink(self) -> Sink:
        return make("jsonl", sink_jsonl=self.path)

    def stored_ids(self) -> list[str]:
        return [json.loads(line)["id"] for line in self.path.read_bytes().splitlines()]


class TestStdoutSink(SinkConformance):
    durable = False

    def setup_method(self) -> None:
        super().setup_method()
        self.stream = Breakable()

    def make_sink(self) -> Sink:
        return StreamSink(JSON_LINES, self.stream)

    def stored_ids(self) -> list[str]:
        return [json.loads(line)["id"] for line in self.stream.getvalue().split("\n")[:-1]]

    def break_sink(self) -> None:
        self.stream.broken = True

    def mend_sink(self) -> None:
        self.stream.broken = False


class Breakable(io.StringIO):
    broken = False

    def write(self, text: str) -> int:
        if self.broken:
            raise BrokenPipeError("nobody reads")
        return super().write(text)


class TestSqliteSink(SinkConformance):
    @property
    def path(self) -> Path:
        return self.folder / "stays.sqlite"

    def make_sink(self) -> Sink:
        return make("sqlite", sink_sqlite=self.path)

    def stored_ids(self) -> list[str]:
        with closing(sqlite3.connect(self.path)) as database:
            return [id_ for (id_,) in database.execute("SELECT id FROM stays")]

    def break_sink(self) -> None:
        self.execute("CREATE TRIGGER full BEFORE INSERT ON stays BEGIN SELECT RAISE(FAIL, 'disk full'); END")

    def mend_sink(self) -> None:
        self.execute("DROP TRIGGER full")

    def execute(self, statement: str) -> None:
        with closing(sqlite3.connect(self.path)) as database:
            database.execute(statement)


class PostingConformance(SinkConformance):
    """Both sinks that post, against a server that keeps what comes until a test breaks it."""

    def setup_method(self) -> None:
        super().setup_method()
        self.kept: dict[str, str] = {}
        self.lock = threading.Lock()
        self.endpoint = Endpoint(self.keep)

    def teardown_method(self) -> None:
        super().teardown_method()
        self.endpoint.close()

    def keep(self, request: Request) -> int:
        raise AssertionError("given by the subclasses")

    def refuse(self, request: Request) -> int:
        self.keep(request)  # the worst case: it has kept them, and says that it has not
        return 503

    def stored_ids(self) -> list[str]:
        return list(self.kept.values())

    def break_sink(self) -> None:
        self.endpoint.answer = self.refuse

    def mend_sink(self) -> None:
        self.endpoint.answer = self.keep


class TestHttpCsvSink(PostingConformance):
    def make_sink(self) -> Sink:
        return make("http-csv", writer_url=self.endpoint.url)

    def keep(self, request: Request) -> int:
        with self.lock:
            self.kept |= {summary["id"]: summary["id"] for summary in request.json}
        return 201


class TestWebhookSink(PostingConformance):
    """The server knows no ids, only the keys: a summary has one key, however it comes."""

    def make_sink(self) -> Sink:
        return make("webhook", webhook_url=self.endpoint.url)

    def keep(self, request: Request) -> int:
        with self.lock:
            self.kept.setdefault(request.headers["idempotency-key"], request.json["id"])
        return 204
