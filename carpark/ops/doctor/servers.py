"""The doctor's look at RabbitMQ and Redis. It only reads: no queue is made, no record is touched."""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from dramatiq.common import q_name
from pika import exceptions, spec
from pika.adapters.blocking_connection import BlockingConnection

from carpark.domain.events import MAX_BODY_BYTES
from carpark.domain.routing import event_queues, is_event_queue, partition_of
from carpark.errors import BrokerUnavailable, RecordsUnavailable
from carpark.ops.doctor.findings import Finding, in_background, ok, problem, split_error, warning, wrong
from carpark.ops.health import sink_problems, span, summaries
from carpark.rabbitmq.connection import MAX_MESSAGE_BYTES, explain, look, open_connection, server_version
from carpark.rabbitmq.management import ManagementApi, QueueTotals
from carpark.rabbitmq.topology import ASIDE, EXCHANGE, TYPE, all_queues, queue_arguments, with_companions
from carpark.records import Records, open_records
from carpark.records.connection import is_denied, remedy
from carpark.settings import Settings
from carpark.settings.values import management_url_of, mask_url, mask_urls
from carpark.web.ports import cause_of

TIMEOUT = 2.5
"""Seconds that one server may take to answer."""

CLOCKS_APART = 5.0
"""Seconds between two clocks that are worth a word."""

STAY_BYTES = 968
"""What a finished stay takes in Redis; an unmatched exit takes a little less (docs/reference/records.md)."""

LOOK_BACK = 600.0
"""Seconds over which exits are counted, to say what a full retention comes to."""

_IN_PROCESS = "in this process: right for `carpark run`, no other command can use it"
_CLAIMS_DATABASE = 1


def check_broker(settings: Settings) -> list[Finding]:
    """Look at RabbitMQ and our queues."""
    if settings.broker_url.startswith("stub:"):
        return [ok("rabbitmq", _IN_PROCESS)]
    totals = in_background(lambda: _totals(settings), "totals")
    with contextlib.closing(open_connection(settings.broker_url, "carpark doctor", TIMEOUT)) as connection:
        version = server_version(connection) or "of unknown version"
        findings = [ok("rabbitmq", f"RabbitMQ {version} at {mask_urls(settings.broker_url)}")]
        try:
            answers = _look_at_queues(connection, settings.partitions)
        except exceptions.AMQPError as error:
            return [*findings, problem("queues", *explain(error))]
    return findings + _judge_queues(answers, totals, settings)


def check_message_size(settings: Settings) -> list[Finding]:
    """Look how long a message may be. No API says it, so one that is too long is sent to a queue that is not there."""
    if settings.broker_url.startswith("stub:"):
        return []
    try:
        return [_judge_limit(in_background(lambda: _refusal(settings.broker_url), "message size").result(TIMEOUT))]
    except BrokerUnavailable:
        return []
    except (TimeoutError, exceptions.AMQPError):
        return [_judge_limit("it takes none now")]


def _refusal(url: str) -> str | None:
    """Say what RabbitMQ says against a message that is longer than ours may be; None if it takes it."""
    text = ""
    with contextlib.closing(open_connection(url, "carpark doctor", TIMEOUT)) as connection:
        for exchange in ("", EXCHANGE):  # who may publish may as a rule publish to one of these
            channel = connection.channel()
            channel.confirm_delivery()
            try:
                channel.basic_publish(exchange, f"carpark-doctor-{uuid.uuid4()}", bytes(MAX_MESSAGE_BYTES + 1))
            except exceptions.ChannelClosedByBroker as error:
                text = str(error.reply_text)
                if error.reply_code == spec.PRECONDITION_FAILED:
                    return text
            else:
                return None
    return text


