"""What the audit says of journals and of what the sinks have."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carpark.domain.events import Event, StaySummary, VehicleEntered
from carpark.errors import InvalidSetting
from carpark.ops.audit import Verdict
from carpark.ops.audit.journals import _fact, _Kind, _plain
from carpark.plugins import Plugins
from carpark.settings import load_settings
from tests.support.audited import Day, stay, summaries_of, write_csv, write_database, write_lines, wrongs
from tests.support.reference import account_for
from tests.support.stays import any_events, at, entered, exited, mixed


@pytest.fixture
def day(tmp_path: Path) -> Day:
    return Day(tmp_path)


def stays(count: int) -> list[Event]:
    return [event for number in range(count) for event in stay(number)]


def close(verdict: Verdict) -> bool:
    return all(right for _, right in verdict.sums())


def test_a_day_on_which_all_went_well(day: Day) -> None:
    events = [
        *stays(5),
        entered("in", "IN"),
        exited("out", "OUT"),
        entered("e9", "TWICE", 1),
        entered("e10", "TWICE", 2),
    ]
    day.publish(events)
    day.summarise(summaries_of(events))
    verdict = day.verdict()
    assert verdict.ok
    assert (verdict.published, verdict.entries, verdict.exits, verdict.recorded) == (14, 8, 6, 8)
    assert (verdict.matched, verdict.unmatched, verdict.abandoned, verdict.inside) == (5, 1, 1, 2)
    assert (verdict.sinks[0].rows, verdict.sinks[0].summarised) == (5, 5)
    assert verdict.findings == {}


def test_what_is_wrong_with_the_rows_is_found_and_described(day: Day) -> None:
    day.publish(stays(6))
    rows = summaries_of(stays(7))
    wrong = StaySummary.of_stay("x2", "P000002", at(20), at(28))
    day.summarise([rows[0], rows[0], wrong, *rows[3:]])  # x1 is gone, x6 never was, x2 left later than it did
    verdict = day.verdict()
    assert wrongs(verdict) == (2, 1, 2)
    assert close(verdict)
    assert not verdict.ok
    assert verdict.findings == {
        "lost, http-csv": [f"P000001 {at(10)} to {at(17)}, id x1", f"P000002 {at(20)} to {at(27)}, id x2"],
        "duplicated, http-csv": [f"P000000 {at(0)} to {at(7)}, 0.000007 s, id x0"],
        "unexpected, http-csv": [
            f"P000002 {at(20)} to {at(28)}, 0.000008 s, id x2",
            f"P000006 {at(60)} to {at(67)}, 0.000007 s, id x6",
        ],
    }


@given(
    st.text(st.sampled_from('=@+-._/ :aZ09"é'), min_size=1, max_size=4) | st.sampled_from(["x" * 128, "x" * 129]),
    st.text(st.sampled_from("AZ09 -"), min_size=1, max_size=4) | st.sampled_from(["A" * 24, "A" * 25]),
)
def test_a_line_that_is_read_without_json_is_read_as_the_workers_read_it(id_: str, plate: str) -> None:
    line = VehicleEntered.model_construct(id=id_, vehicle_plate=plate, entry_date_time=at(0)).to_json().encode()
    quick = _plain(line)
    assert quick is None or quick == _fact(line, _Kind())
    if (
        id_[0].isalnum()
        and plate.isalnum()
        and len(id_) <= 128
        and len(plate) <= 24
        and id_.isascii()
        and '"' not in id_
    ):
        assert quick


def test_a_wrong_duration_is_a_wrong_row(day: Day) -> None:
    day.publish(stays(1))
    day.summarise([summaries_of(stays(1))[0].model_copy(update={"duration": 0.000008})])
    assert wrongs(day.verdict()) == (1, 0, 1)


def test_so_many_findings_are_shown_and_all_are_counted(day: Day) -> None:
    day.publish(stays(30))
    day.summarise([])
    day.show = 3
    verdict = day.verdict()
    assert verdict.lost == 30
    assert len(verdict.findings["lost, http-csv"]) == 3


@pytest.mark.slow
@given(mixed(any_events))
def test_what_the_reference_says_is_all_well_and_what_differs_by_a_row_is_not(
    tmp_path_factory: pytest.TempPathFactory, events: list[Event]
) -> None:
    day = Day(tmp_path_factory.mktemp("day"))
    day.publish(events)
    rows = summaries_of(events)
    day.summarise(rows)
    account, verdict = account_for(events), day.verdict()
    assert verdict.ok
    assert verdict.repeated == account.duplicates
    assert (verdict.matched, verdict.unmatched) == (len(rows), len(account.unmatched))
    assert (verdict.inside, verdict.abandoned) == (len(account.inside), len(account.abandoned))
    for row in rows:
        day.summarise([other for other in rows if other is not row])
        assert wrongs(day.verdict()) == (1, 0, 0)
        day.summarise([*rows, row])
        assert wrongs(day.verdict()) == (0, 1, 0)


@given(st.lists(st.booleans(), min_size=4, max_size=4))
def test_an_unconfirmed_tail_is_neither_lost_nor_unexpected(
    tmp_path_factory: pytest.TempPathFactory, arrived: list[bool]
) -> None:
    """Whichever of its events arrived: a stay's entry and exit, an exit alone, an entry alone."""
    day = Day(tmp_path_factory.mktemp("day"))
    tail = [*stay(7), exited("x8", "P8", 99), entered("e9", "P9", 99)]
    sure = [*stays(3), entered("e8", "P8", 90)]
    day.publish(sure, unconfirmed=tail)
    day.summarise(summaries_of([*sure, *(event for event, there in zip(tail, arrived, strict=True) if there)]))
    verdict = day.verdict()
    assert verdict.ok
    assert verdict.published == 11
    assert verdict.pending == 4 - 2 * (arrived[0] and arrived[1]) - arrived[2]


