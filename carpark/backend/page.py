"""The page on which the numbers of all worker processes are summed, shown by a process of its own.

Dramatiq's master runs `serve` beside the workers. When that process is killed, a worker process starts another one:
``python -m carpark.backend.page MASTER``, which ends with its standard input. Neither imports the actors; what is
needed is read anew from the environment.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from carpark.errors import ConfigurationError, NumbersMissing, RecordsUnavailable
from carpark.records import Records, open_records
from carpark.services import SERVICES
from carpark.settings import load_settings
from carpark.telemetry import folder
from carpark.telemetry.page import MetricsPage

if TYPE_CHECKING:
    from prometheus_client.core import GaugeMetricFamily
    from prometheus_client.metrics_core import Metric

PATIENCE = 0.5
"""Seconds that a scrape waits for the records; without an answer it does without their numbers."""


_NUMBERS = re.compile(r"(?:counter|histogram|summary|gauge_[a-z]+)_([0-9]+)\.db")
"""The names that prometheus_client gives to its files; the number is the process'."""


class ProcessNumbers:
    """The sums of what the processes of a master have counted, or an error. A collector for a registry."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: set[Path] = set()

    def collect(self) -> list[Metric]:
        """Add up the files."""
        from prometheus_client.multiprocess import MultiProcessCollector

        merge: Callable[[list[str]], list[Metric]] = MultiProcessCollector.merge
        files = [path for path in self._folder.glob("*.db") if _NUMBERS.fullmatch(path.name) and _has_numbers(path)]
        try:
            found = merge([str(path) for path in files])
        except Exception:  # whatever prometheus_client makes of a file that is torn, or none of its own
            torn = [path for path in files if _is_torn(path, merge)]
            _remove(torn)
            said = ", ".join(path.name for path in torn)
            raise NumbersMissing(f"numbers that cannot be read were removed: {said}; ask again in a moment") from None
        gone = [path for path in sorted(self._read.difference(files)) if _lives(path)]
        if gone or not files:
            _remove(gone)
            said = ", ".join(path.name for path in gone) or "no process has any"
            raise NumbersMissing(f"numbers are missing in {self._folder}: {said}; ask again in a moment")
        self._read = set(files)
        return found


def _remove(files: Iterable[Path]) -> None:
    """Take files away that cannot be right: the process that has them in its memory writes them again."""
    for path in files:
        with suppress(OSError):
            path.unlink()


def _has_numbers(path: Path) -> bool:
    """Tell whether a file says that there is something in it: how much of it is used, beyond that number itself."""
    try:
        with path.open("rb") as file:
            return int.from_bytes(file.read(4), sys.byteorder, signed=True) > 8
    except OSError:
        return False


def _is_torn(path: Path, merge: Callable[[list[str]], list[Metric]]) -> bool:
    try:
        merge([str(path)])
    except FileNotFoundError:
        return False
    except Exception:
        return True
    return False


def _lives(path: Path) -> bool:
    """Tell whether the process lives whose numbers a file has."""
    match = _NUMBERS.fullmatch(path.name)
    try:
        os.kill(int(match[1]) if match else 0, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's: none of this master's
        return False
    return True


class RecordsNow:
    """What the records say at the moment of a scrape; nothing while they are away. A collector for a registry."""

    def __init__(self, records: Callable[[], Records]) -> None:
        self._records = records

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Read the numbers."""
        from prometheus_client.core import GaugeMetricFamily

        try:
            records = self._records()
            inside, backlogs = records.inside(), records.backlogs()
        except RecordsUnavailable:
            return
        yield GaugeMetricFamily("go_backend_vehicles_inside", "Vehicles inside, read when scraped", inside)
        said = "Summaries that a sink has not taken: waiting, or given up"
        undelivered = GaugeMetricFamily("go_backend_summaries_undelivered", said, labels=["sink"])
        said = "Whether a sink's circuit breaker is open: it fails, and is left alone between two attempts"
        is_open = GaugeMetricFamily("go_backend_sink_open", said, labels=["sink"])
        for backlog in backlogs:
            undelivered.add_metric([backlog.sink], backlog.undelivered)
            is_open.add_metric([backlog.sink], backlog.failing is not None)
        yield from (undelivered, is_open)


def serve() -> int:
    """Show the page until the master ends; what Dramatiq's master runs."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # noqa: S101 - the master called
    assert parent.pid is not None  # noqa: S101
    status = _show(parent.pid, parent.join)
    if status:  # the workers have found the port free; somebody took it since
        os.kill(parent.pid, signal.SIGTERM)
    return status


def main() -> int:
    """Show the page until standard input ends; what a worker process runs when the page's process was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the master
    return _show(int(sys.argv[1]), sys.stdin.read)


def _show(master: int, until: Callable[[], object]) -> int:
    logging.getLogger("waitress").setLevel(logging.ERROR)
    try:
        _show_numbers(master, until)
    except ConfigurationError as error:
        print(f"carpark: {error}", file=sys.stderr)  # noqa: T201 - goes into the master's output
        return 2
    return 0


def _show_numbers(master: int, until: Callable[[], object]) -> None:
    from prometheus_client import CollectorRegistry

    settings = load_settings()
    here, _ = folder.enter(master)
    held = folder.hold_page(here)
    if held is None or (here / folder.REFUSED).exists():
        return
    with held:
        registry = CollectorRegistry()
        registry.register(ProcessNumbers(here))
        records = open_records(settings.redis_url, settings.retention, settings.sinks, attempts=1, timeout=PATIENCE)
        registry.register(RecordsNow(lambda: records))
        with MetricsPage(registry, settings.bind, SERVICES["backend"].port_or(settings.metrics_port)) as page:
            print(f"backend: metrics at {page.url}", file=sys.stderr)  # noqa: T201
            until()


if __name__ == "__main__":
    sys.exit(main())
