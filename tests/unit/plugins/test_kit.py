"""The kit for authors of plugins finds the mistakes that it is there for."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import unittest
from collections.abc import Sequence

import pytest

from carpark.domain.events import StaySummary
from carpark.errors import SummaryRefused
from carpark.plugins import PlateGenerator, Sink
from carpark.testing import PlatesConformance, SinkConformance, make_context, make_summaries, make_summary


class Memory(Sink):
    """Right in every way; the mistakes below are subclasses."""

    def __init__(self, case: MemoryCase) -> None:
        self.case = case

    def deliver(self, summaries: Sequence[StaySummary]) -> None:
        with self.case.lock:
            if self.case.broken:
                raise OSError("broken")
            for summary in summaries:
                if summary.id not in self.case.stored:
                    self.case.stored.append(summary.id)


class MemoryCase(SinkConformance):
    kind: type[Memory] = Memory

    def setup_method(self) -> None:
        super().setup_method()
        self.lock, self.broken = threading.Lock(), False
        self.stored: list[str] = []

    def make_sink(self) -> Sink:
        return self.kind(self)

    def stored_ids(self) -> list[str]:
        return self.stored

    def break_sink(self) -> None:
        self.broken = True

    def mend_sink(self) -> None:
        self.broken = False


def failures(case: type[SinkConformance] | type[PlatesConformance], prefix: str = "test_") -> dict[str, str]:
    """Run a suite, or those of its tests whose names begin so; the ones that failed, with what they said."""
    failed = {}
    for name in [name for name in dir(case) if name.startswith(prefix)]:
        try:
            run(case(), name)
        except unittest.SkipTest as skipped:
            failed[name] = f"skipped: {skipped}"
        except Exception as error:
            failed[name] = str(error)
    return failed


def run(one: SinkConformance | PlatesConformance, name: str) -> None:
    """Run one test as pytest does."""
    if isinstance(one, PlatesConformance):
        getattr(one, name)()
        return
    one.setup_method()
    try:
        getattr(one, name)()
    finally:
        one.teardown_method()


class Forgetful(Memory):
    """Stores a repeat again."""

    def deliver(self, summaries: Sequence[StaySummary]) -> None:
        self.case.stored += [summary.id for summary in summaries]


class FirstOnly(Memory):
    """Takes only the first of a list."""

    def deliver(self, summaries: Sequence[StaySummary]) -> None:
        super().deliver(summaries[:1])


class Silent(Memory):
    """Swallows its failures."""

    def deliver(self, summaries: Sequence[StaySummary]) -> None:
        if not self.case.broken:
            super().deliver(summaries)


class Refusing(Memory):
    """Condemns what it could take later."""

    def deliver(self, summaries: Sequence[StaySummary]) -> None:
        if self.case.broken:
            raise SummaryRefused("broken")
        super().deliver(summaries)


class Hasty(Memory):
    """Notes the ids of a list before it knows that the list is stored."""

    def __init__(self, case: MemoryCase) -> None:
        super().__init__(case)
        self.seen: set[str] = set()

    def deliver(self, summaries: Sequence[StaySummary]) -> None:
        new = [summary for summary in summaries if summary.id not in self.seen]
        self.seen |= {summary.id for summary in new}
        super().deliver(new)


class KnowsOnlyItself(Memory):
    """Compares with what this object stored, not with what is stored."""

    def __init__(self, case: MemoryCase) -> None:
        super().__init__(case)
        self.seen: set[str] = set()

    def deliver(self, summaries: Sequence[StaySummary]) -> None:
        with self.case.lock:
            if self.case.broken:
                raise OSError("broken")
            for summary in summaries:
                if summary.id not in self.seen:
                    self.seen.add(summary.id)
                    self.case.stored.append(summary.id)


class CaseBlind(Memory):
    """Has the collation of many a database."""

    def deliver(self, summaries: Sequence[StaySummary]) -> None:
        known = {id_.lower().rstrip() for id_ in self.case.stored}
        super().deliver([summary for summary in summaries if summary.id.lower().rstrip() not in known][:1])
        for summary in summaries:
            if summary.id.lower().rstrip() not in {id_.lower().rstrip() for id_ in self.case.stored}:
                super().deliver([summary])


class OneAtATime(Memory):
    """Cannot be called by two threads at once."""

    calls = 0

    def deliver(self, summaries: Sequence[StaySummary]) -> None:
        self.calls += 1
        try:
            if self.calls > 1:
                raise RuntimeError("called by two threads")
            threading.Event().wait(0.05)  # a delivery that takes its time
            super().deliver(summaries)
        finally:
            self.calls -= 1


class ClosesOnce(Memory):
    """Stumbles over the second close."""

    closed = False

    def close(self) -> None:
        if self.closed:
            raise RuntimeError("closed already")
        self.closed = True


def test_a_sink_that_is_right_passes_everything() -> None:
    assert failures(MemoryCase) == {}


@pytest.mark.parametrize(
    ("kind", "test", "said"),
    [
        (Forgetful, "test_the_same_summary_twice_is_stored_once", "stored more than once: ["),
        (Forgetful, "test_a_repeat_within_a_list_is_stored_once", "stored more than once: ["),
        (FirstOnly, "test_a_list_is_stored_whole", "not stored: ["),
        (Silent, "test_a_failure_is_said_and_the_retry_stores_everything_once", "the summaries would be lost"),
        (Refusing, "test_a_failure_is_said_and_the_retry_stores_everything_once", "refused for good"),
        (Hasty, "test_a_sink_that_fails_again_and_again_loses_nothing_when_it_recovers", "not stored: ["),
        (KnowsOnlyItself, "test_what_was_stored_is_known_after_a_restart", "stored more than once: ["),
        (KnowsOnlyItself, "test_two_sinks_over_one_place_store_each_summary_once", "stored more than once: ["),
        (CaseBlind, "test_ids_that_differ_only_in_case_or_by_a_space_are_two", "not stored: ["),
        (OneAtATime, "test_concurrent_calls_store_each_summary_once", "concurrent calls failed"),
        (ClosesOnce, "test_closing_twice_is_harmless", "closed already"),
    ],
)
def test_a_mistake_in_a_sink_is_found_and_said(kind: type[Memory], test: str, said: str) -> None:
    case = type("Case", (MemoryCase,), {"kind": kind})
    assert said in failures(case, test)[test]


def test_a_suite_that_lacks_a_method_says_which() -> None:
    class Nothing(SinkConformance):
        pass

    assert set(failures(Nothing).values()) == {"Nothing has to define make_sink()"}


def test_without_a_way_to_break_the_sink_only_the_tests_of_failure_are_skipped() -> None:
    class Unbreakable(MemoryCase):
        break_sink = SinkConformance.break_sink

    found = failures(Unbreakable)
    assert len(found) == 2
    assert set(found.values()) == {"skipped: Unbreakable does not define break_sink() and mend_sink()"}


class Plates(PlateGenerator):
    """Right in every way; the mistakes below are subclasses."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance

    def sample(self) -> str:
        return f"A-{self.chance.randrange(10**6):06}"

    def is_valid(self, plate: str) -> bool:
        text = plate.replace("-", "")
        return text.isascii() and len(text) == 7 and text[0] == "A" and text[1:].isdigit()


