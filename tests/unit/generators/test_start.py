"""What signals do to a generator that is a service of its own."""

import signal
import threading

import pytest

from carpark.web.signals import on_signal
from generators.start import _interrupt


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_after_the_first_signal_ctrl_c_interrupts_and_sigterm_says_nothing_new(first: signal.Signals) -> None:
    stop = threading.Event()
    with on_signal(stop.set, _interrupt):
        signal.raise_signal(first)
        assert stop.is_set()
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
