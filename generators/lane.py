"""A camera at work: its schedule, its journal, and the numbers of its day."""

from __future__ import annotations

import math
from dataclasses import dataclass

from carpark.errors import ConfigurationError
from generators.cameras import Camera, Seen, Wait
from generators.journal import Journal
from generators.metrics import CameraMetrics
from generators.schedule import Schedule

POLL_SECONDS = 0.05
"""How soon a camera that waits looks again, where others may have changed the lot."""


@dataclass
class Tally:
    """The numbers of one camera in one run."""

    published: int = 0
    matched: int = 0
    resent: int = 0
    waits: int = 0
    waited: float = 0.0
    late: float = 0.0
    latest: float = 0.0
    not_made: int = 0
    waiting: str = ""


class Lane:
    """One camera with all that belongs to it."""

    def __init__(
        self,
        camera: Camera,
        schedule: Schedule,
        *,
        journal: Journal | None = None,
        events: int | None = None,
        metrics: CameraMetrics | None = None,
    ) -> None:
        self.camera, self.schedule, self.journal, self.metrics = camera, schedule, journal, metrics
        self.tally = Tally()
        self._left = math.inf if events is None else events - (journal.count if journal else 0)
        self._wait: Wait | None = None
        self._looked = 0.0
        self._retry = 0.0
        self._polls = False

    @property
    def done(self) -> bool:
        """Whether it has made as many events as it shall."""
        return self._left <= 0

    @property
    def next_look(self) -> float:
        """When to look next, on the monotonic clock; infinite if something else must happen first."""
        return self._retry if self._wait else self.schedule.due

    def look(self, now: float) -> Seen | Wait:
        """Look for the next vehicle."""
        found = self.camera.look()
        if self._wait and self._polls:
            self._count_wait(now - self._looked)
        self._looked = now
        if isinstance(found, Wait):
            self._block(found, now)
        else:
            self._wait = None
            self.tally.waiting = ""
            self._left -= 1
            self.tally.late = max(0.0, now - self.schedule.due)
            self.tally.latest = max(self.tally.latest, self.tally.late)
            if self.metrics:
                self.metrics.late(self.tally.late)
            self.schedule.advance()
        return found

    def changed(self, at: float) -> None:
        """Hear that another camera of this process let somebody in or out."""
        if self._wait and self._retry == math.inf:
            self._count_wait(at - self.schedule.due)
            self._retry = self.schedule.due

    def overdue(self, until: float) -> int:
        """Count the events that were due before a time and are not made; a camera that waits has none."""
        return 0 if self._wait else int(min(self._left, self.schedule.overdue(until)))

    def end(self, until: float) -> None:
        """Count what is left when no more events are made: those due, or the wait that lasted until the end."""
        self.tally.not_made = self.overdue(until)
        if self._wait:
            self._count_wait(until - (self._looked if self._polls else self.schedule.due))

    def forward(self) -> None:
        """Go on in the seed's sequences where the journal's earlier run stopped."""
        if self.journal and not self.camera.forward(self.journal.plates()):
            raise ConfigurationError(
                f"--journal={str(self.journal.path)!r} was not written with this --seed, plate generator and match "
                "ratio; give those of its first run, leave out --seed, or choose a new journal"
            )

    def close(self) -> None:
        """Close the journal, if there is one."""
        if self.journal:
            self.journal.close()

    def _block(self, wait: Wait, now: float) -> None:
        if not self._wait:
            self.tally.waits += 1
        self._wait = wait
        self.tally.waiting = wait.text
        self._polls = self.camera.lot.shared or wait.again
        self._retry = now + POLL_SECONDS if self._polls else math.inf

    def _count_wait(self, seconds: float) -> None:
        seconds = max(0.0, seconds)
        self.schedule.shift(seconds)
        self.tally.waited += seconds
        if self.metrics and self._wait:
            self.metrics.waited(self._wait.reason, seconds)