class OnlyWritten(Plates):
    """Does not know its own plates in canonical form."""

    def is_valid(self, plate: str) -> bool:
        return "-" in plate and super().is_valid(plate)


class OwnChance(Plates):
    """Throws its own dice."""

    def sample(self) -> str:
        return f"A-{random.randrange(10**6):06}"


class SharedChance(Plates):
    """Has one set of dice for all its objects."""

    dice = random.Random(5)

    def sample(self) -> str:
        return f"A-{self.dice.randrange(10**6):06}"


class Few(Plates):
    """Does not say that it has only a few."""

    def sample(self) -> str:
        return f"A-{self.chance.randrange(9):06}"


class FewerThanSaid(Few):
    """Says that it has more than it has."""

    population = 12


class Raises(Plates):
    """Raises where it should say no."""

    def is_valid(self, plate: str) -> bool:
        return plate[0] == "A" and super().is_valid(plate)


class TakesAll(Plates):
    """Says yes to anything."""

    def is_valid(self, plate: str) -> bool:
        return True


class NoPlates(Plates):
    """Makes what no camera could read."""

    def sample(self) -> str:
        return f"A\n{self.chance.randrange(10**6):06}"


def test_a_generator_that_is_right_passes_everything() -> None:
    assert failures(type("Case", (PlatesConformance,), {"make_plates": lambda self, chance: Plates(chance)})) == {}


@pytest.mark.parametrize(
    ("kind", "test", "said"),
    [
        (OnlyWritten, "test_every_sample_is_a_plate_and_valid_as_written_and_in_canonical_form", "canonical form of"),
        (NoPlates, "test_every_sample_is_a_plate_and_valid_as_written_and_in_canonical_form", r"got '\n'"),
        (OwnChance, "test_chance_that_others_use_is_left_alone", "drew from the random module"),
        (OwnChance, "test_a_seed_fixes_the_plates", "one seed gave two sequences"),
        (SharedChance, "test_two_generators_do_not_disturb_each_other", "do they share their chance?"),
        (Few, "test_the_population_is_as_large_as_it_says", "say how many there are with `population`"),
        (FewerThanSaid, "test_the_population_is_as_large_as_it_says", "population is 12, but 240 samples held 9"),
        (Raises, "test_is_valid_refuses_what_is_no_plate_at_all", "string index out of range"),
        (TakesAll, "test_is_valid_refuses_what_is_no_plate_at_all", "is_valid() takes"),
    ],
)
def test_a_mistake_in_a_generator_is_found_and_said(kind: type[Plates], test: str, said: str) -> None:
    case = type("Case", (PlatesConformance,), {"make_plates": lambda self, chance: kind(chance)})
    assert said in failures(case, test)[test]


def test_made_summaries_differ_and_are_summaries() -> None:
    summaries = [*make_summaries(100), make_summary(), make_summary()]
    assert len({summary.id for summary in summaries}) == 102
    for summary in summaries:
        assert StaySummary.parse(summary.to_dict()) == summary


def test_a_made_context_has_the_given_settings_and_not_those_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARPARK_RATE", "99")
    context = make_context({"CARPARK_SINKS": "csv", "MINE": "1"})
    assert (context.settings.sinks, context.settings.rate, context.environ["MINE"]) == (("csv",), 5, "1")


def test_the_kit_does_not_import_pytest_and_carpark_does_not_import_the_kit() -> None:
    source = (
        "import sys, carpark.plugins; print('carpark.testing' in sys.modules)\n"
        "import carpark.testing; print('pytest' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout == "False\nFalse\n"
