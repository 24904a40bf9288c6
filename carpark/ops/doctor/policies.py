"""The doctor's look at RabbitMQ's policies: what those that apply to our queues do to events and dead letters."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dramatiq.brokers.rabbitmq import DEAD_MESSAGE_TTL
from dramatiq.common import dq_name, xq_name

from carpark.errors import BrokerUnavailable
from carpark.ops.doctor.findings import Finding, Level, ok, split_error, warning
from carpark.rabbitmq.management import ManagementApi, Policy
from carpark.rabbitmq.topology import (
    DELIVERY_LIMIT,
    EXCHANGE,
    QUORUM,
    TYPE,
    all_queues,
    queue_arguments,
    with_companions,
)
from carpark.settings import Settings

TIMEOUT = 1.9
"""Seconds that one of the two answers may take."""

_CHECK = "policies"

_HARMLESS = ("ha-", "queue-mode", "queue-version", "queue-master-locator", "queue-leader-locator", "max-in-memory-")
"""Keys, or their beginnings, that say where and how messages are kept, and not whether."""

_SIZES = {"target-group-size", "initial-cluster-size"}
_WITH_ANOTHER = {"overflow", "dead-letter-routing-key", "dead-letter-strategy"}
"""Keys that mean something beside another one only."""

Effect = tuple[Level, str]


def check_policies(settings: Settings) -> list[Finding]:
    """Say what the policies that apply to our queues would do."""
    if not settings.management_url:
        return []
    with contextlib.closing(ManagementApi.of(settings, TIMEOUT)) as management:
        try:
            management.version()  # raises where something else answers, whose empty lists would be taken for none
            policies, queues = management.policies(), management.queues()
        except BrokerUnavailable as error:
            found, advice = split_error(error)
            return [warning(_CHECK, f"not looked at: {found}", advice)]
    about: dict[tuple[Level, str, str], list[str]] = {}
    for name in (each for queue in all_queues(settings.partitions) for each in with_companions(queue)):
        wanted = queue_arguments(name, settings.queue_type)
        kind = queues[name].kind if name in queues else str(wanted[TYPE])
        arguments = queues[name].arguments if name in queues else wanted
        applied = applied_to(name, policies, {"all", "queues", "streams" if kind == "stream" else f"{kind}_queues"})
        for level, text in effects_on(name, kind, arguments, merged(applied)):
            about.setdefault((level, text, _named(applied)), []).append(name)
    applied = applied_to(EXCHANGE, policies, {"all", "exchanges"})
    if other := merged(applied).get("alternate-exchange"):
        text = f"alternate-exchange {other}: an event that finds no queue goes there, and its camera takes it for safe"
        about[Level.WARNING, text, _named(applied)] = [EXCHANGE]
    return [
        Finding(_CHECK, level, f"{', '.join(names)}: {text}", f"take them out of the pattern of {by}, or clear it")
        for (level, text, by), names in about.items()
    ] or [ok(_CHECK, "none changes what becomes of messages")]


def applied_to(name: str, policies: Sequence[Policy], kinds: set[str]) -> list[Policy]:
    """Pick what applies to a queue or an exchange: one policy and one operator policy at most."""
    fitting = [each for each in reversed(policies) if each.apply_to in kinds and each.matches(name)]
    best = {each.is_operator: each for each in sorted(fitting, key=lambda each: each.priority)}
    return [best[is_operator] for is_operator in sorted(best)]


def merged(applied: Sequence[Policy]) -> dict[str, Any]:
    """Put a policy and an operator policy together as RabbitMQ does: of two numbers the lower one counts."""
    together: dict[str, Any] = {}
    for key, value in (item for each in applied for item in each.definition.items()):
        is_number = isinstance(value, int) and isinstance(together.get(key), int)
        together[key] = min(value, together[key]) if is_number else value
    return together


def effects_on(name: str, kind: str, arguments: Mapping[str, Any], policy: Mapping[str, Any]) -> Iterator[Effect]:
    """Say what a policy does to the messages of a queue of ours."""
    if name == dq_name(name):
        return  # nothing of ours is in it
    is_dead = name == xq_name(name)
    yield from _lengths(is_dead, arguments, policy)
    ttl, expires, limit = (policy.get(key) for key in ("message-ttl", "expires", "delivery-limit"))
    if ttl is not None and not is_dead:
        yield Level.PROBLEM, f"message-ttl {ttl} ms: what waits longer for a worker becomes a dead letter"
    elif ttl is not None and ttl < DEAD_MESSAGE_TTL:
        yield Level.PROBLEM, f"message-ttl {ttl} ms: dead letters are gone after that, instead of 7 days"
    if expires is not None:
        yield Level.PROBLEM, f"expires {expires} ms: unused for so long it is deleted, with all that is in it"
    if limit is not None and kind == QUORUM and 0 <= limit < DELIVERY_LIMIT:
        done = "gone" if is_dead else "a dead letter"
        yield Level.PROBLEM, f"delivery-limit {limit}: what comes back more often, as from killed workers, is {done}"
    if (other := policy.get("dead-letter-exchange")) is not None and "x-dead-letter-exchange" not in arguments:
        yield Level.WARNING, f"dead-letter-exchange {other!r}: what would be gone goes there, and may come again"
    if (timeout := policy.get("consumer-timeout")) is not None:
        yield Level.WARNING, f"consumer-timeout {timeout} ms: what waits longer in a worker is delivered again"
    known = {"message-ttl", "expires", "delivery-limit", "dead-letter-exchange", "consumer-timeout", *_LENGTHS}
    for key in policy.keys() - known - _SIZES - _WITH_ANOTHER - {"alternate-exchange"}:
        if not key.startswith(_HARMLESS):
            yield Level.WARNING, f"{key} {policy[key]!r}: this doctor does not know what that does to messages"


_LENGTHS = {"max-length": "messages", "max-length-bytes": "bytes"}


def _lengths(is_dead: bool, arguments: Mapping[str, Any], policy: Mapping[str, Any]) -> Iterator[Effect]:
    overflow = arguments.get("x-overflow") or policy.get("overflow", "drop-head")
    for key, unit in _LENGTHS.items():
        if key not in policy:
            continue
        beyond = f"{key} {policy[key]}, overflow {overflow}: beyond so many {unit}"
        if overflow == "drop-head":
            done = "the oldest dead letters are gone" if is_dead else "the oldest messages become dead letters"
            yield Level.PROBLEM, f"{beyond} {done}"
        elif is_dead:
            yield Level.PROBLEM, f"{beyond} it takes no dead letter, and what should become one stops its queue"
        elif overflow == "reject-publish-dlx":
            yield Level.PROBLEM, f"{beyond} what comes becomes a dead letter"
        else:
            yield Level.WARNING, f"{beyond} it takes no more: our cameras wait, others must heed RabbitMQ's confirms"


def _named(applied: Sequence[Policy]) -> str:
    return " and ".join(f"{'operator ' * each.is_operator}policy {each.name!r}" for each in applied)
