"""Each fault alone, in a system under load: nothing lost, nothing twice, nothing unexpected."""

from __future__ import annotations

import pytest

from tests.faults.faults import FAULTS
from tests.faults.rig import Rig


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", FAULTS)
def test_nothing_is_lost_and_nothing_comes_twice(rig: Rig, name: str) -> None:
    rig.wait_for_progress()
    FAULTS[name](rig)
    rig.wait_for_progress()
    rig.settle()
