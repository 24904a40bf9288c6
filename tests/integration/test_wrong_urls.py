"""A URL that its client cannot use ends every command with a line for each, before anything is connected."""

from __future__ import annotations

import pytest

from tests.support.processes import Processes, RunHere

BROKER = "amqp://me:hidden@localhost/%2F?connection_timeout=30000&heartbeat=hidden"
REDIS = "redis://:hidden@localhost/0?ssl_ca_certs=/hidden"
SAID = [
    "CARPARK_BROKER_URL='amqp://me:***@localhost/%2F?***': wanted no option connection_timeout; there is",
    "CARPARK_REDIS_URL='redis://:***@localhost/0?***': wanted no option ssl_ca_certs, which is one of rediss://",
]
ENVIRON = {"CARPARK_BROKER_URL": BROKER, "CARPARK_REDIS_URL": REDIS}
COMMANDS = [
    ("queues",),
    ("queues", "--migrate"),
    ("worker",),
    ("generate", "entry"),
    ("generate", "exit"),
    ("writer",),
    ("dashboard",),
    ("run", "--events", "1"),
    ("dlq", "list"),
    ("dlq", "retry", "http-csv"),
    ("dlq", "give-up", "http-csv"),
    ("forget", "B-AB 1"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_says_it_in_a_line_each(run_here: RunHere, command: tuple[str, ...]) -> None:
    ended = run_here(command, ENVIRON)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert _ours(ended.stderr) == SAID
    assert len(ended.stderr.splitlines()) == len(SAID)
    assert "hidden" not in ended.stderr


@pytest.mark.parametrize(
    "program", [("dramatiq", "carpark.actors", "--processes", "1"), ("python", "-m", "generators", "entry")], ids=str
)
@pytest.mark.slow
def test_every_program_says_it_in_a_line_each(processes: Processes, program: tuple[str, ...]) -> None:
    process = processes.start(program, env=ENVIRON)
    assert process.wait() == 2
    assert _ours(process.output) == SAID
    assert "hidden" not in process.output
    assert "Traceback" not in process.output
    assert len(process.output.splitlines()) < 6  # Dramatiq has some of its own


def _ours(output: str) -> list[str]:
    """Cut what is said of a URL down to as much as is compared."""
    lines = [line.partition(": ")[2] for line in output.splitlines() if "CARPARK_" in line]
    return [line[: len(said)] for line, said in zip(lines, SAID, strict=True)]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--redis-url", REDIS), SAID[1]),
        (("--broker-url", BROKER), SAID[0]),
        (
            ("--redis-url", "redis://:hid/den@localhost"),
            "CARPARK_REDIS_URL='redis://:***@localhost': wanted user and password",
        ),
    ],
)
def test_the_audit_says_it_too(run_here: RunHere, option: tuple[str, str], said: str) -> None:
    ended = run_here(["verify", "--journal", __file__, *option])
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"carpark: {said}")
    assert ended.stderr.count("\n") == 1
    assert "hid" not in ended.stderr


def test_the_doctor_says_it_and_checks_the_rest(run_here: RunHere) -> None:
    ended = run_here(["doctor"], ENVIRON)
    assert (ended.returncode, ended.stderr) == (2, "")
    for said in SAID:
        assert f"problem  settings: {said.replace(': wanted', '; wanted')}" in ended.stdout
    assert "not checked" in ended.stdout
    assert "hidden" not in ended.stdout