def test_a_file_without_confirms_holds_published_events(day: Day) -> None:
    path = day.folder / "all.jsonl"
    path.write_text("".join(f"{event.to_json()}\n" for event in stays(3)).rstrip("\n"), encoding="utf-8")
    day.summarise(summaries_of(stays(2)))
    assert wrongs(day.verdict(journals=[path])) == (1, 0, 0)


def test_a_journal_that_was_never_confirmed_is_in_doubt_as_a_whole(day: Day) -> None:
    day.publish([], unconfirmed=stays(3))
    day.summarise([])
    verdict = day.verdict()
    assert verdict.ok
    assert verdict.pending == verdict.published == 6


@pytest.mark.slow
def test_more_than_a_generator_has_under_way_are_no_unconfirmed_tail(day: Day) -> None:
    path = day.folder / "all.jsonl"
    path.write_text("".join(f"{event.to_json()}\n" for event in stays(6_000)), encoding="utf-8")
    day.summarise(summaries_of(stays(6_000)))
    verdict = day.verdict(journals=[path])
    assert verdict.ok
    assert (verdict.published, verdict.pending) == (12_000, 0)


def test_lines_are_read_as_the_backend_reads_bodies(day: Day) -> None:
    odd = [
        '{"id":"e1","vehicle_plate":"b - 123","entry_date_time":"2026-11-23t18:00:00+01:00","lane":2}',
        '{"exit_date_time": "2026-11-23T18:00:00.5Z", "id": "x1", "vehicle_plate": "B123"}',
        '{"id":"e2","vehicle_plate":"B9","entry_date_time":"2026-02-30T18:00:00.000000Z"}',
        '{"id":"e3","vehicle_plate":"","entry_date_time":"2026-11-23T18:00:00Z"}',
        "garbage",
        "[]",
    ]
    path = day.folder / "all.jsonl"
    path.write_text("\n".join(odd) + "\n", encoding="utf-8")
    day.summarise([StaySummary.of_stay("x1", "B123", "2026-11-23T17:00:00.000000Z", "2026-11-23T18:00:00.500000Z")])
    verdict = day.verdict(journals=[path])
    assert verdict.ok
    assert (verdict.published, verdict.rejected) == (2, 4)
    lines = verdict.findings["lines that are no events"]
    assert [line.partition(": ")[0] for line in lines] == [f"{path}, line {number}" for number in (3, 4, 5, 6)]
    assert verdict.sentence().endswith("2 events are accounted for; lines that are no events: 4")