def _judge_limit(refusal: str | None) -> Finding:
    check, wanted = "message size", f"max_message_size = {MAX_MESSAGE_BYTES} in rabbitmq.conf"
    if refusal is None:
        found = f"RabbitMQ takes messages of more than {MAX_MESSAGE_BYTES} bytes"
        return warning(check, found, f"{wanted}: an event has {MAX_BODY_BYTES} at most, and longer ones cost memory")
    limit = re.search(r"max size (\d+)", refusal)
    if not limit:
        return warning(check, f"how long a message may be is not known: {refusal}", f"see to {wanted}")
    if int(limit[1]) < MAX_BODY_BYTES:
        found = f"RabbitMQ takes messages of {limit[1]} bytes at most, and an event may have {MAX_BODY_BYTES}"
        return warning(check, found, wanted)
    return ok(check, f"at most {limit[1]} bytes")


def _look_at_queues(connection: BlockingConnection, partitions: int) -> dict[str, tuple[int, int]]:
    answers = {}
    for name in (each for queue in all_queues(partitions) for each in with_companions(queue)):
        if found := look(connection, name):
            answers[name] = (found.message_count, found.consumer_count)
    channel = connection.channel()
    with contextlib.suppress(exceptions.ChannelClosedByBroker):
        channel.exchange_declare(EXCHANGE, passive=True)
        answers[EXCHANGE] = (0, 0)
    return answers


def _totals(settings: Settings) -> tuple[dict[str, QueueTotals], set[str]]:
    with contextlib.closing(ManagementApi.of(settings, TIMEOUT)) as management:
        management.version()  # raises where something else answers, whose empty lists would be taken for none
        return management.queues(), management.bound(EXCHANGE)


def _judge_queues(
    answers: Mapping[str, tuple[int, int]], asked: Future[tuple[dict[str, QueueTotals], set[str]]], settings: Settings
) -> list[Finding]:
    queues = all_queues(settings.partitions)
    totals: Mapping[str, QueueTotals] | None = None
    bound = set(queues)
    with contextlib.suppress(BrokerUnavailable, TimeoutError):
        totals, bound = asked.result(TIMEOUT)
    findings = _judge_declarations(answers, totals, bound, settings)
    for queue in queues:
        if queue in answers and not answers[queue][1]:
            found = f"nobody consumes {queue}, where {answers[queue][0]} wait"
            findings.append(warning("consumers", found, "start `carpark worker`"))
    if all(answers.get(queue, (0, 0))[1] for queue in queues):
        findings.append(ok("consumers", ", ".join(f"{queue}: {answers[queue][1]}" for queue in queues)))
    dead = [
        warning(
            "dead letters", f"{answers[name][0]} in {name}", "each one's header x-carpark-error says why it is there"
        )
        for name in (with_companions(queue)[2] for queue in queues)
        if answers.get(name, (0, 0))[0]
    ]
    return [*findings, *(dead or [ok("dead letters", "none")])]


def _judge_declarations(
    answers: Mapping[str, object], totals: Mapping[str, QueueTotals] | None, bound: set[str], settings: Settings
) -> list[Finding]:
    queues, queue_type = all_queues(settings.partitions), settings.queue_type
    names = [each for queue in queues for each in with_companions(queue)]
    findings = []
    missing = [name for name in (*names, EXCHANGE) if name not in answers]
    if EXCHANGE in answers:
        unbound = (queue for queue in event_queues(settings.partitions) if queue in answers and queue not in bound)
        missing += [f"{EXCHANGE}'s binding to {queue}" for queue in unbound]
    beyond = [
        f"{name} ({each.ready})"
        for name, each in (totals or {}).items()
        if each.ready and is_event_queue(q_name(name)) and partition_of(q_name(name)) >= settings.partitions
    ]
    if beyond:
        found = f"messages are left beyond CARPARK_PARTITIONS={settings.partitions}: {', '.join(beyond)}"
        findings.append(problem("queues", found, "set it as it was, drain these queues, then change it"))
    if missing:
        findings.append(warning("queues", f"not there: {', '.join(missing)}", "declare them: `carpark queues --once`"))
    for name in names:
        if totals and name in totals and (difference := _difference(totals[name], queue_type)):
            advice = "stop the workers and run `carpark queues --migrate`, or correct CARPARK_QUEUE_TYPE"
            findings.append(problem("queues", f"{name} has other arguments than carpark's: {difference}", advice))
        if totals and name + ASIDE in totals:
            found = f"{name + ASIDE} has {totals[name + ASIDE].ready} messages of a migration that did not end"
            findings.append(problem("queues", found, "stop the workers and run `carpark queues --migrate` again"))
    if not findings:
        unseen = "" if totals else "; `carpark queues --once` checks their arguments"
        findings.append(ok("queues", f"{', '.join(queues)} with their companions, and {EXCHANGE}, are there{unseen}"))
    return findings


