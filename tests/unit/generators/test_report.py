"""What a generator prints, and what its help says."""

from __future__ import annotations

import io
import random

import pytest
from click.testing import CliRunner

from generators.cameras import ExitCamera
from generators.chance import MatchSequence
from generators.cli import generate
from generators.clock import Stamps
from generators.lane import Lane
from generators.lot import LocalLot
from generators.report import Console
from generators.schedule import Schedule
from tests.support.generating import HandClock, ListPlates


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def lane(clock: HandClock) -> Lane:
    lot = LocalLot(0, random.Random(1))
    camera = ExitCamera(lot, ListPlates(["A"]), Stamps(clock), MatchSequence(0.8, random.Random(1)))
    return Lane(camera, Schedule(10, 0.0))


def test_elsewhere_than_in_a_terminal_there_is_a_line_every_five_seconds(clock: HandClock, lane: Lane) -> None:
    out = io.StringIO()
    console = Console(out, clock)
    for _ in range(12):
        clock.elapsed += 1
        lane.tally.published += 10
        lane.tally.matched += 8
        console.progress([lane])
    assert out.getvalue().splitlines() == [
        "exit generator: 50 published, 40 matched (80.0%), 10.0/s now",
        "exit generator: 100 published, 80 matched (80.0%), 10.0/s now",
    ]


def test_in_a_terminal_one_line_is_drawn_again_and_makes_way_for_others(clock: HandClock, lane: Lane) -> None:
    out = Terminal()
    console = Console(out, clock)
    for _ in range(2):
        clock.elapsed += 1
        console.progress([lane])
    console.say("RabbitMQ is back after 3.0 s")
    line = "exit generator: 0 published, 0.0/s now"
    assert out.getvalue() == f"{line}\r\x1b[K{line}\r\x1b[KRabbitMQ is back after 3.0 s\n"


def test_the_line_says_why_a_camera_waits_or_how_late_it_is(clock: HandClock, lane: Lane) -> None:
    out = io.StringIO()
    console = Console(out, clock)
    clock.elapsed += 5
    lane.tally.waiting = "nobody is inside"
    console.progress([lane])
    clock.elapsed += 5
    lane.tally.waiting, lane.tally.late = "", 12.34
    console.progress([lane])
    assert out.getvalue().splitlines() == [
        "exit generator: 0 published, waiting: nobody is inside, 0.0/s now",
        "exit generator: 0 published, 12.3 s late, 0.0/s now",
    ]


def test_the_last_line_has_all_the_numbers(clock: HandClock, lane: Lane) -> None:
    out = io.StringIO()
    console = Console(out, clock)
    clock.elapsed += 20
    tally = lane.tally
    tally.published, tally.matched, tally.resent, tally.not_made = 100, 80, 3, 7
    tally.waited, tally.latest = 1.25, 0.5
    console.end([lane])
    assert out.getvalue() == (
        "exit generator: 100 published, 80 matched (80.0%); in 20.0 s (5.0/s); 3 of an earlier run sent again; "
        "waited 1.2 s, at most 0.50 s late; 7 were due and not made in time\n"
    )


@pytest.mark.parametrize("kind", ["entry", "exit"])
def test_help_ends_in_examples_to_copy(kind: str) -> None:
    result = CliRunner().invoke(generate, [kind, "--help"])
    assert result.exit_code == 0
    examples = result.output.partition("Examples:")[2].strip().splitlines()
    assert len(examples) >= 3
    assert all(example.strip().startswith(f"carpark generate {kind}") for example in examples)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--events", "-1"],
        ["--duration", "0"],
        ["--duration", "nan"],
        ["--duration", "inf"],
        ["--rate", "0"],
        ["--match-ratio", "2"],
    ],
)
def test_a_wrong_number_is_refused(arguments: list[str]) -> None:
    assert CliRunner().invoke(generate, ["exit", *arguments]).exit_code != 0
