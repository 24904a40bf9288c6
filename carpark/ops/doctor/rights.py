"""The doctor's try of every right that docs/reference/rights.md has. No queue is made for it, no record is touched."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence

from pika import exceptions

from carpark.errors import BrokerUnavailable, RecordsUnavailable, named
from carpark.ops.doctor.findings import Finding, ok, problem, warning
from carpark.rabbitmq.connection import explain, open_connection
from carpark.rabbitmq.rights import denied, rights_of
from carpark.records import open_records
from carpark.records.connection import is_for_now, remedy
from carpark.settings import Settings
from carpark.web.ports import is_tls_refusal
from generators.clock import Clock
from generators.redis_lot import RedisLot

TIMEOUT = 2.5
"""Seconds that one server may take to answer."""

_SHOWN_ON_PAGES = {
    *("MULTI", "EXEC", "TIME", "SMEMBERS carpark:sinks", "HGETALL carpark:counts", "SCARD entry_plates"),
    *("LLEN", "LINDEX", "ZCARD", "ZRANGE", "HLEN", "HGETALL"),
}
"""What the dashboard runs, of all that a worker does: commands with a key, or those on the keys of a sink."""

_ADVICE = "docs/reference/rights.md has what each service needs"


def check_broker_rights(settings: Settings) -> list[Finding]:
    """Try the rights that RabbitMQ gives."""
    check = "rabbitmq rights"
    if settings.broker_url.startswith("stub:"):
        return []
    needs = rights_of(settings.partitions)
    try:
        with contextlib.closing(open_connection(settings.broker_url, "carpark doctor", TIMEOUT)) as connection:
            asked = {right for rights in needs.values() for right in rights}
            missing = set(denied(connection, sorted(asked)))
    except BrokerUnavailable:
        return []
    except exceptions.AMQPError as error:
        return [problem(check, *explain(error))]
    return [_judge(check, {who: list(map(str, rights)) for who, rights in needs.items()}, set(map(str, missing)))]


def check_redis_rights(settings: Settings) -> list[Finding]:
    """Try the rights that Redis gives."""
    check = "redis rights"
    if settings.redis_url.startswith("memory:"):
        return []
    records = open_records(settings.redis_url, settings.retention, settings.sinks, attempts=0, timeout=TIMEOUT)
    lot = RedisLot.connect(settings.redis_url, Clock())
    try:
        with contextlib.closing(records), contextlib.closing(lot):
            granted, refused = records.rights()
            cameras = lot.rights()
    except RecordsUnavailable as error:
        if is_for_now(error):
            return [problem(check, f"not tried: {error}", remedy(error))]
        is_said = not error.refuses or is_tls_refusal(error)  # by the check of Redis itself
        return [] if is_said else [problem(check, f"they cannot be asked for: {error}", _ADVICE)]
    if not granted and not refused:
        return [warning(check, "not tried: a Redis before version 7 does not say them", _ADVICE)]
    worker = [*granted, *refused]
    needs = {
        "worker": worker,
        "cameras": [*cameras[0], *cameras[1]],
        "dashboard": [right for right in worker if _is_shown(right)],
        "writer": ["SCARD entry_plates"],
    }
    return [_judge(check, needs, {*refused, *cameras[1]}, lambda right: right.partition(" ")[0])]


def _is_shown(right: str) -> bool:
    command, _, key = right.partition(" ")
    return right in _SHOWN_ON_PAGES or (command in _SHOWN_ON_PAGES and key.count(":") > 1)


def _judge(
    check: str, needs: Mapping[str, Sequence[str]], missing: set[str], sign: Callable[[str], str] = str
) -> Finding:
    """Say for whom the rights are enough. A user is meant for whoever alone needs something that is granted to it."""
    enough = [who for who, rights in needs.items() if not missing.intersection(rights)]
    signs = {who: {sign(right) for right in rights} for who, rights in needs.items()}
    lacking = []
    for who in needs.keys() - enough:
        granted = {sign(right) for right in needs[who] if right not in missing}
        if not enough or granted.difference(*(signs[other] for other in needs if other != who)):
            lacking.append(who)
    if not lacking:
        return ok(check, f"enough for {', '.join(enough)}")
    lacks = [
        f"{who} lacks {named([right for right in rights if right in missing])}"
        for who, rights in needs.items()
        if who in lacking
    ]
    return problem(check, "; ".join([*lacks, *([f"enough for {', '.join(enough)}"] if enough else [])]), _ADVICE)