def _difference(queue: QueueTotals, queue_type: str) -> str:
    wanted = queue_arguments(queue.name, queue_type)
    found = {**queue.arguments, TYPE: queue.kind}  # the type that it has, whatever it was declared with
    parts = [
        f"{key} is {found.get(key, 'missing')!r}, wanted {wanted.get(key, 'none')!r}"
        for key in sorted({*wanted, *found})
        if found.get(key) != wanted.get(key)
    ]
    return "; ".join(parts if queue.durable else ["it is not durable", *parts])


def check_management(settings: Settings) -> list[Finding]:
    """Look at RabbitMQ's management API."""
    if not settings.management_url:
        return [ok("management api", "not needed by the in-process broker")]
    where = mask_url(settings.management_url)
    with contextlib.closing(ManagementApi.of(settings, TIMEOUT)) as management:
        try:
            version, ahead = management.version(), management.clock_ahead()
        except BrokerUnavailable as error:
            found, advice = split_error(error)
            if settings.management_url == management_url_of(settings.broker_url):
                without = "messages in hand cannot be counted then, and RabbitMQ's clock is not compared"
                return [warning("management api", f"{found} ({without})", advice)]
            return [problem("management api", found, advice)]
        findings = [ok("management api", f"RabbitMQ {version} at {where}")]
        with contextlib.suppress(BrokerUnavailable):  # not every user may see the nodes
            for alarm in management.alarms():
                advice = "RabbitMQ takes no messages until there is room: free some"
                findings.append(problem("management api", f"alarm: {alarm} is short", advice))
    return [*findings, _judge_clock("RabbitMQ", ahead)]


def check_redis(settings: Settings) -> list[Finding]:
    """Look at Redis: whether it is there, and whether it keeps what it is given."""
    where = mask_url(settings.redis_url)
    records = open_records(settings.redis_url, settings.retention, settings.sinks, attempts=0)
    with contextlib.closing(records):
        try:
            server = records.server(min(LOOK_BACK, settings.retention))
            if server is None:
                return [ok("redis", _IN_PROCESS)]
            backlogs = _look_at_sinks(records)
        except RecordsUnavailable as error:
            return [problem("redis", f"Redis at {where}: {cause_of(error)}", remedy(error))]
    findings = [_judge_database(server.database, server.info or {}, where)]
    if server.info is None:
        advice = "give it +info and +config|get, if it is to be looked at (docs/reference/rights.md)"
        findings.append(warning("redis persistence", "not looked at, nor memory: this user may not ask INFO", advice))
    else:
        findings += _judge_info(server.info, server.fsync)
    if server.ahead is None:
        found = "not compared: this user may not ask for the time, or for the ids of exits"
        return [*findings, ok("clock of Redis", found), *backlogs]
    limit = int((server.info or {}).get("maxmemory") or 0)
    exits = server.exits / min(LOOK_BACK, settings.retention)
    clock = [_judge_clock("Redis", server.ahead), _judge_retention(exits, settings.retention, limit)]
    return [*findings, *clock, *backlogs]


def _judge_info(info: Mapping[str, Any], fsync: str) -> list[Finding]:
    findings = []
    if info.get("role") not in (None, "master"):
        advice = "name the primary in CARPARK_REDIS_URL"
        findings.append(problem("redis", "this Redis is a replica, which takes no writes", advice))
    return [*findings, _judge_persistence(info, fsync), _judge_eviction(info)]


def _judge_clock(server: str, ahead: float | None) -> Finding:
    check = f"clock of {server}"
    if ahead is None:
        return ok(check, "not compared: it does not say what time it is")
    if abs(ahead) < CLOCKS_APART:
        return ok(check, f"less than {span(CLOCKS_APART)} from this machine's")
    advice = (
        "have all machines follow NTP: latencies and ages that are shown are off by it. Stays are not, unless it is a "
        "camera's clock: they are joined by the events' own times, and ids are remembered by Redis' clock alone"
    )
    where = "ahead of" if ahead > 0 else "behind"
    return warning(check, f"{span(abs(ahead))} {where} this machine's", advice)


