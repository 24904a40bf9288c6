"""`carpark dlq` on a real RabbitMQ: pages through any number, and moves what it is told to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pika.adapters.blocking_connection import BlockingChannel

from carpark.cli import carpark
from carpark.errors import CarparkError, InvalidBody, InvalidSetting
from tests.support.garbage import bare
from tests.support.helpers import eventually
from tests.support.mailbox import bodies, count, dead_letters, drain, fill

MANY = 10_050


Dlq = Callable[..., Result]


@pytest.fixture
def dlq(broker_url: str) -> Dlq:
    """Run `carpark dlq` in this process."""

    def run(*arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(
            carpark, ["dlq", *arguments], input=stdin, env={"CARPARK_BROKER_URL": broker_url}, standalone_mode=False
        )

    return run


def listed(dlq: Dlq, *arguments: str) -> list[dict[str, Any]]:
    result = dlq("list", "--json", *arguments)
    assert result.exception is None
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def test_it_pages_through_ten_thousand_and_leaves_them_as_they_are(dlq: Dlq, channel: BlockingChannel) -> None:
    fill(channel, "vehicle_exit.XQ", dead_letters(MANY))
    page = listed(dlq, "--offset", "10000", "--limit", "30")
    assert len(page) == 30
    everything = listed(dlq, "--limit", "20000")
    assert len({each["id"] for each in everything}) == MANY
    assert everything[10_000:10_030] == page
    shown = json.loads(dlq("show", page[7]["id"], "--json").stdout)
    assert (shown["body"], shown["headers"]["n"], shown["error"]) == ("garbage 10007", 10_007, "not wanted")
    assert dlq("purge", page[7]["id"], "--yes").stdout == "purged 1 dead letter\n"
    eventually(lambda: count(channel, "vehicle_exit.XQ") == MANY - 1, 30, "what was looked at is back")
    left = [int(body.split()[1]) for body in bodies(channel, "vehicle_exit.XQ")]
    assert left == [number for number in range(MANY) if number != 10_007]


def test_a_list_for_people_says_when_what_and_why(dlq: Dlq, channel: BlockingChannel) -> None:
    assert dlq("list").stderr == "no dead letters\n"
    fill(channel, "vehicle_entry.XQ", [(bare(), dead_letters(1, "id: is missing")[0][1])] * 3)
    result = dlq("list", "--limit", "2")
    head, first, _ = result.stdout.splitlines()
    assert head.split() == ["id", "queue", "died", "(UTC)", "actor", "reason"]
    assert first.split()[1] == "vehicle_entry.XQ"
    assert first.endswith("vehicle_entry  id: is missing")
    assert result.stderr == "1 to 2; there are more: --offset 2\n"
    assert dlq("list", "--queue", "vehicle_exit").stderr == "no dead letters there\n"
    shown = dlq("show", first.split()[0]).stdout
    assert "error:         id: is missing\n" in shown
    assert '  "vehicle_plate": "G1",\n' in shown


def test_what_matches_is_requeued_or_purged_and_nothing_else(dlq: Dlq, channel: BlockingChannel) -> None:
    for queue in ("vehicle_entry.XQ", "vehicle_exit.XQ"):
        fill(channel, queue, dead_letters(3, "sink 'csv': full") + dead_letters(2, "id: is missing"))
    assert len(listed(dlq, "--match", "CSV")) == 6
    assert json.loads(dlq("requeue", "--all", "--match", "csv", "--queue", "vehicle_exit", "--json").stdout) == {
        "requeued": 3
    }
    assert [(body, p.headers) for body, p in drain(channel, "vehicle_exit")] == [
        (b"garbage %d" % number, {"n": number}) for number in range(3)
    ]
    assert json.loads(dlq("purge", "--all", "--yes", "--match", "missing", "--json").stdout) == {"purged": 4}
    assert [each["error"] for each in listed(dlq)] == ["sink 'csv': full"] * 3
    ids = [each["id"] for each in listed(dlq)]
    result = dlq("requeue", ids[2], ids[0], "0000000000000000")
    assert result.return_value == 1
    assert result.stdout == "requeued 2 dead letters\n"
    assert "there is no dead letter 0000000000000000" in result.stderr
    assert bodies(channel, "vehicle_entry") == [b"garbage 0", b"garbage 2"]


def test_a_mended_body_goes_in_place_of_the_dead_one(dlq: Dlq, channel: BlockingChannel, tmp_path: Path) -> None:
    fill(channel, "vehicle_entry.XQ", dead_letters(2))
    message_id = listed(dlq)[0]["id"]
    wrong = tmp_path / "wrong.json"
    wrong.write_bytes(bare(id=7))
    refused = dlq("requeue", message_id, "--body", str(wrong))
    assert isinstance(refused.exception, InvalidBody)
    assert count(channel, "vehicle_entry.XQ") == 2
    assert dlq("requeue", message_id, "--body", "-", stdin=bare().decode()).return_value == 0
    assert bodies(channel, "vehicle_entry") == [bare()]
    assert bodies(channel, "vehicle_entry.XQ") == [b"garbage 1"]


def test_purge_asks_and_takes_no_for_an_answer(channel: BlockingChannel, broker_url: str) -> None:
    fill(channel, "vehicle_entry.XQ", dead_letters(3))
    command = [sys.executable, "-m", "carpark", "dlq", "purge", "--all"]
    environ = {**os.environ, "CARPARK_BROKER_URL": broker_url}
    unasked = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environ)
    assert unasked.returncode == 2
    assert "--yes is needed where nobody can be asked" in unasked.stderr
    for answer, left in (("n", 3), ("y", 0)):
        # A terminal of its own, so that somebody can be asked; what is typed waits until it is read.
        script = (
            "import os, pty, sys\n"
            "pid, terminal = pty.fork()\n"
            "if not pid: os.execv(sys.argv[2], sys.argv[2:])\n"
            "seen = b''\n"
            "while b'[y/N]' not in seen: seen += os.read(terminal, 1000)\n"
            "os.write(terminal, sys.argv[1].encode() + b'\\n')\n"
            "try:\n"
            "    while chunk := os.read(terminal, 1000): seen += chunk\n"
            "except OSError: pass\n"
            "print(seen.decode()); os.waitpid(pid, 0)\n"
        )
        asked = subprocess.run(
            [sys.executable, "-c", script, answer, *command], capture_output=True, text=True, env=environ
        )
        assert "Delete all dead letters for good? [y/N]" in asked.stdout
        assert count(channel, "vehicle_entry.XQ") == left


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["requeue"], "say which"),
        (["requeue", "--all", "abc"], "say which"),
        (["purge"], "say which"),
        (["requeue", "--all", "--body", "-"], "--body goes with one id"),
        (["list", "--queue", "other"], "other"),
        (["list", "--limit", "0"], "--limit"),
    ],
)
def test_a_wrong_command_says_what_was_wanted(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(carpark, ["dlq", *arguments], input="")
    assert result.exit_code == 2
    assert said in result.output


def test_servers_that_are_not_there_are_one_line(free_port: int) -> None:
    def run(url: str) -> BaseException | None:
        return CliRunner().invoke(carpark, ["dlq", "list", "--broker-url", url], standalone_mode=False).exception

    assert isinstance(run("stub://"), InvalidSetting)
    error = run(f"amqp://127.0.0.1:{free_port}")
    assert isinstance(error, CarparkError)
    assert "connection refused; start RabbitMQ" in str(error)
