"""What a generator prints: one updating line in a terminal, a line every few seconds elsewhere, one at the end."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import TextIO

from carpark.domain.events import VehicleExited
from carpark.services import SERVICES
from generators.clock import Clock
from generators.lane import Lane
from generators.service import Watcher

_TERMINAL_SECONDS = 0.2
_LOG_SECONDS = 5.0


class Console(Watcher):
    """Prints how a run goes."""

    def __init__(self, out: TextIO, clock: Clock) -> None:
        self._out, self._clock = out, clock
        self._terminal = out.isatty()
        self._pause = _TERMINAL_SECONDS if self._terminal else _LOG_SECONDS
        self._started = self._last = clock.monotonic()
        self._last_published = 0
        self._drawn = False

    def say(self, line: str) -> None:
        """Print a line."""
        self._erase()
        print(line, file=self._out, flush=True)

    def progress(self, lanes: Sequence[Lane]) -> None:
        """Print how many events there are by now, if it is time for that."""
        now = self._clock.monotonic()
        if now - self._last < self._pause:
            return
        published = sum(lane.tally.published for lane in lanes)
        rate = (published - self._last_published) / (now - self._last)
        self._last, self._last_published = now, published
        line = "; ".join(self._state(lane) for lane in lanes) + f", {rate:.1f}/s now"
        if self._terminal:
            self._erase()
            width = shutil.get_terminal_size().columns
            print(line[: width - 1], end="", file=self._out, flush=True)
            self._drawn = True
        else:
            self.say(line)

    def end(self, lanes: Sequence[Lane]) -> None:
        """Print the last line."""
        seconds = self._clock.monotonic() - self._started
        for lane in lanes:
            tally = lane.tally
            parts = [
                self._state(lane, final=True),
                f"in {seconds:.1f} s ({tally.published / max(seconds, 1e-9):.1f}/s)",
            ]
            if tally.resent:
                parts.append(f"{tally.resent} of an earlier run sent again")
            parts.append(f"waited {tally.waited:.1f} s, at most {tally.latest:.2f} s late")
            if tally.not_made:
                parts.append(f"{tally.not_made} were due and not made in time")
            self.say("; ".join(parts))

    def _state(self, lane: Lane, *, final: bool = False) -> str:
        tally = lane.tally
        parts = [f"{SERVICES[lane.camera.kind].title}: {tally.published} published"]
        if lane.camera.kind == VehicleExited.kind and tally.published:
            parts.append(f"{tally.matched} matched ({tally.matched / tally.published:.1%})")
        if not final and tally.waiting:
            parts.append(f"waiting: {tally.waiting}")
        elif not final and tally.late > 1:
            parts.append(f"{tally.late:.1f} s late")
        return ", ".join(parts)

    def _erase(self) -> None:
        if self._drawn:
            print("\r\x1b[K", end="", file=self._out)
            self._drawn = False