def _judge_retention(exits: float, retention: float, limit: int) -> Finding:
    check, need = "retention", exits * retention * STAY_BYTES
    if not exits:
        return ok(
            check, f"no exit in the last {span(LOOK_BACK)}: nothing to say of what {span(retention)} take in Redis"
        )
    found = f"{exits:.2g} exits/s, as in the last {span(LOOK_BACK)}, take {_megabytes(need)} in {span(retention)}"
    if not limit:
        return ok(check, f"{found}; maxmemory is not set")
    if need < limit:
        return ok(check, f"{found}, of {_megabytes(limit)} that Redis may use")
    advice = "raise maxmemory or lower CARPARK_RETENTION: a full Redis refuses writes, and events wait"
    return warning(check, f"{found}, and Redis may use {_megabytes(limit)}", advice)


def _megabytes(number: float) -> str:
    return f"{number / 1e6:,.0f} MB"


def _look_at_sinks(records: Records) -> list[Finding]:
    try:
        backlogs = records.backlogs()
    except RecordsUnavailable as error:
        if is_denied(error):
            return [ok("sinks", "not looked at: this user may not read what they have not taken")]
        # A key of ours that is something else.
        return [problem("sinks", str(error), "is it the Redis of carpark? look at CARPARK_REDIS_URL")]
    findings = []
    for backlog in backlogs:
        check, found = f"sink {backlog.sink}", sink_problems(backlog)
        waits = f"{summaries(backlog.waiting)} not yet delivered" if backlog.waiting else "all is delivered"
        findings += [warning(check, *each) for each in found] or [ok(check, waits)]
    return findings


def _judge_database(database: int, info: Mapping[str, Any], where: str) -> Finding:
    if database == _CLAIMS_DATABASE:
        advice = "use database 0: redis://host:port/0"
        return wrong("redis", "CARPARK_REDIS_URL names database 1, where the exit generators keep their claims", advice)
    if database:
        advice = "use database 0 unless that is meant: redis://host:port/0"
        return warning("redis", f"CARPARK_REDIS_URL names database {database}; records are looked for in 0", advice)
    return ok("redis", f"Redis {info.get('redis_version', '')} at {where}, database 0")


def _judge_persistence(info: Mapping[str, Any], fsync: str) -> Finding:
    check = "redis persistence"
    if info.get("aof_enabled"):
        if info.get("aof_last_write_status", "ok") != "ok":
            return problem(check, "the append-only file cannot be written", "look into Redis's log; is its disk full?")
        lost = {"always": "nothing is lost", "everysec": "a power loss costs up to a second"}.get(fsync, "")
        return ok(check, "append-only file" + (f", appendfsync {fsync}" if fsync else "") + (lost and f": {lost}"))
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        return problem(check, "the last snapshot failed, so Redis may refuse writes", "look into Redis's log")
    found = "no append-only file: when Redis ends, records since its last snapshot are lost"
    advice = "redis-cli CONFIG SET appendonly yes appendfsync always, and the same in redis.conf"
    return warning(check, found, advice)


def _judge_eviction(info: Mapping[str, Any]) -> Finding:
    check, policy = "redis memory", info.get("maxmemory_policy", "noeviction")
    limit = f"limit {info.get('maxmemory_human', '')}" if info.get("maxmemory") else "no limit"
    advice = "redis-cli CONFIG SET maxmemory-policy noeviction, and the same in redis.conf"
    if policy == "noeviction":
        return ok(check, f"{info.get('used_memory_human', '?')} used, {limit}, nothing is evicted")
    if info.get("maxmemory"):
        return problem(check, f"maxmemory-policy {policy}: at the {limit} records of vehicles are thrown away", advice)
    return warning(check, f"maxmemory-policy {policy}: records are thrown away as soon as maxmemory is set", advice)
