"""Each test here is of the writer's ledger, of that of the sink `csv`, and of that of the sink `jsonl`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.ledgers import KEEPERS, Keeper


@pytest.fixture(params=list(KEEPERS))
def keeper(request: pytest.FixtureRequest) -> Keeper:
    return KEEPERS[request.param]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "stays"
