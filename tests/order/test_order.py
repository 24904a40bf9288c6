"""Some of the matrix (``python -m tests.order`` is all of it): order, and nothing lost, when plates come back."""

from __future__ import annotations

from pathlib import Path

import pytest

from carpark.rabbitmq.topology import CLASSIC, QUORUM
from tests.order.matrix import BEHIND, FEW, MANY, RETURNING, Run, run
from tests.order.nemeses import NONE
from tests.order.stand import Shape
from tests.support.servers import RabbitmqServer

RUNS = (
    Run(RETURNING, Shape(1, 4), CLASSIC, NONE, 1),
    Run(MANY, Shape(2, 2, workers=2), QUORUM, "SIGTERM", 1),
    Run(BEHIND, Shape(1, 4, workers=2), CLASSIC, NONE, 1),
    Run(FEW, Shape(1, 1), CLASSIC, NONE, 1),
    Run(FEW, Shape(2, 2), CLASSIC, NONE, 1, partitions=4),
)


@pytest.mark.order
@pytest.mark.timeout(400)
@pytest.mark.parametrize("each", RUNS, ids=str)
def test_no_event_is_overtaken_and_no_stay_lost(each: Run, private_rabbitmq: RabbitmqServer, tmp_path: Path) -> None:
    outcome = run(each, private_rabbitmq, tmp_path)
    assert outcome.well, str(outcome)
