"""SIGTERM and Ctrl-C: the first asks a process to end, the second ends it."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def on_signal(
    first: Callable[[], object],
    further: Callable[[int, FrameType | None], object] | signal.Handlers = signal.SIG_DFL,
) -> Iterator[None]:
    """Heed SIGTERM and SIGINT while the block lasts; then the handlers of before are back."""

    def ask(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, further)
        first()

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for number in before:
            signal.signal(number, ask)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
