"""How every lot behaves: the same tests for the one of a single process and for Redis."""

from __future__ import annotations

import uuid

import pytest
import redis

from carpark.domain.events import Event
from carpark.records import Records
from generators.clock import Stamps
from generators.lot import Lot, Refusal
from generators.redis_lot import RESERVED_SECONDS, RedisLot
from tests.support.generating import HandClock, entered, exited, numbered

RETENTION = 3600.0


class World:
    """A lot, the time, and the backend behind it.

    Args:
        lot: The lot.
        clock: Its clock.
        records: The backend's records, where there are any.
    """

    def __init__(self, lot: Lot, clock: HandClock, records: Records | None = None) -> None:
        self.lot, self.clock, self.records = lot, clock, records
        self.stamps = Stamps(clock)
        self.queue: list[Event] = []

    def enter(self, plate: str, *, confirm: bool = True) -> Refusal | None:
        """Let a vehicle in; its event waits for the backend."""
        time, id_ = self.stamps.stamp(), str(uuid.uuid4())
        refusal = self.lot.enter(plate, time, id_)
        if refusal is None:
            self._made(entered(plate, time, id_), confirm)
        return refusal

    def leave(self, *, confirm: bool = True) -> str | Refusal:
        """Let somebody out; the event waits for the backend."""
        time = self.stamps.stamp()
        plate = self.lot.leave(time)
        if not isinstance(plate, Refusal):
            self._made(exited(plate, time), confirm)
        return plate

    def backend(self) -> None:
        """Let the backend catch up."""
        queue, self.queue = self.queue, []
        if self.records:
            self.records.record(queue)

    def _made(self, event: Event, confirm: bool) -> None:
        if confirm:
            self.lot.keep([event], confirmed=True)
            self.queue.append(event)


class EveryLot:
    """What holds for each of them. A subclass has the fixture `world`, over a lot of capacity 10."""

    def test_a_plate_is_inside_once(self, world: World) -> None:
        assert world.enter("A") is None
        assert world.enter("A") is Refusal.TAKEN
        world.backend()
        assert world.enter("A") is Refusal.TAKEN
        assert world.enter("B") is None

    def test_everybody_leaves_once_and_then_nobody_is_there(self, world: World) -> None:
        for plate in numbered(8):
            world.enter(plate)
        world.backend()
        assert sorted(str(world.leave()) for _ in range(8)) == numbered(8)
        assert world.leave() in (Refusal.NOBODY, Refusal.LEAVING)
        world.backend()
        assert world.leave() is Refusal.NOBODY

    def test_nobody_leaves_an_empty_car_park(self, world: World) -> None:
        assert world.leave() is Refusal.NOBODY

    def test_who_has_left_may_come_again_and_leave_again(self, world: World) -> None:
        for _ in range(5):
            assert world.enter("A") is None
            world.backend()
            assert world.leave() == "A"
            world.backend()

    def test_nobody_enters_a_full_car_park_until_somebody_has_left(self, world: World) -> None:
        for plate in numbered(10):
            assert world.enter(plate) is None
        assert world.enter("X") is Refusal.FULL
        world.backend()
        assert world.enter("X") is Refusal.FULL
        world.leave()
        world.backend()
        assert world.enter("X") is None

    def test_a_plate_that_is_inside_or_entering_does_not_slip_out(self, world: World) -> None:
        assert world.enter("A") is None
        assert not world.lot.slip_out("A", world.stamps.stamp())
        world.backend()
        assert not world.lot.slip_out("A", world.stamps.stamp())
        assert world.lot.slip_out("B", world.stamps.stamp())

    def test_a_plate_that_slipped_out_enters_later(self, world: World) -> None:
        assert world.lot.slip_out("A", world.stamps.stamp())
        assert world.enter("A") is None

    def test_who_leaves_is_chance(self, world: World) -> None:
        first = set()
        for _ in range(40):
            for plate in numbered(4):
                world.enter(plate)
            world.backend()
            first.add(world.leave())
            while not isinstance(world.leave(), Refusal):
                pass
            world.backend()
        assert first == set(numbered(4))

    def test_it_knows_how_many_are_inside(self, world: World) -> None:
        world.enter("A")
        world.enter("B")
        assert world.lot.crowd().total == 2
        world.backend()
        assert world.lot.crowd().inside == 2


