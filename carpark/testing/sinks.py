"""What every sink has to do, as tests."""

from __future__ import annotations

import tempfile
import threading
import unittest
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from carpark.domain.events import StaySummary
from carpark.errors import SummaryRefused
from carpark.plugins.base import Sink
from carpark.testing.factories import make_summaries, make_summary

_THREADS = 6
_ODD_IDS = ("a,b", 'say "hi"', "'; DROP TABLE stays; --", "<script>", "=1+1", " padded ", "50%", "Zoë 🚗", "a\u2028b")
_LONGEST_ID = "ü" * 128


class SinkConformance:
    """Tests of a sink, for pytest: subclass it in a test module, with a name that begins with ``Test``.

    `make_sink` and `stored_ids` have to be given. With `break_sink` and `mend_sink` failure and retry are tested too.
    Each test has a new object of the class and an empty folder, `folder`.

    Attributes:
        folder: An empty folder, removed after the test.
        durable: Whether what is stored is still known after the sink was closed and made again. A sink that only
            shows summaries, such as ``stdout``, says False.
        shared: Whether two sinks made one beside the other, as in two worker processes, store into the same place.
            By default what `durable` says.
    """

    folder: Path
    durable: bool = True
    shared: bool | None = None

    def make_sink(self) -> Sink:
        """Make the sink under test.

        Returns:
            A sink; each one that a test makes stores into the same place.

        Raises:
            TypeError: The subclass does not say how.
        """
        raise TypeError(f"{type(self).__name__} has to define make_sink()")

    def stored_ids(self) -> Collection[str]:
        """Read back what is stored.

        Returns:
            The ids of all stored summaries, one as often as it is stored.

        Raises:
            TypeError: The subclass does not say how.
        """
        raise TypeError(f"{type(self).__name__} has to define stored_ids()")

    def break_sink(self) -> None:
        """Make deliveries fail, as a server that is down or a full disk would.

        Raises:
            unittest.SkipTest: The subclass does not say how, so the tests that need it are skipped.
        """
        raise unittest.SkipTest(f"{type(self).__name__} does not define break_sink() and mend_sink()")

    def mend_sink(self) -> None:
        """Undo what `break_sink` did; called only after it."""

    def setup_method(self) -> None:
        """Prepare a test; called by pytest. An override calls this one first."""
        self._left = ExitStack()
        self.folder = Path(self._left.enter_context(tempfile.TemporaryDirectory(prefix="carpark-sink-")))

    def teardown_method(self) -> None:
        """Clean up after a test; called by pytest. An override calls this one last."""
        self._left.close()

    def test_a_delivered_summary_is_stored(self) -> None:
        """The ordinary case: a list of one."""
        self._stores([make_summary()])

    def test_a_list_is_stored_whole(self) -> None:
        """Deliveries come in lists where many stays end at once."""
        self._stores(make_summaries(100))

    def test_an_empty_list_changes_nothing(self) -> None:
        """An empty list is no error."""
        self._stores([])

    def test_the_same_summary_twice_is_stored_once(self) -> None:
        """Delivery is at least once, so repeats are ordinary."""
        summary = make_summary()
        self._stores([summary], [summary])

    def test_a_repeat_within_a_list_is_stored_once(self) -> None:
        """A repeat may stand beside its original."""
        one, other = make_summaries(2)
        self._stores([one, other, one])

    def test_of_a_list_only_what_is_new_is_stored(self) -> None:
        """A list that was stored in part is delivered again as a whole."""
        summaries = make_summaries(6)
        self._stores(summaries[:4], summaries[2:])

    def test_two_stays_of_one_plate_are_two(self) -> None:
        """The id says which stay it is, the plate does not."""
        self._stores([make_summary(), make_summary()])

    def test_ids_that_differ_only_in_case_or_by_a_space_are_two(self) -> None:
        """Collations and file names like to make one of them."""
        self._stores([make_summary(id_) for id_ in ("exit-1", "EXIT-1", "exit-1 ")])

    def test_any_id_and_plate_is_stored_as_it_is(self) -> None:
        """An id is up to 128 characters of any kind but control characters."""
        summaries = [make_summary(id_, "ÄÖ京都123") for id_ in (*_ODD_IDS, _LONGEST_ID)]
        self._stores(summaries, summaries)

    def test_concurrent_calls_store_each_summary_once(self) -> None:
        """A worker's threads share one sink."""
        sink, summaries = self._new(), make_summaries(40)
        self._at_once([partial(sink.deliver, part) for part in _overlapping(summaries)])
        self._holds(summaries)

    def test_two_sinks_over_one_place_store_each_summary_once(self) -> None:
        """Each worker process has a sink of its own."""
        shared = self.durable if self.shared is None else self.shared
        _need(shared, "the sinks of two processes do not share their place")
        sinks, summaries = [self._new(), self._new()], make_summaries(40)
        self._at_once([partial(sinks[i % 2].deliver, part) for i, part in enumerate(_overlapping(summaries))])
        for sink in sinks:
            sink.deliver(summaries)
        self._holds(summaries)

    def test_closing_twice_is_harmless(self) -> None:
        """What was delivered outlives the sink."""
        sink, summary = self._new(), make_summary()
        sink.deliver([summary])
        sink.close()
        sink.close()
        self._holds([summary])

    def test_closing_a_sink_that_was_never_used_is_harmless(self) -> None:
        """A process may end before its first summary."""
        self._new().close()
        self._holds([])

    def test_what_was_stored_is_known_after_a_restart(self) -> None:
        """A summary may come again after the process has ended."""
        _need(self.durable, "the sink does not keep what it takes")
        summaries = make_summaries(4)
        first = self._new()
        first.deliver(summaries[:3])
        first.close()
        self._holds(summaries[:3])
        self._new().deliver(summaries)
        self._holds(summaries)

    def test_a_failure_is_said_and_the_retry_stores_everything_once(self) -> None:
        """A list that failed may be stored in part."""
        sink, summaries = self._new(), make_summaries(6)
        sink.deliver(summaries[:2])
        with self._broken():
            self._fails(sink, summaries[1:4])
        sink.deliver(summaries[1:4])
        self._holds(summaries[:4])
        sink.deliver(summaries)
        self._holds(summaries)

    def test_a_sink_that_fails_again_and_again_loses_nothing_when_it_recovers(self) -> None:
        """What failed is delivered again, in any order."""
        sink, summaries = self._new(), make_summaries(5)
        with self._broken():
            for summary in summaries:
                self._fails(sink, [summary])
        for summary in summaries:
            sink.deliver([summary])
        self._holds(summaries)

    def _stores(self, *deliveries: list[StaySummary]) -> None:
        """Deliver lists to one sink; what is in them is stored, each once."""
        sink = self._new()
        for summaries in deliveries:
            sink.deliver(summaries)
        self._holds([summary for summaries in deliveries for summary in summaries])

    def _new(self) -> Sink:
        sink = self.make_sink()
        self._left.callback(sink.close)
        return sink

    @contextmanager
    def _broken(self) -> Iterator[None]:
        self.break_sink()
        try:
            yield
        finally:
            self.mend_sink()

    def _fails(self, sink: Sink, summaries: Sequence[StaySummary]) -> None:
        try:
            sink.deliver(summaries)
        except SummaryRefused as error:
            raise AssertionError("a broken sink refused for good what it would take when mended") from error
        except Exception:
            return
        raise AssertionError("deliver() returned although the sink was broken: the summaries would be lost")

    def _holds(self, summaries: Collection[StaySummary]) -> None:
        wanted, stored = {summary.id for summary in summaries}, Counter(self.stored_ids())
        problems = {
            "not stored": sorted(wanted - set(stored)),
            "stored though never delivered": sorted(set(stored) - wanted),
            "stored more than once": sorted(id_ for id_, times in stored.items() if times > 1),
        }
        if found := [f"{what}: {ids}" for what, ids in problems.items() if ids]:
            raise AssertionError("; ".join(found))

    def _at_once(self, calls: Sequence[Callable[[], None]]) -> None:
        barrier = threading.Barrier(len(calls))

        def run(call: Callable[[], None]) -> None:
            barrier.wait()
            call()

        with ThreadPoolExecutor(len(calls)) as threads:
            done = [threads.submit(run, call) for call in calls]
        if errors := [error for each in done if (error := each.exception())]:
            raise AssertionError(f"{len(errors)} of {len(calls)} concurrent calls failed") from errors[0]


def _overlapping(summaries: list[StaySummary]) -> list[list[StaySummary]]:
    """Deal summaries out so that each one is in two lists."""
    return [
        [summary for i, summary in enumerate(summaries) if thread in (i % _THREADS, (i + 1) % _THREADS)]
        for thread in range(_THREADS)
    ]


def _need(condition: bool, reason: str) -> None:
    if not condition:
        raise unittest.SkipTest(reason)
