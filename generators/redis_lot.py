"""The lot of the services: asks the records in Redis, and keeps the claims that several generators share."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import redis

from carpark.domain.events import Event, format_time
from carpark.errors import RecordsUnavailable
from carpark.records.connection import address, connect, is_refusal, words
from carpark.records.redis import lua
from carpark.web.ports import cause_of
from generators import claims
from generators.clock import Clock
from generators.lot import Crowd, Lot, Refusal

CLAIMS_DATABASE = 1
RESERVED_SECONDS = 600.0
"""How long a claim lasts that its generator has not published: after a crash the plate is free again by then."""
REMEMBERED_EXIT_SECONDS = 60.0
DRAWS = 8
PAGES = 20


class RedisLot(Lot):
    """The lot of generators that share their Redis with the backend and with other generators.

    Every question is one script, so that no two generators get the same answer, and takes the same time however many
    vehicles are inside.
    """

    shared = True

    def __init__(self, client: redis.Redis, clock: Clock, *, capacity: int = 0, retention: float = 172_800) -> None:
        self._client = client
        self._clock = clock
        self._capacity = capacity
        self._retention = retention
        self._records_database = client.connection_pool.connection_kwargs.get("db") or 0
        self._where = address(client)
        self._cursor = "0"
        self._fruitless = True
        self._ahead = 0
        self._enter = client.register_script(claims.ENTER)
        self._leave = client.register_script(claims.LEAVE)
        self._slip_out = client.register_script(claims.SLIP_OUT)
        self._keep = client.register_script(claims.KEEP)
        self._crowd = client.register_script(claims.CROWD)
        self._rights = client.register_script(lua("rights") + claims.RIGHTS)

    @classmethod
    def connect(cls, url: str, clock: Clock, *, capacity: int = 0, retention: float = 172_800) -> RedisLot:
        """Make a lot for a Redis server; nothing is sent yet."""
        return cls(connect(url, attempts=0), clock, capacity=capacity, retention=retention)

    def enter(self, plate: str, time: str, event_id: str) -> Refusal | None:
        """Let a vehicle in, if there is room and its plate is free; see `Lot.enter`."""
        expires = self._expiry(RESERVED_SECONDS)
        (answer,) = self._run(self._enter, plate, time, event_id, expires, self._capacity)
        return {"in": None, "taken": Refusal.TAKEN, "full": Refusal.FULL}[answer]

    def leave(self, time: str) -> str | Refusal:
        """Choose a vehicle that leaves; see `Lot.leave`."""
        expires, draws = self._expiry(RESERVED_SECONDS), DRAWS
        for _ in range(PAGES):
            answer, plate, cursor, ahead = self._run(self._leave, time, expires, draws, self._cursor)
            draws = 0
            if answer == "out":
                self._fruitless = False
                return str(plate)
            if answer == "empty":
                self._restart()
                return Refusal.NOBODY
            self._cursor = str(cursor)
            self._ahead += int(ahead)
            if self._cursor == "0":
                fruitless, some_ahead = self._fruitless, self._ahead > 0
                self._restart()
                if fruitless:
                    return Refusal.AHEAD if some_ahead else Refusal.LEAVING
        return Refusal.SEARCHING

    def slip_out(self, plate: str, time: str) -> bool:
        """Ask whether a plate is neither inside nor entering; see `Lot.slip_out`."""
        (answer,) = self._run(self._slip_out, plate, time)
        return bool(answer)

    def crowd(self) -> Crowd:
        """Count."""
        inside, entering = self._run(self._crowd)
        return Crowd(int(inside), int(entering))

    def keep(self, events: Sequence[Event], *, confirmed: bool) -> None:
        """Hold the claims of events that were made; see `Lot.keep`."""
        expires = self._expiry(self._retention if confirmed else RESERVED_SECONDS)
        told = [part for event in events for part in (event.kind, event.vehicle_plate, event.time, event.id)]
        if told:
            self._run(self._keep, expires, *told)

    def rights(self) -> tuple[list[str], list[str]]:
        """Ask which rights this user has of those that cameras take. Changes nothing."""
        granted, denied = self._ask(self._rights, "rights", "[]", self._records_database)
        return granted, denied

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _restart(self) -> None:
        self._cursor, self._fruitless, self._ahead = "0", True, 0

    def _expiry(self, seconds: float) -> str:
        return f"{self._clock.now().timestamp() + seconds:.3f}"

    def _run(self, script: Any, *arguments: object) -> Any:
        now = self._clock.now()
        horizon = format_time(now - timedelta(seconds=REMEMBERED_EXIT_SECONDS))
        common = (self._records_database, CLAIMS_DATABASE, f"{now.timestamp():.3f}", horizon)
        return self._ask(script, *common, *arguments)

    def _ask(self, script: Any, *arguments: object) -> Any:
        try:
            return script(args=arguments)
        except Exception as error:  # whatever the client raises, it is no plate's fault
            refuses = is_refusal(error)
            what = f" refuses ({words(error)})" if refuses else f" is away ({cause_of(error)})"
            if not isinstance(error, (redis.RedisError, OSError)):
                what = f": {words(error)}"
            raise RecordsUnavailable(f"Redis at {self._where}{what}", refuses=refuses) from error
