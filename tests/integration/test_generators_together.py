"""Several generators of each kind and the backend, as people run them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from carpark.records.connection import connect
from carpark.records.redis import RedisRecords
from tests.support.generating import confirmed_in, events_of
from tests.support.helpers import eventually
from tests.support.processes import Processes

EVENTS = 500


def test_two_entry_and_two_exit_generators_keep_the_share_and_lose_nothing(
    processes: Processes, server_environ: dict[str, str], redis_url: str, tmp_path: Path
) -> None:
    environ = {**server_environ, "CARPARK_CAPACITY": "200", "CARPARK_RATE": "400", "CARPARK_SINKS": "stdout"}
    processes.start(["dramatiq", "carpark.actors", "--processes", "1", "--threads", "2"], env=environ)
    journals = {
        f"{kind}-{number}": tmp_path / f"{kind}-{number}.jsonl" for kind in ("entry", "exit") for number in (1, 2)
    }
    generators = [
        processes.start(
            ["carpark", "generate", name.partition("-")[0], "--events", str(EVENTS), "--journal", str(journal)],
            env=environ,
            name=name,
        )
        for name, journal in journals.items()
    ]
    assert [generator.wait(100) for generator in generators] == [0, 0, 0, 0]
    assert [confirmed_in(journal) for journal in journals.values()] == [EVENTS] * 4
    assert len({event["id"] for journal in journals.values() for event in events_of(journal)}) == 4 * EVENTS

    client, claims = connect(redis_url), connect(f"{redis_url.removesuffix('0')}1")
    records = RedisRecords(client, 3600, [])

    def counts() -> Counter[str]:
        found = Counter(records.counts())
        assert found["entry/recorded"] + found.get("entry/matched", 0) == 2 * EVENTS
        assert found["summaries"] == 0.8 * 2 * EVENTS
        assert found.get("exit/unmatched", 0) - found.get("entry/matched", 0) == 0.2 * 2 * EVENTS
        return found

    found = eventually(counts, 20)
    assert found.get("entry/abandoned", 0) == 0
    assert client.scard("entry_plates") == 0.2 * 2 * EVENTS
    assert sum(int(claims.hlen(key)) for key in ("carpark:entering", "carpark:leaving")) < EVENTS  # type: ignore[arg-type]
    client.close()
    claims.close()
