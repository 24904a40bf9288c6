"""What the doctor says of policies."""

from __future__ import annotations

import http.server
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from carpark.ops.doctor.findings import Level
from carpark.ops.doctor.policies import applied_to, check_policies, effects_on, merged
from carpark.rabbitmq.management import Policy
from carpark.rabbitmq.topology import CLASSIC, QUORUM, queue_arguments
from carpark.settings import Settings
from tests.unit.ops.test_doctor import foreign_server

DAY = 86_400_000


def policy(
    name: str = "p", pattern: str = "", *, priority: int = 0, to: str = "queues", operator: bool = False, **keys: Any
) -> Policy:
    definition = {key.replace("_", "-"): value for key, value in keys.items()}
    return Policy(name, pattern, to, priority, definition, operator)


def effects(name: str, kind: str, **keys: Any) -> list[tuple[Level, str]]:
    return list(effects_on(name, kind, queue_arguments(name, kind), policy(**keys).definition))


@pytest.mark.parametrize(
    ("name", "kind", "keys", "level", "words"),
    [
        ("vehicle_entry", CLASSIC, {"message_ttl": 1}, Level.PROBLEM, "what waits longer .* becomes a dead letter"),
        ("vehicle_entry.3", QUORUM, {"message_ttl": DAY}, Level.PROBLEM, "becomes a dead letter"),
        ("vehicle_exit.XQ", CLASSIC, {"message_ttl": DAY}, Level.PROBLEM, "gone after that, instead of 7 days"),
        ("vehicle_exit", CLASSIC, {"max_length": 9}, Level.PROBLEM, "9, overflow drop-head: .* the oldest messages"),
        ("carpark_work", CLASSIC, {"max_length_bytes": 9}, Level.PROBLEM, "so many bytes the oldest messages become"),
        ("vehicle_exit.XQ", CLASSIC, {"max_length": 9}, Level.PROBLEM, "the oldest dead letters are gone"),
        (
            *("vehicle_exit.XQ", CLASSIC, {"max_length": 9, "overflow": "reject-publish"}, Level.PROBLEM),
            "takes no dead letter",
        ),
        (
            *("vehicle_exit", CLASSIC, {"max_length": 9, "overflow": "reject-publish"}, Level.WARNING),
            "our cameras wait",
        ),
        (
            *("vehicle_exit", CLASSIC, {"max_length": 9, "overflow": "reject-publish-dlx"}, Level.PROBLEM),
            "what comes becomes a dead letter",
        ),
        ("vehicle_exit", QUORUM, {"max_length": 9, "overflow": "drop-head"}, Level.WARNING, "takes no more"),
        ("vehicle_entry", CLASSIC, {"expires": 1000}, Level.PROBLEM, "is deleted, with all that is in it"),
        ("vehicle_entry.XQ", QUORUM, {"expires": 1000}, Level.PROBLEM, "is deleted"),
        ("vehicle_entry", QUORUM, {"delivery_limit": 3}, Level.PROBLEM, "from killed workers, is a dead letter"),
        ("vehicle_entry.XQ", CLASSIC, {"dead_letter_exchange": ""}, Level.WARNING, "goes there"),
        ("vehicle_entry", CLASSIC, {"consumer_timeout": 60_000}, Level.WARNING, "is delivered again"),
        ("vehicle_entry", CLASSIC, {"federation_upstream": "x"}, Level.WARNING, "does not know"),
    ],
)
def test_each_key_is_said_with_what_it_does_to_a_queue_of_ours(
    name: str, kind: str, keys: dict[str, Any], level: Level, words: str
) -> None:
    ((found, text),) = effects(name, kind, **keys)
    assert found is level
    assert re.search(words, text), text


@pytest.mark.parametrize(
    ("name", "kind", "keys"),
    [
        ("vehicle_exit.DQ", CLASSIC, {"max_length": 1, "message_ttl": 1, "expires": 1}),
        ("vehicle_exit.XQ", CLASSIC, {"message_ttl": 7 * DAY}),
        ("vehicle_entry", CLASSIC, {"delivery_limit": 3}),
        ("vehicle_entry", QUORUM, {"delivery_limit": 100}),
        ("vehicle_entry", QUORUM, {"delivery_limit": -1}),
        ("vehicle_entry", CLASSIC, {"dead_letter_exchange": "other", "dead_letter_routing_key": "x"}),
        ("vehicle_entry", QUORUM, {"dead_letter_strategy": "at-most-once", "overflow": "drop-head"}),
        ("vehicle_entry", CLASSIC, {"ha_mode": "all", "queue_mode": "lazy", "queue_version": 2}),
        ("vehicle_entry", QUORUM, {"target_group_size": 3, "queue_leader_locator": "balanced"}),
    ],
)
def test_what_changes_nothing_for_messages_is_not_spoken_of(name: str, kind: str, keys: dict[str, Any]) -> None:
    assert effects(name, kind, **keys) == []


def test_of_several_the_highest_applies_and_an_operator_policy_beside_it() -> None:
    every = [
        policy("low", "vehicle", message_ttl=1),
        policy("high", "^vehicle_e.*y$", priority=3, max_length=7, overflow="reject-publish"),
        policy("exchanges", ".*", priority=9, to="exchanges", alternate_exchange="x"),
        policy("quorum", ".*", priority=9, to="quorum_queues", max_length=1),
        policy("operators", "e(?=ntry)", operator=True, max_length=5, expires=60_000),
    ]
    applied = applied_to("vehicle_entry", every, {"all", "queues", "classic_queues"})
    assert [each.name for each in applied] == ["high", "operators"]
    assert merged(applied) == {"max-length": 5, "overflow": "reject-publish", "expires": 60_000}
    assert [each.name for each in applied_to("vehicle_exit", every, {"all", "queues", "quorum_queues"})] == ["quorum"]


def test_a_pattern_that_only_rabbitmq_understands_counts_as_if_it_fitted() -> None:
    assert policy(pattern="(?<n>a)\\Q.").matches("vehicle_entry")
    assert not policy(pattern="^entry").matches("vehicle_entry")


def test_without_the_management_api_they_are_not_looked_at_and_that_is_not_ok(
    make_settings: Callable[..., Settings], free_port: int
) -> None:
    url = f"http://127.0.0.1:{free_port}"
    (finding,) = check_policies(make_settings(broker_url="amqp://guest:guest@127.0.0.1", management_url=url))
    assert (finding.check, finding.level) == ("policies", Level.WARNING)
    assert finding.found.startswith("not looked at: RabbitMQ's management API at")
    assert check_policies(make_settings()) == []


OVERVIEW = {"rabbitmq_version": "4.0.5"}


@pytest.mark.parametrize(
    "answers",
    [
        {"": []},
        {"": {}},
        {"overview": OVERVIEW, "": [{"name": "p"}]},
        {"overview": OVERVIEW, "": ["policy"]},
        {"overview": OVERVIEW, "policies": [], "operator-policies": [{"pattern": "."}], "": []},
        {"overview": OVERVIEW, "policies": [], "operator-policies": [], "": [{"durable": True}]},
    ],
)
def test_what_is_not_rabbitmqs_answer_is_not_looked_at_and_that_is_not_ok(
    make_settings: Callable[..., Settings], answers: Mapping[str, Any]
) -> None:
    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(answers.get(self.path.split("/")[2], answers[""])).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    with foreign_server(Answers) as port:
        url = f"http://127.0.0.1:{port}"
        (finding,) = check_policies(make_settings(broker_url="amqp://guest:guest@127.0.0.1", management_url=url))
    assert finding.level is Level.WARNING
    assert "what answers there is something else" in finding.found