class EverySharedLot(EveryLot):
    """What holds for the lots that several generators share. A subclass has `world` and `client`, over database 0."""

    def test_two_generators_never_let_the_same_plate_in(self, world: World) -> None:
        other = World(_twin(world), world.clock, world.records)
        assert [(world.enter(plate), other.enter(plate)) for plate in numbered(4)] == [(None, Refusal.TAKEN)] * 4

    def test_two_generators_never_let_the_same_vehicle_out(self, world: World) -> None:
        for plate in numbered(10):
            world.enter(plate)
        world.backend()
        world.clock.elapsed += 1
        other = World(_twin(world), world.clock, world.records)
        gone = [str(each.leave()) for _ in range(5) for each in (world, other)]
        assert sorted(gone) == numbered(10)

    def test_asking_again_with_the_same_id_gives_the_same_answer(self, world: World) -> None:
        time = world.stamps.stamp()
        assert world.lot.enter("A", time, "id-1") is None
        assert world.lot.enter("A", world.stamps.stamp(), "id-1") is None
        assert world.lot.enter("A", time, "id-2") is Refusal.TAKEN

    def test_who_enters_counts_once_whether_recorded_or_not(self, world: World) -> None:
        for plate in numbered(6):
            world.enter(plate)
        world.backend()
        assert [world.enter(plate) for plate in numbered(4, first=6)] == [None] * 4
        assert world.enter("X") is Refusal.FULL

    def test_a_claim_that_is_never_published_ends(self, world: World) -> None:
        world.enter("A")
        world.backend()
        assert world.leave(confirm=False) == "A"
        assert world.enter("B", confirm=False) is None
        world.clock.elapsed += RESERVED_SECONDS - 1
        assert world.leave() is Refusal.LEAVING
        assert world.enter("B") is Refusal.TAKEN
        world.clock.elapsed += 2
        assert world.leave() == "A"
        assert world.enter("B") is None

    def test_a_claim_that_is_held_lasts_until_it_is_published(self, world: World) -> None:
        world.enter("A")
        world.backend()
        world.leave(confirm=False)
        event = exited("A", world.stamps.stamp())
        for _ in range(10):
            world.clock.elapsed += RESERVED_SECONDS - 1
            world.lot.keep([event], confirmed=False)
            assert world.leave() is Refusal.LEAVING

    def test_a_published_event_is_remembered_for_the_retention_while_the_backend_is_behind(self, world: World) -> None:
        world.enter("A")
        world.backend()
        assert world.leave() == "A"
        assert world.enter("B") is None
        world.clock.elapsed += RETENTION - 1
        assert world.leave() is Refusal.LEAVING
        assert world.enter("B") is Refusal.TAKEN
        world.clock.elapsed += 2
        assert world.leave() == "A"
        assert world.enter("B") is None

    def test_claims_are_cleared_away_as_the_backend_keeps_up(self, world: World, client: redis.Redis) -> None:
        for number in range(150):
            assert world.enter(f"N{number}") is None
            world.backend()
            assert world.leave() == f"N{number}"
            world.backend()
            world.clock.elapsed += 1
        sizes = _claims(client)
        assert sizes["carpark:entering"] <= 10
        assert sizes["carpark:leaving"] <= 10
        assert sizes["carpark:exits"] <= 100

    def test_a_plate_enters_only_later_than_it_left(self, world: World) -> None:
        fast = Stamps(HandClock())
        world.enter("A")
        world.backend()
        world.clock.elapsed += 30  # this exit camera's clock is half a minute ahead
        assert world.leave() == "A"
        world.backend()
        assert world.lot.enter("A", fast.stamp(), "id-1") is Refusal.TAKEN
        assert world.enter("A") is None

    def test_a_vehicle_that_entered_in_the_future_does_not_leave_yet(self, world: World) -> None:
        assert world.records
        world.records.record([entered("A", "2026-11-23T12:05:00.000000Z")])
        assert world.leave() is Refusal.AHEAD
        world.clock.elapsed += 301
        assert world.leave() == "A"

    def test_database_0_is_only_read(self, world: World, client: redis.Redis) -> None:
        for plate in numbered(5):
            world.enter(plate)
        world.backend()
        before = _contents(client)
        world.enter("X")
        world.leave()
        world.lot.slip_out("Y", world.stamps.stamp())
        world.lot.crowd()
        assert _contents(client) == before

    @pytest.mark.slow
    def test_the_last_one_of_thousands_is_found(self, world: World) -> None:
        assert world.records
        many = numbered(3000)
        world.records.record([entered(plate, world.stamps.stamp()) for plate in many])
        gone: list[str] = []
        while len(gone) < len(many):
            plate = world.leave(confirm=False)
            if plate is not Refusal.SEARCHING:
                gone.append(str(plate))
        assert sorted(gone) == many
        assert world.leave() in (Refusal.LEAVING, Refusal.SEARCHING)


def _twin(world: World) -> RedisLot:
    assert isinstance(world.lot, RedisLot)
    return RedisLot(world.lot._client, world.clock, capacity=10, retention=RETENTION)


def _claims(client: redis.Redis) -> dict[str, int]:
    sizes: dict[str, int] = {}
    client.select(1)
    for key in ("carpark:entering", "carpark:leaving", "carpark:exits"):
        sizes[key] = int(client.hlen(key))  # type: ignore[arg-type]
    client.select(0)
    return sizes


def _contents(client: redis.Redis) -> dict[str, object]:
    read = {
        "hash": client.hgetall,
        "set": client.smembers,
        "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
    }
    return {key: read[str(client.type(key))](key) for key in client.scan_iter()}
