"""Records whose steps are remembered: a step that was taken before from the same state is not taken again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import redis

from tests.model.hands import Hand

Step = tuple[Any, ...]


class Memo:
    """A store, real or in this process, as a graph of the states that it has been in.

    Args:
        client: A client of its database.

    Attributes:
        at: The state that it is in; 0 is empty.
        steps: How many were taken, each once.
        heard: Hears of every step and its answer.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._scripts: dict[str, Any] = {}
        self._paths: list[tuple[Step, ...]] = [()]
        self._states: dict[str, int] = {}
        self._known: dict[tuple[int, Step], tuple[Any, int]] = {}
        self._contents: dict[int, dict[str, Any]] = {}
        self._seen: dict[int, tuple[Any, Any, Any]] = {}
        self._real = 0
        self._client.flushdb()
        self._states[self._digest()] = 0
        self.at = self.steps = 0
        self.heard: Callable[[Step, Any], None] = lambda step, answer: None

    def register_script(self, text: str) -> Callable[..., Any]:
        """Stand for a client's method."""
        if text not in self._scripts:
            self._scripts[text] = self._client.register_script(text)
        return lambda keys, args: self.call(("script", text, tuple(keys), tuple(args)))

    def hset(self, *arguments: Any) -> Any:
        """Stand for a client's method."""
        return self.call(("hset", *arguments))

    def call(self, step: Step) -> Any:
        """Take a step from the state that the store is in, when the thread is told to."""
        Hand.call(step)
        known = self._known.get((self.at, step))
        if known is None:
            known = self._known[self.at, step] = self._take(step)
        answer, self.at = known
        self.heard(step, answer)
        return answer

    def _take(self, step: Step) -> tuple[Any, int]:
        self._restore(self.at)
        answer = self._do(step)
        self.steps += 1
        self._real = self._states.setdefault(self._digest(), len(self._paths))
        if self._real == len(self._paths):
            self._paths.append((*self._paths[self.at], step))
        return answer, self._real

    def _restore(self, state: int) -> None:
        if self._real != state:
            self._client.flushdb()
            for step in self._paths[state]:
                self._do(step)
            self._real = state

    def _do(self, step: Step) -> Any:
        what, *arguments = step
        if what == "script":
            text, keys, args = arguments
            return self._scripts[text](keys=keys, args=args)
        return self._client.hset(*arguments)

    def _digest(self) -> str:
        """Say what the state is, without what no step's answer depends on: how many repeats and lists there were."""
        return repr(self._without_counts())

    def _without_counts(self) -> dict[str, Any]:
        content = self._read()
        content["carpark:counts"] = {
            name: value for name, value in content.get("carpark:counts", {}).items() if "duplicate" not in name
        }
        content.get("carpark:entries", {}).pop("lists", None)
        return content

    def content(self) -> dict[str, Any]:
        """Read what the store has in the state that it is in."""
        if self.at not in self._contents:
            self._restore(self.at)
            self._contents[self.at] = self._read()
        return self._contents[self.at]

    def apart(self) -> tuple[Any, Any, Any]:
        """Say which state it is in, apart from the markers; which of them is waited for; which was reached last."""
        if self.at not in self._seen:
            self._restore(self.at)
            content = self._without_counts()
            entries = content.get("carpark:entries", {})
            wanted, reached = entries.pop("wanted", None), entries.pop("reached", None)
            self._seen[self.at] = repr(content), wanted, reached
        return self._seen[self.at]

    def _read(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key in sorted(self._client.scan_iter()):  # type: ignore[type-var]
            found[key] = _READ[self._client.type(key)](self._client, key)  # type: ignore[index]
        return found


_READ: dict[str, Callable[[Any, str], Any]] = {
    "hash": lambda client, key: dict(sorted(client.hgetall(key).items())),
    "set": lambda client, key: sorted(client.smembers(key)),
    "list": lambda client, key: client.lrange(key, 0, -1),
    "zset": lambda client, key: client.zrange(key, 0, -1, withscores=True),
}


def events_of(step: Step) -> Sequence[tuple[str, str, str]]:
    """Give kind, id and time of the events that a step of the join records."""
    if step[0] != "script":
        return []
    args = step[3]
    if len(args) == 2:  # a marker was reached
        return []
    first = 7 + int(args[6])
    return [(args[i], args[i + 1], args[i + 3]) for i in range(first, len(args), 5)]
