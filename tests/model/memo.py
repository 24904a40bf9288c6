"""Records whose steps are remembered: a step that was taken before from the same state is not taken again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from carpark.domain.events import Event
from carpark.records import ExitsHeld
from tests.model.hands import Hand
from tests.support.stores import Store

Step = tuple[Any, ...]
"""The name of a step of the records, and what it is given."""

RETENTION = 172_800.0


class Memo:
    """Records as a graph of the states that they have been in; stands for them.

    Args:
        store: Where they are.
        sink: The one sink.
        now: What time it is, always.

    Attributes:
        at: The state that they are in; 0 is empty.
        steps: How many were taken, each once.
        heard: Hears of every step and its answer.
    """

    def __init__(self, store: Store, sink: str, now: float) -> None:
        self._store, self._sink, self._now = store, sink, now
        self._paths: list[tuple[Step, ...]] = [()]
        self._states: dict[str, int] = {}
        self._known: dict[tuple[int, Step], tuple[Any, int]] = {}
        self._contents: dict[int, dict[str, Any]] = {}
        self._seen: dict[int, tuple[Any, Any, Any]] = {}
        self._real = self.at = self.steps = 0
        self.heard: Callable[[Step, Any], None] = lambda step, answer: None
        self._begin()
        self._states[self._digest()] = 0

    def record(self, events: Sequence[Event]) -> Any:
        """Stand for the records' step."""
        return self._call(("record", tuple(events)))

    def record_entries(self, entries: Sequence[Event], partition: int = 0) -> Any:
        """Stand for the records' step."""
        return self._call(("record_entries", tuple(entries), partition))

    def record_exits(self, exits: Sequence[Event], after: str, marker: str, partition: int = 0) -> Any:
        """Stand for the records' step."""
        return self._call(("record_exits", tuple(exits), after, marker, partition))

    def reach(self, marker: str, partition: int = 0) -> Any:
        """Stand for the records' step."""
        return self._call(("reach", marker, partition))

    def _call(self, step: Step) -> Any:
        """Take a step from the state that the records are in, when the thread is told to."""
        Hand.call(step)
        known = self._known.get((self.at, step))
        if known is None:
            known = self._known[self.at, step] = self._take(step)
        answer, self.at = known
        self.heard(step, answer)
        if isinstance(answer, ExitsHeld):
            raise answer
        return answer

    def _take(self, step: Step) -> tuple[Any, int]:
        self._restore(self.at)
        answer = self._do(step)
        self.steps += 1
        self._real = self._states.setdefault(self._digest(), len(self._paths))
        if self._real == len(self._paths):
            self._paths.append((*self._paths[self.at], step))
        return answer, self._real

    def _begin(self) -> None:
        self._store.clear()
        self._records = self._store.open((self._sink,), lambda: self._now, RETENTION)

    def _restore(self, state: int) -> None:
        if self._real != state:
            self._begin()
            for step in self._paths[state]:
                self._do(step)
            self._real = state

    def _do(self, step: Step) -> Any:
        name, *arguments = step
        try:
            return getattr(self._records, name)(*arguments)
        except ExitsHeld as held:
            return held

    def _digest(self) -> str:
        """Say what the state is, without what no step's answer depends on: how many repeats and lists there were."""
        return repr(self._without_counts())

    def _without_counts(self) -> dict[str, Any]:
        content = self._read()
        content["counts"] = {name: value for name, value in content["counts"].items() if "duplicate" not in name}
        for queue in content["queues"].values():
            del queue["lists"]
        return content

    def content(self) -> dict[str, Any]:
        """Read what the records hold in the state that they are in."""
        if self.at not in self._contents:
            self._restore(self.at)
            self._contents[self.at] = self._read()
        return self._contents[self.at]

    def apart(self) -> tuple[Any, Any, Any]:
        """Say which state it is in, apart from the markers; which of them is waited for; which was reached last."""
        if self.at not in self._seen:
            self._restore(self.at)
            content = self._without_counts()
            queue = content["queues"].get(0, {})
            wanted, reached = queue.pop("wanted", None) or None, queue.pop("reached", None) or None
            self._seen[self.at] = repr(content), wanted, reached
        return self._seen[self.at]

    def _read(self) -> dict[str, Any]:
        """Read all, in an order that does not tell how it came to be."""
        return _in_order(self._store.content())


def _in_order(thing: Any) -> Any:
    return {key: _in_order(thing[key]) for key in sorted(thing)} if isinstance(thing, dict) else thing


def events_of(step: Step) -> Sequence[Event]:
    """Give the events that a step records."""
    return step[1] if step[0].startswith("record") else ()
