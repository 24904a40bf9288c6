"""A URL that its client cannot use ends every command with a line for each, before anything is connected."""

from __future__ import annotations

import pytest

from tests.support.processes import Processes

BROKER = "amqp://me:hidden@localhost/%2F?connection_timeout=30000&heartbeat=hidden"
REDIS = "redis://:hidden@localhost/0?ssl_ca_certs=/hidden"
SAID = [
    "CARPARK_BROKER_URL='amqp://me:***@localhost/%2F?***': wanted no option connection_timeout; there is",
    "CARPARK_REDIS_URL='redis://:***@localhost/0?***': wanted no option ssl_ca_certs, which is one of rediss://",
]
COMMANDS = [
    ("carpark", "queues"),
    ("carpark", "queues", "--migrate"),
    ("carpark", "worker"),
    ("dramatiq", "carpark.actors", "--processes", "1"),
    ("carpark", "generate", "entry"),
    ("carpark", "generate", "exit"),
    ("python", "-m", "generators", "entry"),
    ("carpark", "writer"),
    ("carpark", "dashboard"),
    ("carpark", "run", "--events", "1"),
    ("carpark", "dlq", "list"),
    ("carpark", "dlq", "retry", "http-csv"),
    ("carpark", "dlq", "give-up", "http-csv"),
    ("carpark", "forget", "B-AB 1"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.slow
def test_every_command_says_it_in_a_line_each(processes: Processes, command: tuple[str, ...]) -> None:
    process = processes.start(command, env={"CARPARK_BROKER_URL": BROKER, "CARPARK_REDIS_URL": REDIS})
    assert process.wait() == 2
    ours = [line.partition(": ")[2] for line in process.output.splitlines() if "CARPARK_" in line]
    assert len(ours) == len(SAID)
    assert [line.startswith(said) for line, said in zip(ours, SAID, strict=True)] == [True, True], process.output
    assert "hidden" not in process.output
    assert "Traceback" not in process.output
    assert len(process.output.splitlines()) < 6  # Dramatiq has some of its own


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--redis", REDIS), SAID[1]),
        (("--broker", BROKER), SAID[0]),
        (
            ("--redis", "redis://:hid/den@localhost"),
            "CARPARK_REDIS_URL='redis://:***@localhost': wanted user and password",
        ),
    ],
)
def test_the_audit_says_it_too(processes: Processes, option: tuple[str, str], said: str) -> None:
    process = processes.start(["carpark", "verify", "--journal", __file__, *option])
    assert process.wait() == 2
    assert process.output.startswith(f"carpark: {said}")
    assert process.output.count("\n") == 1
    assert "hid" not in process.output


def test_the_doctor_says_it_and_checks_the_rest(processes: Processes) -> None:
    process = processes.start(["carpark", "doctor"], env={"CARPARK_BROKER_URL": BROKER, "CARPARK_REDIS_URL": REDIS})
    assert process.wait() == 2
    for said in SAID:
        assert f"problem  settings: {said.replace(': wanted', '; wanted')}" in process.output
    assert "not checked" in process.output
    assert "hidden" not in process.output
