"""Every schedule of a small world, each state once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tests.model.world import Model, World, Wrong


def explore(model: Model, check: Callable[[World], None]) -> int:
    """Try every schedule.

    States that are the same but for how they were come to are gone on from once. A schedule may go round in a circle,
    but no state may be without any way to an end.

    Args:
        model: What the world is made of.
        check: Judges a world at the end of its schedule.

    Returns:
        How many states there are.

    Raises:
        Wrong: A schedule came to what was not promised; it is part of the text.
    """
    ends: list[Any] = []
    paths: dict[Any, tuple[Any, ...]] = {}
    before: defaultdict[Any, list[Any]] = defaultdict(list)

    def visit(path: tuple[Any, ...], world: World, state: Any) -> None:
        paths[state] = path
        possible = world.steps()
        if not possible:
            ends.append(state)
            try:
                check(world)
            except Wrong as error:
                raise Wrong(f"{error}; after {path}") from error
            finally:
                world.leave()
        for number, step in enumerate(possible):
            if number:
                world = _again(model, path)
            try:
                world.do(step)
            except BaseException as error:
                world.leave()
                raise Wrong(f"{error}; after {[*path, step]}") from error
            following = world.state()
            before[following].append(state)
            if following in paths:
                world.leave()
            else:
                visit((*path, step), world, following)

    world = World(model)
    visit((), world, world.state())
    if endless := paths.keys() - _all_before(ends, before):
        raise Wrong(f"there is no end; after {min((paths[state] for state in endless), key=len)}")
    return len(paths)


def _again(model: Model, path: Iterable[Any]) -> World:
    world = World(model)
    for step in path:
        world.do(step)
    return world


def _all_before(states: Iterable[Any], before: Mapping[Any, Sequence[Any]]) -> set[Any]:
    found: set[Any] = set()
    to_do = [*states]
    while to_do:
        state = to_do.pop()
        if state not in found:
            found.add(state)
            to_do += before.get(state, ())
    return found
