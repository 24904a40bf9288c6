"""Chance that keeps its word, and that a seed repeats."""

from __future__ import annotations

import random
from fractions import Fraction

BLOCK = 10
"""How many exits are shuffled together: 8 matched and 2 unmatched ones for a ratio of 0.8."""


class MatchSequence:
    """Says of each exit whether its plate was seen entering, so that the share is kept and not just probable.

    Exits come in blocks of `BLOCK`, each in a random order. What a ratio such as 0.85 leaves over in one block is
    carried to the next: after every block the number of matched exits is the ratio's share of all exits, rounded.
    """

    def __init__(self, ratio: float, chance: random.Random) -> None:
        if not 0 <= ratio <= 1:
            raise ValueError(f"a share is from 0 to 1, not {ratio}")
        self.ratio = ratio
        self._exact = Fraction(str(ratio))
        self._chance = chance
        self._blocks = 0
        self._block: list[bool] = []

    def __repr__(self) -> str:
        return f"MatchSequence({self.ratio:g})"

    def sample(self) -> bool:
        """Say of the next exit whether its plate was seen entering."""
        if not self._block:
            before = self._matched_after(self._blocks)
            self._blocks += 1
            matched = self._matched_after(self._blocks) - before
            self._block = [True] * matched + [False] * (BLOCK - matched)
            self._chance.shuffle(self._block)
        return self._block.pop()

    def _matched_after(self, blocks: int) -> int:
        return int(self._exact * BLOCK * blocks + Fraction(1, 2))


def stream(seed: str | int | None, name: str) -> random.Random:
    """Make a stream of chance of its own, so that drawing from one never shifts another."""
    return random.Random() if seed is None else random.Random(f"{seed}/{name}")
