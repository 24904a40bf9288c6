"""The share of matched exits is kept, always; a seed repeats it."""

from __future__ import annotations

import random
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generators.chance import BLOCK, MatchSequence, stream

ratios = st.decimals(0, 1, places=4).map(float)


@given(ratio=ratios, seed=st.integers(), skipped=st.integers(0, 500))
def test_over_any_thousand_exits_the_share_is_the_ratio_within_two_hundredths(
    ratio: float, seed: int, skipped: int
) -> None:
    sequence = MatchSequence(ratio, random.Random(seed))
    exits = [sequence.sample() for _ in range(skipped + 1000)]
    assert abs(sum(exits[skipped:]) / 1000 - ratio) <= 0.02


@given(ratio=ratios, seed=st.integers(), blocks=st.integers(1, 60))
def test_after_every_block_the_share_is_as_near_as_whole_vehicles_can_be(ratio: float, seed: int, blocks: int) -> None:
    sequence = MatchSequence(ratio, random.Random(seed))
    matched = sum(sequence.sample() for _ in range(BLOCK * blocks))
    assert abs(matched - Decimal(str(ratio)) * BLOCK * blocks) <= Decimal("0.5")


@pytest.mark.parametrize("seed", range(20))
def test_every_ten_exits_are_eight_matched_and_two_not(seed: int) -> None:
    sequence = MatchSequence(0.8, random.Random(seed))
    for _ in range(50):
        assert sum(sequence.sample() for _ in range(10)) == 8


def test_the_order_inside_the_blocks_varies() -> None:
    sequence = MatchSequence(0.8, random.Random(1))
    assert len({tuple(sequence.sample() for _ in range(10)) for _ in range(2000)}) == 45  # 10 over 2


@pytest.mark.parametrize(("ratio", "always"), [(0, False), (1, True)])
def test_none_and_all_are_ratios_too(ratio: float, always: bool) -> None:
    sequence = MatchSequence(ratio, random.Random(1))
    assert {sequence.sample() for _ in range(100)} == {always}


@pytest.mark.parametrize("ratio", [-0.01, 1.01, float("nan")])
def test_what_is_no_share_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        MatchSequence(ratio, random.Random(1))


def test_a_seed_makes_the_same_stream_on_every_machine() -> None:
    assert stream("7", "entry/plates").random() == stream(7, "entry/plates").random()
    assert stream(7, "entry/plates").randrange(10**9) == 16_971_786


def test_streams_of_one_seed_differ_by_name_and_streams_without_a_seed_differ_always() -> None:
    draws = [stream(7, "a"), stream(7, "b"), stream(None, "a"), stream(None, "a")]
    assert len({each.random() for each in draws}) == 4