@pytest.mark.parametrize("line", [0, 2, -2, -1])
@pytest.mark.parametrize("damage", ["\0" * 40, '{"id":"e1","vehicle_pl', "{}"])
def test_a_damaged_line_of_a_journal_is_not_said_to_be_nothing_lost(day: Day, line: int, damage: str) -> None:
    day.publish([])
    day.summarise([])
    lines = ['{"confirmed": 0}', entered("e1", "A").to_json(), '{"confirmed": 1}']
    lines.insert(line if line >= 0 else len(lines) + 1 + line, damage)
    day.journals[0].write_text("".join(f"{each}\n" for each in lines), encoding="utf-8")
    verdict = day.verdict()
    assert not verdict.ok
    assert (verdict.rejected, verdict.damaged, verdict.to_dict()["damaged"]) == (1, 1, 1)
    assert verdict.sentence() == "damaged lines in journals: 1, whose events cannot be accounted for"


def test_a_line_with_the_times_of_both_is_what_the_others_of_its_file_are(day: Day) -> None:
    events = [exited("x1", "A", 1), exited("x2", "B", 5, entry_date_time=at(2))]
    day.publish([entered("e2", "B", 2), *events])
    day.summarise([StaySummary.of_stay("x2", "B", at(2), at(5))])
    assert day.verdict().ok


def test_torn_last_lines_are_left_out(day: Day) -> None:
    day.publish(stays(3))
    for journal in day.journals:
        with journal.open("a") as file:
            file.write('{"id":"e9","vehicle_plate":"TORN","entry_da')
    day.summarise(summaries_of(stays(3)))
    with day.csv.open("a") as file:
        file.write(f"x9,TORN,{at(0)},{at(5)},0.00000")
    verdict = day.verdict()
    assert verdict.ok
    assert (verdict.rejected, verdict.sinks[0].rows) == (0, 3)


def test_lines_of_the_csv_that_are_no_summaries_are_unexpected(day: Day) -> None:
    day.publish(stays(1))
    day.summarise(summaries_of(stays(1)))
    with day.csv.open("a") as file:
        file.write("written by hand\r\n")
    verdict = day.verdict()
    assert wrongs(verdict) == (0, 0, 1)
    assert close(verdict)
    assert verdict.findings["lines that are no summaries, http-csv"] == ["written by hand"]


def test_every_sink_that_can_be_read_back_is_judged_by_itself(day: Day) -> None:
    rows = summaries_of(stays(4))
    day.publish(stays(4))
    day.summarise(rows)
    sinks = {name: day.folder / name for name in ("csv", "jsonl", "sqlite")}
    write_csv(sinks["csv"], rows[1:])
    write_lines(sinks["jsonl"], [*rows, rows[0]])
    write_database(sinks["sqlite"], summaries_of(stays(5)))
    environ = {"CARPARK_SINKS": ",".join(sinks)} | {f"CARPARK_SINK_{name.upper()}": str(sinks[name]) for name in sinks}
    verdict = day.verdict(sinks=day.sinks | Plugins((), environ).read_back(load_settings(environ)))
    assert [(sink.lost, sink.duplicated, sink.unexpected) for sink in verdict.sinks] == [
        (0, 0, 0),
        (1, 0, 0),
        (0, 1, 0),
        (0, 0, 1),
    ]
    assert close(verdict)


def test_earlier_stays_are_left_out_on_request(day: Day) -> None:
    day.publish(stays(4))
    day.summarise([*summaries_of(stays(4))[2:], StaySummary.of_stay("old", "OLD", at(0), at(5))])
    verdict = day.verdict(since=at(27))
    assert verdict.ok
    assert (verdict.earlier, verdict.sinks[0].rows) == (2, 2)
    assert wrongs(day.verdict()) == (2, 0, 1)


def test_a_file_that_is_something_else_is_named(day: Day) -> None:
    day.publish(stays(1))
    day.csv.write_text("a,b\n")
    with pytest.raises(InvalidSetting, match=r"the file of summaries=.*wanted the header id,vehicle_plate"):
        day.verdict()
    with pytest.raises(InvalidSetting, match=r"--journal=.*wanted a file that can be read"):
        day.verdict(journals=[day.folder / "nothing"])
