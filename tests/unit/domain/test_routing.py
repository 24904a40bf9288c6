"""Partitions: which queue an event goes to, and what the queues are called."""

from __future__ import annotations

import json
import zlib
from collections import Counter

import pytest
from dramatiq.common import dq_name, q_name, xq_name
from hypothesis import given
from hypothesis import strategies as st

from carpark.broker.reading import EventMessage, RejectedMessage, read_body
from carpark.domain.events import VehicleEntered, VehicleExited
from carpark.domain.routing import event_of, event_queues, is_event_queue, partition_of, partition_queue, queue_for
from carpark.rabbitmq.topology import SINGLE_ACTIVE, all_queues, queue_arguments, with_companions
from carpark.settings.model import MOST_PARTITIONS
from generators.wire import message_body
from tests.support.stays import entered, exited


def test_a_single_partition_is_the_two_queues_with_the_plain_names() -> None:
    assert event_queues(1) == ("vehicle_entry", "vehicle_exit")
    assert all_queues(1) == ("vehicle_entry", "vehicle_exit", "carpark_work")


def test_further_ones_stand_beside_the_plain_name() -> None:
    assert event_queues(3) == (
        *("vehicle_entry", "vehicle_entry.1", "vehicle_entry.2"),
        *("vehicle_exit", "vehicle_exit.1", "vehicle_exit.2"),
    )
    assert with_companions("vehicle_exit.2") == ("vehicle_exit.2", "vehicle_exit.2.DQ", "vehicle_exit.2.XQ")


def test_dramatiq_takes_no_partition_for_a_companion_of_another_queue() -> None:
    names = [name for queue in all_queues(MOST_PARTITIONS) for name in with_companions(queue)]
    assert len(set(names)) == len(names) == 3 * (2 * MOST_PARTITIONS + 1)
    for queue in event_queues(MOST_PARTITIONS):
        assert q_name(queue) == q_name(dq_name(queue)) == q_name(xq_name(queue)) == queue


def test_every_partition_has_its_kind_its_number_and_a_single_active_consumer() -> None:
    for number in range(MOST_PARTITIONS):
        for event_type in (VehicleEntered, VehicleExited):
            queue = partition_queue(event_type.queue, number)
            assert is_event_queue(queue)
            assert (event_of(queue), partition_of(queue)) == (event_type, number)
            arguments = queue_arguments(queue)
            assert arguments[SINGLE_ACTIVE] is True
            assert arguments["x-dead-letter-routing-key"] == f"{queue}.XQ"


@pytest.mark.parametrize(
    "name",
    [
        *("vehicle_entry.DQ", "vehicle_entry.1.XQ", "vehicle_entry.migrating", "vehicle_entry.1.migrating"),
        *("vehicle_entry.", "vehicle_entry.0", "vehicle_entry.01", "vehicle_entry.x", "vehicle_entry.1.2", ""),
        *("carpark_work", "vehicle_events", "other.1", "vehicle_entry.-1", "vehicle_entry.1\n"),
    ],
)
def test_what_is_called_otherwise_is_no_queue_of_events(name: str) -> None:
    assert not is_event_queue(name)
    assert SINGLE_ACTIVE not in queue_arguments(name)


@given(st.text(min_size=1, max_size=24), st.integers(1, MOST_PARTITIONS))
def test_the_choice_is_the_crc_32_of_the_plate_and_the_same_for_entry_and_exit(plate: str, partitions: int) -> None:
    fields = {"id": "1", "vehicle_plate": plate}
    chosen = zlib.crc32(plate.encode("utf-8", "surrogatepass")) % partitions
    for event in (
        VehicleEntered.model_construct(**fields, entry_date_time=""),
        VehicleExited.model_construct(**fields, exit_date_time=""),
    ):
        if plate.isprintable():
            assert queue_for(event, partitions) == partition_queue(event.queue, chosen)


def test_the_choice_is_that_of_other_languages_too() -> None:
    # As `printf BÄB123 | gzip -c | tail -c 8 | od -An -tu4 -N4` has it.
    event = entered("1", "b äb-123")
    assert event.vehicle_plate == "BÄB123"
    assert zlib.crc32("BÄB123".encode()) == 3690392336
    assert queue_for(event, 7) == partition_queue("vehicle_entry", 3690392336 % 7)
    assert queue_for(event, 1) == "vehicle_entry"


def test_plates_are_spread_evenly() -> None:
    counts = Counter(queue_for(entered("1", f"PLATE{n}"), 4) for n in range(4000))
    assert sorted(counts) == list(event_queues(4)[:4])
    assert min(counts.values()) > 800


@pytest.mark.parametrize("queue", ["vehicle_entry", "vehicle_entry.3", "vehicle_entry.63"])
def test_a_partition_takes_our_messages_and_bare_events_as_the_plain_queue_does(queue: str) -> None:
    event = entered("1", "A")
    for body in (message_body(event), event.to_json().encode()):
        read = read_body(queue, body)
        assert isinstance(read, EventMessage)
        assert read.event == event
        assert read.queue_name == read.actor_name == queue


@pytest.mark.parametrize("actor", ["vehicle_exit", "vehicle_entry.3", "carpark_work", "other"])
def test_a_partition_refuses_messages_to_another_actor(actor: str) -> None:
    body = {**json.loads(message_body(entered("1", "A"))), "actor_name": actor}
    read = read_body("vehicle_entry.3", json.dumps(body).encode())
    assert isinstance(read, RejectedMessage)
    assert read.error == "actor_name: wanted 'vehicle_entry' on this queue"
    assert isinstance(read_body("vehicle_entry.3", exited("1").to_json().encode()), RejectedMessage)
