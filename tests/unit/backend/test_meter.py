"""What the backend counts and times."""

from __future__ import annotations

import time

import pytest
from prometheus_client import CollectorRegistry, Histogram

from carpark.backend.meter import BUCKETS, OUTCOMES, Meter
from carpark.records import Outcome, Recorded, Settled
from carpark.telemetry.histograms import observe


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def meter(registry: CollectorRegistry) -> Meter:
    meter = Meter(("http-csv", "sqlite"))
    meter.start(registry)
    return meter


def value(registry: CollectorRegistry, name: str, **labels: str) -> float:
    found = registry.get_sample_value(name, labels)
    assert found is not None, f"{name} {labels} is not shown"
    return found


def test_every_event_counts_by_its_outcome(meter: Meter, registry: CollectorRegistry) -> None:
    effects = [Recorded("entry/1", Outcome.RECORDED), Recorded("entry/2", Outcome.RECORDED, abandoned=True)]
    effects += [Recorded("entry/3", Outcome.DUPLICATE), Recorded("entry/4", None, error="WRONGTYPE")]
    meter.recorded("entry", effects, [None] * 4)
    meter.rejected("vehicle_exit", 2)
    found = {
        (event, str(outcome)): value(registry, "go_backend_events_total", event=event, outcome=str(outcome))
        for event, outcomes in OUTCOMES.items()
        for outcome in outcomes
    }
    assert {labels: count for labels, count in found.items() if count} == {
        ("entry", "recorded"): 2,
        ("entry", "abandoned"): 1,
        ("entry", "duplicate"): 1,
        ("exit", "rejected"): 2,
    }


def test_latency_is_of_the_events_that_say_when_they_were_sent(meter: Meter, registry: CollectorRegistry) -> None:
    now = time.time()
    effects = [Recorded(f"exit/{number}", Outcome.UNMATCHED) for number in range(4)]
    meter.recorded("exit", effects, [now - 3, None, now + 3600, now - 3])
    latency = "go_backend_event_latency_seconds"
    assert value(registry, f"{latency}_count", event="exit") == 3
    assert value(registry, f"{latency}_bucket", event="exit", le="0.001") == 1, "a clock that is ahead counts as none"
    assert 6 <= value(registry, f"{latency}_sum", event="exit") < 30
    assert value(registry, f"{latency}_count", event="entry") == 0


def test_events_that_were_worked_on_together_each_took_as_long(meter: Meter, registry: CollectorRegistry) -> None:
    meter.processed("entry", 40, 0.02)
    assert value(registry, "go_backend_event_processing_seconds_count", event="entry") == 40
    assert value(registry, "go_backend_event_processing_seconds_sum", event="entry") == pytest.approx(0.8)
    assert value(registry, "go_backend_event_processing_seconds_bucket", event="entry", le="0.01") == 0
    assert value(registry, "go_backend_event_processing_seconds_bucket", event="entry", le="0.025") == 40


def test_summaries_are_counted_and_deliveries_timed_per_sink(meter: Meter, registry: CollectorRegistry) -> None:
    meter.delivery("sqlite", 0.5, failed=True)
    meter.delivery("sqlite", 0.5, failed=False)
    meter.settled("sqlite", Settled.RETRIED, 3)
    meter.settled("sqlite", Settled.DELIVERED, 0)
    assert value(registry, "go_backend_delivery_failures_total", sink="sqlite") == 1
    assert value(registry, "go_backend_delivery_failures_total", sink="http-csv") == 0
    assert value(registry, "go_backend_summary_delivery_seconds_count", sink="sqlite") == 2
    assert value(registry, "go_backend_summaries_total", sink="sqlite", outcome="retried") == 3
    assert value(registry, "go_backend_summaries_total", sink="http-csv", outcome="failed") == 0


def test_a_meter_that_is_not_started_does_nothing() -> None:
    meter = Meter(("http-csv",))
    meter.recorded("entry", [Recorded("entry/1", Outcome.RECORDED)], [1.0])
    meter.processed("entry", 1, 0.1)
    meter.rejected("vehicle_entry")
    meter.delivery("http-csv", 0.1, failed=True)
    meter.settled("http-csv", Settled.FAILED, 1)


def test_many_values_fall_into_the_buckets_that_each_would_fall_into(registry: CollectorRegistry) -> None:
    values = [0.0, 0.001, 0.0011, 0.3, 0.5, 300, 301, 1e9, *BUCKETS]
    one_by_one, at_once = (Histogram(name, name, buckets=BUCKETS, registry=registry) for name in ("one", "all"))
    for each in values:
        one_by_one.observe(each)
    observe(at_once, values)
    samples = [[(s.name[3:], s.labels, s.value) for s in h.collect()[0].samples if "created" not in s.name]
               for h in (one_by_one, at_once)]  # fmt: skip
    assert samples[0] == samples[1]
