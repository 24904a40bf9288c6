"""Places at which a process ends itself, so that a test can crash it exactly there.

``CARPARK_TEST_FAILPOINTS=after-record:3`` ends it when it gets there for the third time. The variable is read once,
when the process boots. Where it is not set, passing a failpoint calls a function that does nothing.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Mapping

from carpark.errors import InvalidSetting

VARIABLE = "CARPARK_TEST_FAILPOINTS"

NAMES = {
    "before-record": "a worker has events in hand and nothing of them is recorded",
    "after-record": "events are recorded that finish stays, and no sink has heard of the summaries",
    "after-sink": "the sinks have the summaries, and the records do not know yet",
    "before-ack": "all is done, and RabbitMQ does not know yet",
    "writer-received": "the writer, or a sink with a file, has a list, and nothing of it is in the file",
    "writer-written": "the list is in the file, and nobody has been told",
}
"""Every failpoint, and what is true there."""

Failpoint = Callable[[str], None]
"""Says that a place has been reached."""


def failpoints(environ: Mapping[str, str] | None = None) -> Failpoint:
    """Read which places are to be fatal."""
    text = (os.environ if environ is None else environ).get(VARIABLE, "")
    if not text:
        return lambda name: None
    armed: dict[str, int] = {}
    for part in text.split(","):
        name, _, count = part.partition(":")
        if name not in NAMES or not count.isdigit() or not int(count):
            raise InvalidSetting(VARIABLE, text, f"name:n with one of {', '.join(NAMES)}")
        armed[name] = int(count)
    counters = {name: itertools.count(1) for name in armed}

    def reached(name: str) -> None:
        # next() of a counter is one step for all threads.
        if name in armed and next(counters[name]) == armed[name]:
            os.write(2, f"failpoint {name}: killed\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)

    return reached
