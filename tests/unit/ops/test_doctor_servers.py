"""What servers say, as the doctor judges it."""

from collections.abc import Callable

import pytest

from carpark.ops.doctor.findings import Level
from carpark.ops.doctor.servers import (
    STAY_BYTES,
    _difference,
    _judge_clock,
    _judge_eviction,
    _judge_limit,
    _judge_persistence,
    _judge_retention,
    check_management,
)
from carpark.rabbitmq.management import QueueTotals
from carpark.rabbitmq.topology import CLASSIC, QUORUM, queue_arguments
from carpark.settings import Settings
from tests.support.processes import ROOT


@pytest.mark.parametrize(
    ("queue", "difference"),
    [
        (QueueTotals("vehicle_entry.XQ", 0, 0, True, {"x-message-ttl": 604800000}), ""),
        (QueueTotals("vehicle_entry.XQ", 0, 0, True, {"x-message-ttl": 604800000, "x-queue-type": "classic"}), ""),
        (QueueTotals("vehicle_entry.XQ", 0, 0, True, {}), "x-message-ttl is 'missing', wanted 604800000"),
        (QueueTotals("vehicle_entry.XQ", 0, 0, False, {"x-message-ttl": 604800000}), "it is not durable"),
        (
            QueueTotals("vehicle_entry.XQ", 0, 0, True, {"x-message-ttl": 604800000, "x-max-length": 5}),
            "x-max-length is 5, wanted 'none'",
        ),
    ],
)
def test_other_arguments_are_named(queue: QueueTotals, difference: str) -> None:
    assert _difference(queue, "classic") == difference


def test_a_queue_of_the_other_type_is_named() -> None:
    classic, quorum = (
        QueueTotals("vehicle_exit", 0, 0, True, queue_arguments("vehicle_exit", each), each)
        for each in (CLASSIC, QUORUM)
    )
    assert _difference(classic, "classic") == _difference(quorum, "quorum") == ""
    assert "x-queue-type is 'classic', wanted 'quorum'" in _difference(classic, "quorum")
    of_the_virtual_host = QueueTotals("vehicle_exit.XQ", 0, 0, True, {"x-message-ttl": 604800000}, QUORUM)
    assert _difference(of_the_virtual_host, "classic") == "x-queue-type is 'quorum', wanted 'classic'"
    assert "x-delivery-limit is 100, wanted 'none'" in _difference(quorum, "classic")


@pytest.mark.parametrize(
    ("info", "fsync", "level"),
    [
        ({"aof_enabled": 1}, "everysec", Level.OK),
        ({"aof_enabled": 1, "aof_last_write_status": "err"}, "everysec", Level.PROBLEM),
        ({"aof_enabled": 0}, "", Level.WARNING),
        ({"aof_enabled": 0, "rdb_last_bgsave_status": "err"}, "", Level.PROBLEM),
    ],
)
def test_what_redis_may_lose_is_said(info: dict[str, object], fsync: str, level: Level) -> None:
    assert _judge_persistence(info, fsync).level is level


@pytest.mark.parametrize(
    ("info", "level"),
    [
        ({"maxmemory": 0, "maxmemory_policy": "noeviction"}, Level.OK),
        ({"maxmemory": 100, "maxmemory_policy": "noeviction"}, Level.OK),
        ({"maxmemory": 0, "maxmemory_policy": "allkeys-lru"}, Level.WARNING),
        ({"maxmemory": 100, "maxmemory_policy": "volatile-ttl"}, Level.PROBLEM),
    ],
)
def test_a_redis_that_throws_records_away_is_a_problem(info: dict[str, object], level: Level) -> None:
    assert _judge_eviction(info).level is level


@pytest.mark.parametrize(
    ("ahead", "level", "words"),
    [
        (0.0, Level.OK, "less than 5 s from this machine's"),
        (-4.9, Level.OK, "less than 5 s from this machine's"),
        (5.5, Level.WARNING, "5 s ahead of this machine's"),
        (-7 * 3600.0 - 1, Level.WARNING, "7 h behind this machine's"),
        (None, Level.OK, "not compared: it does not say what time it is"),
    ],
)
def test_clocks_that_are_some_seconds_apart_are_a_warning(ahead: float | None, level: Level, words: str) -> None:
    finding = _judge_clock("Redis", ahead)
    assert (finding.check, finding.level, finding.found) == ("clock of Redis", level, words)
    assert ("joined by the events' own times" in finding.advice) is (level is Level.WARNING)


def test_the_clock_of_a_rabbitmq_without_management_is_not_compared(make_settings: Callable[..., Settings]) -> None:
    (finding,) = check_management(make_settings(broker_url="amqp://guest:guest@nowhere.invalid"))
    assert finding.level is Level.WARNING
    assert "RabbitMQ's clock is not compared" in finding.found


@pytest.mark.parametrize(
    ("exits", "limit", "level", "words"),
    [
        (0.0, 100, Level.OK, "no exit in the last 10 min"),
        (0.5, 0, Level.OK, "0.5 exits/s, as in the last 10 min, take 84 MB in 2 days; maxmemory is not set"),
        (0.5, 96 << 20, Level.OK, "take 84 MB in 2 days, of 101 MB that Redis may use"),
        (5.0, 96 << 20, Level.WARNING, "take 836 MB in 2 days, and Redis may use 101 MB"),
    ],
)
def test_a_retention_that_does_not_fit_is_a_warning(exits: float, limit: int, level: Level, words: str) -> None:
    finding = _judge_retention(exits, 172_800, limit)
    assert finding.level is level
    assert words in finding.found
    assert ("CARPARK_RETENTION" in finding.advice) is (level is Level.WARNING)


def test_the_cost_of_a_stay_is_the_one_that_the_docs_have() -> None:
    page = (ROOT / "docs/reference/records.md").read_text(encoding="utf-8")
    assert f"| finished, summary delivered | {STAY_BYTES} |" in page


@pytest.mark.parametrize(
    ("refusal", "level", "words"),
    [
        ("PRECONDITION_FAILED - message size 1048577 is larger than configured max size 1048576", Level.OK, "1048576"),
        ("PRECONDITION_FAILED - message size 1048577 is larger than configured max size 65536", Level.OK, "65536"),
        ("message size 1048577 is larger than configured max size 65535", Level.WARNING, "an event may have 65536"),
        (None, Level.WARNING, "takes messages of more than 1048576 bytes"),
        ("ACCESS_REFUSED - access refused", Level.WARNING, "is not known: ACCESS_REFUSED"),
        ("it takes none now", Level.WARNING, "is not known: it takes none now"),
    ],
)
def test_how_long_a_message_may_be_is_judged(refusal: str | None, level: Level, words: str) -> None:
    finding = _judge_limit(refusal)
    assert finding.level is level
    assert words in finding.found
    assert (level is Level.OK) != ("max_message_size = 1048576" in finding.advice)
