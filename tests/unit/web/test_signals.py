"""What SIGTERM and Ctrl-C do, once and again."""

from __future__ import annotations

import signal
import threading

import pytest

from carpark.web.signals import on_signal
from tests.support.processes import Processes

BOTH = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])

HANGS = """
import signal, time
from carpark.web.signals import on_signal
with on_signal(lambda: print("asked", flush=True)):
    print("ready", flush=True)
    while True:
        time.sleep(60)
"""


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]


@BOTH
def test_the_first_asks_the_others_go_on_and_then_all_is_as_before(number: signal.Signals) -> None:
    before, asked, further = handlers(), threading.Event(), list[int]()
    with on_signal(asked.set, lambda number, _: further.append(number)):
        assert not asked.is_set()
        signal.raise_signal(number)
        assert asked.is_set()
        assert further == []
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert further == [signal.SIGINT, signal.SIGTERM]
    assert handlers() == before


@BOTH
def test_what_the_first_raises_ends_the_block(number: signal.Signals) -> None:
    before = handlers()

    def end() -> None:
        raise LookupError

    with pytest.raises(LookupError), on_signal(end):
        signal.raise_signal(number)
    assert handlers() == before


@BOTH
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_one_ends_a_process_that_hangs(
    processes: Processes, number: signal.Signals, second: signal.Signals
) -> None:
    process = processes.start(["python", "-c", HANGS])
    process.wait_for_line("ready")
    process.signal(number)
    process.wait_for_line("asked")
    process.signal(second)
    assert process.wait() == -second
