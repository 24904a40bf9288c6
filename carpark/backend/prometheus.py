"""Dramatiq's Prometheus middleware with our namespace beside its own, on a page that is ours."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dramatiq
from dramatiq.broker import Broker, MessageProxy
from dramatiq.common import dq_name
from dramatiq.message import Message
from dramatiq.middleware import prometheus as base

from carpark.backend import page
from carpark.backend.meter import Meter
from carpark.broker.batches import parts_of
from carpark.broker.dispatch import MustWait
from carpark.broker.reading import MarkerMessage
from carpark.errors import ConfigurationError
from carpark.services import METRICS_FOLDER, METRICS_SETTING, SERVICES
from carpark.settings import Settings
from carpark.telemetry import folder
from carpark.telemetry.histograms import observe
from carpark.web.ports import listen

if TYPE_CHECKING:
    from typing import IO

    from prometheus_client import CollectorRegistry

_LOOK_AGAIN = 1.0
_FIRST_PAGE, _NEXT_PAGE, _GONE = 30.0, 10.0, 3.0
"""Seconds until the page counts as gone: from the start, until which Dramatiq starts it; from the last attempt; since
it was seen last. Where all of Dramatiq ends, it ends first, and a worker process hears of it up to 1 s later."""


class Prometheus(base.Prometheus):
    """Counts messages as Dramatiq does, starts the meter, and has both shown on one page by a process of its own.

    In a worker process it starts by itself when that has booted; elsewhere, where there is but one process, `start`
    does it, and whoever calls it shows the page.
    """

    def __init__(self, settings: Settings, meter: Meter) -> None:
        super().__init__()
        self._settings, self._meter = settings, meter
        self._is_one_of_many = False
        self._keeper = _Keeper()
        self._labelled: dict[tuple[str, str], _Labelled] = {}

    @property
    def forks(self) -> list[Callable[[], int]]:
        """What Dramatiq's master runs in a process of its own."""
        return [page.serve]

    def after_process_boot(self, broker: Broker) -> None:
        """Begin to count in a worker process."""
        try:
            here = self._enter()
        except ConfigurationError as error:
            print(f"carpark: {error}", file=sys.stderr)  # noqa: T201 - as the actors do with any wrong setting
            raise SystemExit(2) from None
        base.DB_PATH = str(here)
        os.environ[METRICS_FOLDER] = str(here)
        from prometheus_client import CollectorRegistry

        self._is_one_of_many = True
        self.start(broker, CollectorRegistry())
        self._keeper.start()

    def _enter(self) -> Path:
        """Enter the folder; the first one there looks whether the page can be shown, before anything is worked on."""
        here, is_first = folder.enter(folder.master_pid() or os.getpid())
        if is_first:
            try:
                port = SERVICES["backend"].port_or(self._settings.metrics_port)
                listen(self._settings.bind, port, METRICS_SETTING).close()
            except ConfigurationError:
                (here / folder.REFUSED).touch()
                raise
        return here

    def start(self, broker: Broker, registry: CollectorRegistry) -> None:
        """Begin to count."""
        from prometheus_client.metrics import MetricWrapperBase

        with _variables_kept():
            super().after_process_boot(broker)  # type: ignore[no-untyped-call]
        for metric in vars(self).values():
            if isinstance(metric, MetricWrapperBase):
                registry.register(metric)
        self._labelled = {
            (queue, actor.actor_name): labelled
            for actor in broker.actors.values()
            for labelled in [_Labelled(self, actor.queue_name, actor.actor_name)]
            for queue in (actor.queue_name, dq_name(actor.queue_name))
        }
        self._meter.start(registry)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Count a message, or those of a batch, as in progress."""
        if labelled := self._of(message):
            count = len(parts_of(message))
            labelled.in_progress.inc(count)
            vars(message)["begun"] = (time.perf_counter(), count)

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        """Count a message, or those of a batch, and time it."""
        if labelled := self._of(message):
            begun, in_progress = vars(message).pop("begun", (time.perf_counter(), 0))
            count = len(parts_of(message))
            labelled.in_progress.dec(in_progress)
            if isinstance(exception, MustWait):
                return  # it comes again
            observe(labelled.duration, [(time.perf_counter() - begun) * 1000], count)
            labelled.total.inc(count)
            if exception is not None:
                # Of a batch, those that the error is about: the others are done.
                labelled.errored.inc(len(getattr(exception, "places", ())) or count)

    after_skip_message = after_process_message

    def after_nack(self, broker: Broker, message: MessageProxy) -> None:
        """Count a message as dead-lettered."""
        if labelled := self._of(message):
            labelled.rejected.inc(len(parts_of(message)))

    def before_worker_shutdown(self, broker: Broker, worker: dramatiq.Worker) -> None:
        """Let the page end: Dramatiq has ended its process by now."""
        self._keeper.is_page_wanted = False

    def after_worker_shutdown(self, broker: Broker, worker: dramatiq.Worker) -> None:
        """Take this process out of the sums of what is there now."""
        if self._is_one_of_many:
            self._keeper.stop()
            super().after_worker_shutdown(broker, worker)  # type: ignore[no-untyped-call]

    def _of(self, message: MessageProxy | Message[Any]) -> _Labelled | None:
        # None before the start, for a marker, and for an actor that there is not: its name is the message's, no label.
        if isinstance(getattr(message, "_message", None), MarkerMessage):
            return None
        return self._labelled.get((message.queue_name, message.actor_name))


class _Keeper(threading.Thread):
    """Looks now and then whether this process' numbers and the page are there, and mends what is not.

    Dramatiq's master starts the process of the page, and never again.
    """

    def __init__(self) -> None:
        super().__init__(name="numbers", daemon=True)
        self._stopped = threading.Event()
        self._page: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._not_before = time.monotonic() + _FIRST_PAGE
        self.is_page_wanted = True

    def run(self) -> None:
        parent = multiprocessing.parent_process()
        master = folder.master_pid() or os.getpid()
        while not self._stopped.wait(_LOOK_AGAIN):
            if parent and not parent.is_alive():
                break
            with suppress(ConfigurationError, OSError):  # there is no place for them: the page says so
                folder.keep(master)
                if self.is_page_wanted:
                    self._keep_page(master)
        if self._process and self._process.stdin:
            self._process.stdin.close()  # the page ends

    def stop(self) -> None:
        """Let go of the numbers: who ends takes files away himself."""
        self._stopped.set()
        if self.is_alive():
            self.join()

    def _keep_page(self, master: int) -> None:
        if self._page is None or not folder.is_held(self._page):
            if self._page:
                self._page.close()
            # Where the folder was made again it is another file than the one that the page's process holds.
            self._page = (folder.enter(master)[0] / folder.PAGE).open("a", encoding="ascii")
        if folder.is_held(self._page):
            self._not_before = time.monotonic() + _GONE
        elif time.monotonic() >= self._not_before and (self._process is None or self._process.poll() is not None):
            self._not_before = time.monotonic() + _NEXT_PAGE
            command = [sys.executable, "-m", page.__name__, str(master)]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE)  # noqa: S603 - our own


class _Labelled:
    """Dramatiq's metrics for one queue and actor: finding them by these labels would cost as much as counting."""

    def __init__(self, metrics: Prometheus, queue: str, actor: str) -> None:
        labels = (queue, actor)
        self.total = metrics.total_messages.labels(*labels)
        self.errored = metrics.total_errored_messages.labels(*labels)
        self.rejected = metrics.total_rejected_messages.labels(*labels)
        self.in_progress = metrics.inprogress_messages.labels(*labels)
        self.duration = metrics.message_durations.labels(*labels)


@contextmanager
def _variables_kept() -> Iterator[None]:
    """Undo what Dramatiq does to the environment, which others in this process read too."""
    before = {name: os.environ.get(name) for name in (METRICS_FOLDER, METRICS_FOLDER.lower())}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
