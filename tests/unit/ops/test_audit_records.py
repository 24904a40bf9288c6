"""What the audit says of the records (those in this process) and of messages as a broker holds them."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from rich.console import Console

from carpark.backend.relay import summary_message
from carpark.domain.events import Event, StaySummary, VehicleEntered, VehicleExited, format_time
from carpark.ops.audit.queued import Message
from carpark.records import Batch, Records, Settlement, forget_memory, open_records
from tests.support.audited import Day, stay, summaries_of, wrongs
from tests.support.stays import at, entered, exited

URL = "memory://audited"


@pytest.fixture
def day(tmp_path: Path) -> Day:
    return Day(tmp_path)


@pytest.fixture
def records() -> Iterator[Records]:
    """The records that the audit is given, with one sink."""
    records = open_records(URL, 3600, ["http-csv"])
    yield records
    records.close()
    forget_memory(URL)


def just_now(kind: type[VehicleEntered] | type[VehicleExited], id_: str, plate: str) -> Event:
    """Make an event whose id the records must still remember if they have ever seen it."""
    moment = format_time(datetime.fromtimestamp(time.time() - 1, UTC))
    return kind.parse({"id": id_, "vehicle_plate": plate, kind.time_field: moment})


def settle(records: Records, **became: Any) -> None:
    """Take what waits, and say what became of it."""
    batch = records.outbox("http-csv").take(60)
    if isinstance(batch, Batch):
        records.outbox("http-csv").settle(batch, Settlement(**became))


def bare(event: Event, companion: str = "") -> Message:
    return event.queue + companion, event.to_json().encode()


def test_records_that_say_the_same_are_well(day: Day, records: Records) -> None:
    events = [*stay(0), *stay(1), entered("in", "IN"), exited("out", "OUT")]
    day.publish(events)
    records.record(events)
    settle(records, delivered=["x0"])
    day.summarise(summaries_of(stay(0)))
    verdict = day.verdict(redis_url=URL)
    assert verdict.ok
    assert (verdict.sinks[0].summarised, verdict.sinks[0].undelivered) == (1, 1)
    assert verdict.records == {"recorded": 3, "matched": 2, "unmatched": 1, "abandoned": 0, "inside": 1}


def test_a_vehicle_that_the_records_lack_is_lost_and_one_too_many_is_unexpected(day: Day, records: Records) -> None:
    records.record([entered("e1", "GHOST", 5)])
    day.publish([entered("e2", "GONE", 7)])
    day.summarise([])
    verdict = day.verdict(redis_url=URL)
    assert wrongs(verdict) == (1, 0, 1)
    assert "GONE entry at" in verdict.findings["lost events"][0]
    assert verdict.findings["unexpected, inside"][0].startswith("GHOST since")


@pytest.mark.parametrize("kind", [VehicleEntered, VehicleExited])
def test_an_event_that_leaves_no_row_is_looked_up_by_its_id(
    day: Day, records: Records, kind: type[VehicleEntered] | type[VehicleExited]
) -> None:
    """An unmatched exit, and an entry that a later one supersedes."""
    event = just_now(kind, "gone", "GONE")
    later = [just_now(VehicleEntered, "later", "GONE")] if kind is VehicleEntered else []
    day.publish([event, *later])
    day.summarise([])
    records.record(later)
    verdict = day.verdict(redis_url=URL)
    assert wrongs(verdict) == (1, 0, 0)
    assert "the records do not know it" in verdict.findings["lost events"][0]
    records.record([event])
    assert day.verdict(redis_url=URL).ok


def test_counts_that_differ_do_not_add_up(day: Day, records: Records) -> None:
    day.publish([])
    day.summarise([])
    records.record([exited("x", "OLD")])
    verdict = day.verdict(redis_url=URL)
    assert wrongs(verdict) == (0, 0, 0)
    assert not verdict.ok
    assert [text for text, right in verdict.sums() if not right] == [
        "records = journals: recorded 0; matched 0; unmatched 1, journals 0; abandoned 0; inside 0"
    ]


def test_a_summary_under_way_that_must_not_be_is_unexpected(day: Day, records: Records) -> None:
    records.record(stay(0))
    day.publish([])
    day.summarise([])
    assert wrongs(day.verdict(redis_url=URL)) == (0, 0, 1)


def test_events_in_doubt_count_if_the_records_know_them(day: Day, records: Records) -> None:
    tail = [exited("x1", "A", 1), exited("x2", "B", 1)]
    day.publish([], unconfirmed=tail)
    day.summarise([])
    records.record(tail[:1])
    verdict = day.verdict(redis_url=URL)
    assert verdict.ok
    assert (verdict.unmatched, verdict.pending) == (1, 1)


def test_what_waits_in_a_queue_or_is_dead_is_not_lost(day: Day) -> None:
    events = [event for number in range(4) for event in stay(number)]
    day.publish(events)
    day.summarise(summaries_of(stay(0)))
    queued = [bare(events[3]), bare(events[4], ".DQ"), bare(events[7], ".XQ"), ("vehicle_entry.XQ", b"garbage")]
    verdict = day.verdict(messages=queued)
    assert wrongs(verdict) == (0, 0, 0)
    assert all(right for _, right in verdict.sums())
    assert (verdict.queued, verdict.dead, verdict.pending) == (2, 2, 3)
    assert (verdict.matched, verdict.inside, verdict.unmatched) == (1, 2, 1)
    assert wrongs(day.verdict(messages=queued[1:])) == (1, 0, 0)


def test_a_dead_letter_that_is_a_valid_event_is_named_and_not_well(day: Day, records: Records) -> None:
    events = [*stay(0), *stay(1)]
    day.publish(events)
    day.summarise(summaries_of(stay(0)))
    records.record(stay(0))
    letters = [bare(event, ".XQ") for event in events]
    for verdict, count in (
        (day.verdict(messages=letters[2:], redis_url=URL), 2),
        (day.verdict(messages=letters, redis_url=URL), 2),
        (day.verdict(messages=letters), 4),
    ):
        assert not verdict.ok
        assert verdict.to_dict()["dead_events"] == count
        lines = verdict.findings["dead letters that are valid events"]
        assert f"P000001 exit at {events[3].time}, id x1, in vehicle_exit.XQ" in lines
        assert verdict.sentence() == (
            f"{count} valid events are dead letters: send them again with `carpark dlq requeue`"
        )
    assert day.verdict(messages=letters[:2], redis_url=URL).dead_events == 0, "the records have them: they came twice"


def test_an_event_that_comes_again_from_its_queue_had_its_effect(day: Day) -> None:
    day.publish(stay(0))
    day.summarise(summaries_of(stay(0)))
    verdict = day.verdict(messages=[bare(event) for event in stay(0)])
    assert verdict.ok
    assert (verdict.matched, verdict.pending, verdict.queued) == (1, 0, 2)


@pytest.mark.parametrize("companion", ["", ".XQ"])
def test_a_summary_that_was_given_up_is_undelivered_where_the_records_are_gone(day: Day, companion: str) -> None:
    day.publish([*stay(0), *stay(1)])
    day.summarise(summaries_of(stay(1)))
    message = (f"carpark_work{companion}", summary_message("http-csv", summaries_of(stay(0))[0]).encode())
    verdict = day.verdict(messages=[message])
    assert verdict.ok
    assert verdict.sinks[0].undelivered == 1
    assert verdict.sentence() == (
        "1 summary not yet delivered, nothing else missing, nothing twice: 4 events are accounted for"
    )


def test_what_a_sink_has_not_got_that_is_not_read_back_is_undelivered_too(day: Day, records: Records) -> None:
    day.publish(stay(0))
    day.summarise(summaries_of(stay(0)))
    message = ("carpark_work.XQ", summary_message("webhook", summaries_of(stay(0))[0]).encode())
    assert day.verdict().sentence().startswith("nothing lost")
    from_queue = day.verdict(messages=[message, message])
    open_records(URL, 3600, ["webhook"]).record(stay(0))
    from_records = day.verdict(redis_url=URL)
    for verdict in (from_queue, from_records):
        assert verdict.ok
        assert (verdict.sinks[0].undelivered, verdict.undelivered, verdict.to_dict()["undelivered"]) == (0, 1, 1)
        assert "nothing lost" not in verdict.sentence()


def test_what_waits_waits_alone_is_in_a_batch_or_given_up_is_undelivered(day: Day, records: Records) -> None:
    events = [event for number in range(4) for event in stay(number)]
    records.record(events[:6])
    settle(records, dead=["x0"], alone={"x1": 60.0})
    records.record(events[6:])
    day.publish(events)
    day.summarise([])
    verdict = day.verdict(redis_url=URL)
    assert verdict.ok
    assert (verdict.matched, verdict.sinks[0].undelivered) == (4, 4)


def test_a_sink_that_no_worker_has_is_named_with_number_and_age(day: Day, records: Records) -> None:
    open_records(URL, 3600, ["gone"]).record(stay(0))
    settle(records)
    day.publish(stay(0))
    day.summarise([])
    verdict = day.verdict(redis_url=URL)
    assert wrongs(verdict) == (1, 0, 0), "the sink that is audited has never had it"
    assert [(each.sink, each.waiting) for each in verdict.stranded] == [("gone", 1)]
    (said,) = verdict.to_dict()["stranded"]
    assert (said["sink"], said["waiting"]) == ("gone", 1)
    assert 0 <= said["age"] < 100
    shown = Console(width=300, record=True, file=io.StringIO())
    shown.print(verdict.table())
    assert re.search(
        r"1 summary not yet delivered to sink gone, the oldest for \d+ s, and no worker asks for it: none has it, or "
        r"its call hangs: start",
        shown.export_text(),
    )


def test_stays_of_a_forgotten_plate_are_named_as_such_by_a_digest(day: Day, records: Records) -> None:
    events = [*stay(0, "GONE"), *stay(1), entered("in", "GONE", 30), exited("lone", "LONE", 40)]
    day.publish(events)
    records.record(events)
    settle(records, delivered=["x0"])
    day.summarise(summaries_of(stay(0, "GONE")))
    assert day.verdict(redis_url=URL).ok
    records.forget("GONE")
    verdict = day.verdict(redis_url=URL)
    assert verdict.ok
    assert (verdict.forgotten, verdict.inside, verdict.sinks[0].summarised) == (1, 0, 1), "the row is there still"
    day.summarise([])  # now it was taken out of the file, too
    verdict = day.verdict(redis_url=URL)
    assert verdict.ok, list(verdict.sums())
    (sink,) = verdict.sinks
    assert (sink.forgotten, sink.lost, sink.undelivered) == (1, 0, 1)
    digest = records.forgotten().digest("GONE")
    assert verdict.findings == {"forgotten, http-csv": [f"plate {digest}: {at(0)} to {at(7)}"]}
    console = Console(file=io.StringIO(), width=200)
    console.print(verdict.table())
    assert "GONE" not in console.file.getvalue()  # type: ignore[attr-defined]
    assert verdict.to_dict()["forgotten"] == 1


def test_what_comes_after_a_plate_was_forgotten_is_looked_for_as_ever(day: Day, records: Records) -> None:
    before, late = [entered("e", "BACK", 1)], exited("x", "BACK", 5)
    records.record(before)
    records.forget("BACK")
    after = [late, *stay(1, "BACK"), entered("e9", "BACK", 90)]
    records.record(after)
    day.publish([*before, *after])
    day.summarise([])
    assert day.verdict(redis_url=URL).ok
    settle(records, delivered=["x1"])
    verdict = day.verdict(redis_url=URL)
    assert (wrongs(verdict), verdict.forgotten, verdict.unmatched) == ((1, 0, 0), 1, 1)
    assert verdict.findings == {"lost, http-csv": [f"BACK {at(10)} to {at(17)}, id x1"]}


@pytest.mark.slow
@hypothesis_settings(max_examples=60)
@given(data=st.data())
def test_whenever_plates_are_forgotten_the_audit_accounts_for_everything(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    day = Day(tmp_path_factory.mktemp("day"))
    records = open_records(URL, 3600, ["http-csv"])
    try:
        plates = ("ONE", "TWO")
        drawn = data.draw(st.lists(st.tuples(st.sampled_from(plates), st.sampled_from([entered, exited])), max_size=30))
        events = [make(f"{number}", plate, number) for number, (plate, make) in enumerate(drawn)]
        rows: list[StaySummary] = []
        for event in events:
            records.record([event])
            if data.draw(st.integers(0, 3)) == 0:
                batch = records.outbox("http-csv").take(60)
                if isinstance(batch, Batch):
                    rows += batch.summaries
                    records.outbox("http-csv").settle(batch, Settlement(delivered=None))
            if data.draw(st.integers(0, 5)) == 0:
                plate = data.draw(st.sampled_from(plates))
                records.forget(plate)
                if data.draw(st.booleans()):
                    rows = [row for row in rows if row.vehicle_plate != plate]
        day.publish(events)
        day.summarise(rows)
        verdict = day.verdict(redis_url=URL)
        assert verdict.ok, (list(verdict.sums()), verdict.findings)
    finally:
        records.close()
        forget_memory(URL)
