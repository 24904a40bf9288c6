"""What the records keep of summaries that a sink has not got, and the counts."""

from __future__ import annotations

import pytest
import redis

from carpark.events import Event
from carpark.records import Outcome, Recorded, Records, Settled
from tests.integration.records.conftest import RETENTION, SINKS, Clock
from tests.stays import entered, exited


class TestUndelivered:
    """A summary is remembered until every sink has it."""

    def test_a_repeat_hands_the_summary_out_again_to_the_sinks_without_it(self, records: Records) -> None:
        stay: list[Event] = [entered("e1"), exited("x1")]
        recorded = records.record(stay)[1]
        records.settle("http-csv", [recorded.key], Settled.DELIVERED)
        again = records.record(stay)
        assert again == [
            Recorded("entry/e1", Outcome.DUPLICATE),
            Recorded("exit/x1", Outcome.DUPLICATE, recorded.summary, ("sqlite",)),
        ]
        records.settle("sqlite", [recorded.key], Settled.DELIVERED)
        assert records.record(stay)[1] == Recorded("exit/x1", Outcome.DUPLICATE)
        assert records.undelivered() == 0

    def test_the_event_that_came_second_is_the_one_that_hands_it_out(self, records: Records) -> None:
        recorded = records.record([exited("x1"), entered("e1")])[1]
        again = records.record([exited("x1"), entered("e1")])
        assert [effect.summary for effect in again] == [None, recorded.summary]

    @pytest.mark.parametrize("outcome", [Settled.RETRIED, Settled.FAILED])
    def test_what_has_a_message_of_its_own_is_not_handed_out_again(self, records: Records, outcome: Settled) -> None:
        stay: list[Event] = [entered("e1"), exited("x1")]
        key = records.record(stay)[1].key
        assert records.settle("http-csv", [key], outcome) == 1
        assert records.record(stay)[1].sinks == ("sqlite",)
        assert records.undelivered() == 2

    def test_each_is_counted_once_for_each_thing_that_became_of_it(self, client: redis.Redis, records: Records) -> None:
        keys = [
            effect.key
            for effect in records.record([entered("e1"), exited("x1"), exited("x2", "C1"), entered("e2", "C1")])
        ]
        keys = [keys[1], keys[3]]
        field = "http-csv/exit/x1"
        states, told = [], []
        for outcome in (Settled.RETRIED, Settled.RETRIED, Settled.FAILED, Settled.FAILED, Settled.RETRIED):
            told.append(records.settle("http-csv", keys, outcome))
            states.append(str(client.hget("carpark:undelivered", field)).split(" ")[0])
        assert states == ["queued", "queued", "dead", "dead", "queued"]
        assert told == [2, 0, 2, 0, 2]
        assert records.settle("http-csv", keys, Settled.DELIVERED) == 2
        assert records.settle("http-csv", keys, Settled.DELIVERED) == 0
        assert records.settle("http-csv", keys, Settled.FAILED) == 0
        counts = records.counts()
        assert {name: n for name, n in counts.items() if name.startswith("summaries")} == {
            "summaries": 2,
            "summaries/http-csv/retried": 4,
            "summaries/http-csv/failed": 2,
            "summaries/http-csv/delivered": 2,
        }
        assert records.undelivered() == 2

    def test_a_key_that_is_not_known_is_not_counted(self, records: Records) -> None:
        assert records.settle("http-csv", ["exit/never", "exit/seen"], Settled.DELIVERED) == 0
        assert records.settle("http-csv", [], Settled.DELIVERED) == 0
        assert records.counts() == {}

    def test_without_sinks_nothing_is_kept_for_them(self, client: redis.Redis, clock: Clock) -> None:
        records = Records(client, RETENTION, (), clock)
        recorded = records.record([entered("e1"), exited("x1")])
        assert recorded[1].outcome is Outcome.MATCHED
        assert recorded[1].summary
        assert records.undelivered() == 0


class TestCounts:
    """Each event counts once, in the step that records it."""

    def test_rejected_messages_are_counted_by_their_queue(self, records: Records) -> None:
        for kind in ("entry", "exit", "exit"):
            records.reject(kind)
        assert records.counts() == {"entry/rejected": 1, "exit/rejected": 2}

    def test_no_events_are_no_work(self, records: Records) -> None:
        assert records.record([]) == []
        assert not any(records.counts().values())

    def test_a_key_of_another_kind_spoils_only_the_events_of_its_plate(
        self, client: redis.Redis, records: Records
    ) -> None:
        client.set("SPOILT", "by hand")
        events: list[Event] = [entered("e1"), entered("e2", "SPOILT"), exited("x2", "SPOILT"), exited("x1")]
        recorded = records.record(events)
        assert [effect.outcome for effect in recorded] == [Outcome.RECORDED, None, None, Outcome.MATCHED]
        for effect in recorded[1:3]:
            assert "WRONGTYPE" in effect.error
            assert effect.summary is None
        counts = records.counts()
        assert counts == {"entry/recorded": 1, "exit/matched": 1, "summaries": 1}
        assert client.get("SPOILT") == "by hand"
        client.delete("SPOILT")
        assert [str(effect.outcome) for effect in records.record(events)] == [
            "duplicate",
            "recorded",
            "matched",
            "duplicate",
        ]


@pytest.mark.parametrize("retention", [1.0, 0.0001, 1e9])
def test_any_retention_is_one_that_the_store_takes(client: redis.Redis, retention: float) -> None:
    records = Records(client, retention, SINKS)
    recorded = records.record([entered("e1"), exited("x1", microseconds=1), exited("x2", "C1")])
    assert [effect.error for effect in recorded] == ["", "", ""]
