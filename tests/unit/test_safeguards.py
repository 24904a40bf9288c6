"""The safeguards that the faults are tried without are where they are said to be."""

from __future__ import annotations

import pytest

from tests.faults.faults import FAULTS
from tests.faults.safeguards import SAFEGUARDS, Safeguard
from tests.support.processes import ROOT


@pytest.mark.parametrize("safeguard", SAFEGUARDS, ids=lambda safeguard: safeguard.what)
def test_each_can_be_taken_out_and_names_one_fault(safeguard: Safeguard) -> None:
    text = (ROOT / safeguard.path).read_text(encoding="utf-8")
    assert [text.count(old) for old, _ in safeguard.changes] == [1] * len(safeguard.changes)
    assert len([name for name in FAULTS if safeguard.fault in name]) == 1
