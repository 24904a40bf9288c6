"""What was typed is judged before any port or server is tried, and before what an earlier run left goes."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import RunHere
from tests.support.summaries import HEADER

MISSING = "no such file or directory"


@pytest.fixture
def taken() -> Iterator[str]:
    """A port that something listens on, and answers nobody."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield str(other.getsockname()[1])


def _becomes_dramatiq(*arguments: object) -> None:
    pytest.fail(f"nothing was wrong: {arguments}")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("run --plates file --plates-file missing", MISSING),
        ("run --sinks csv --sink-csv file/stays.csv", "file exists"),
        ("run --sinks http-csv,sqlite --sink-sqlite file/stays.sqlite", "file exists"),
        ("run --sinks webhook", "CARPARK_WEBHOOK_URL"),
        ("run --duration soon", "wanted a number of seconds"),
        ("worker --sinks jsonl --sink-jsonl file/stays.jsonl", "file exists"),
        ("worker --procesess 2", "unrecognized arguments: --procesess 2"),
        ("worker --processes two", "invalid int value: 'two'"),
        ("worker --threads", "expected one argument"),
        ("worker --path folder -Q vehicle_entry --log-file", "expected one argument"),
        ("generate entry --journal file/entries.jsonl", "file exists"),
        ("generate exit --plates file --plates-file missing", MISSING),
        ("generate exit --journal .", "directory"),
        ("queues --interval 0", "wanted a number of seconds"),
        ("dashboard --broker-url stub://", "RabbitMQ, amqp://"),
        ("dlq requeue one --all", "say which"),
        ("dlq purge", "say which"),
        ("dlq requeue one two --body file", "--body goes with one id"),
        ("verify --journal missing --redis-url {redis} --broker-url {broker}", MISSING),
        ("verify --journal file --since today --redis-url {redis}", "wanted an RFC 3339 date-time"),
        ("verify --journal file --each file/fates --redis-url {redis}", "not a directory"),
    ],
)
def test_a_typed_mistake_is_one_line_and_status_2_though_every_port_is_taken(
    run_here: RunHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: str, command: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.execve", _becomes_dramatiq)
    (tmp_path / "file").touch()
    (tmp_path / "stays.csv").write_bytes(HEADER)
    kept = tmp_path / "stays.csv.run" / "entry.jsonl"
    kept.parent.mkdir()
    kept.touch()
    urls = {"broker": f"amqp://127.0.0.1:{taken}", "redis": f"redis://127.0.0.1:{taken}/0"}
    environ = {
        **{f"CARPARK_{name}_PORT": taken for name in ("WRITER", "METRICS", "DASHBOARD")},
        **{f"CARPARK_{name.upper()}_URL": url for name, url in urls.items()},
        "CARPARK_CSV": "stays.csv",
    }
    ended = run_here(command.format(**urls).split(), environ)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert len(ended.stderr.splitlines()) == 1
    assert said in ended.stderr.replace("No such", "no such")
    assert kept.exists()
