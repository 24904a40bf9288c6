"""Who is inside, on the lot of one process."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generators.lot import LocalLot, Refusal
from tests.support.generating import HandClock
from tests.support.lots import EveryLot, World


class TestLocalLot(EveryLot):
    @pytest.fixture
    def world(self) -> World:
        return World(LocalLot(10, random.Random(1)), HandClock())

    @given(seed=st.integers(), steps=st.lists(st.one_of(st.none(), st.sampled_from("ABCDEFGH")), max_size=60))
    def test_it_agrees_with_a_set(self, seed: int, steps: list[str | None]) -> None:
        lot, inside = LocalLot(5, random.Random(seed)), set[str]()
        for plate in steps:
            if plate is None:
                gone = lot.leave("")
                assert gone is Refusal.NOBODY if not inside else gone in inside
                inside.discard(str(gone))
                continue
            refusal = lot.enter(plate, "", "")
            assert refusal is (Refusal.FULL if len(inside) >= 5 else Refusal.TAKEN if plate in inside else None)
            if refusal is None:
                inside.add(plate)
            assert lot.crowd().inside == len(inside)
            assert all(lot.slip_out(other, "") == (other not in inside) for other in "ABCDEFGH")

    def test_a_seed_repeats_who_leaves(self) -> None:
        def day() -> list[str | Refusal]:
            lot = LocalLot(0, random.Random(3))
            for number in range(100):
                lot.enter(f"P{number}", "", "")
            return [lot.leave("") for _ in range(100)]

        assert day() == day()
