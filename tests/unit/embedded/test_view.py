"""What ``carpark run`` shows while it runs."""

from __future__ import annotations

import io
import logging

from rich.console import Console

from carpark.domain.events import StaySummary
from carpark.domain.report import Report
from carpark.embedded.system import Snapshot
from carpark.embedded.view import View
from tests.support.stays import at


def snapshot(seconds: float = 2.0, **counts: int) -> Snapshot:
    return Snapshot(
        seconds=seconds,
        report=Report.of_counts(
            {"entry/recorded": 120, "exit/matched": 80, "exit/unmatched": 20, "summaries": 80, **counts},
            published=220,
            inside=40,
            dead=3,
        ),
        ready={"vehicle_entry": 7, "vehicle_exit": 0},
        undelivered={"http-csv": 5, "jsonl": 0},
        latest=[StaySummary.of_stay("x1", "SGM6322E", at(0), at(1_500_000))],
        waiting=["entry: the car park is full"],
    )


def drawn(width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    view = View(console, snapshot)
    with console.capture() as capture:
        console.print(view._draw())
    return capture.get()


def test_in_a_terminal_there_is_a_panel_with_everything() -> None:
    for width in (60, 80, 200):
        text = drawn(width)
        for part in (
            "40",
            "220",
            "110.0/s",
            "40.0/s",
            "7 waiting",
            "5 not yet delivered",
            "SGM6322E",
            "1.5",
            "dead letters: 3",
        ):
            assert part in text
        assert "entry: the car park is full" in text
        assert max(len(line) for line in text.splitlines()) < width - 2, "^C behind the last line has to fit"


def test_elsewhere_there_are_lines_and_warnings_among_them() -> None:
    stream = io.StringIO()
    with View(Console(file=stream, width=80), snapshot) as view:
        view._last -= 10
        view.progress([])
        view.progress([])
        view.say("entry camera waits: [full]")
        logging.getLogger("carpark.test").warning("sink %s fails", "[x]")
        logging.getLogger("carpark.test").info("nothing to see")
    assert stream.getvalue().splitlines() == [
        "   2.0 s  published 220 (110/s)  inside 40  matched 80 (40/s)  unmatched 20  waiting in queues 7  "
        "not yet delivered 5",
        "entry camera waits: [full]",
        "warning: sink [x] fails",
    ]
