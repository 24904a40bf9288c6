"""Puts cameras together from settings: one for a service, both for a run in one process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from carpark.domain.events import VehicleEntered, VehicleExited
from carpark.errors import ConfigurationError
from carpark.plugins import PlateGenerator, Plugins
from carpark.settings import Settings
from generators.cameras import Camera, EntryCamera, ExitCamera
from generators.chance import MatchSequence, stream
from generators.clock import Clock, Stamps
from generators.journal import Journal
from generators.lane import Lane
from generators.lot import LocalLot, Lot
from generators.metrics import CameraMetrics
from generators.schedule import Schedule

KINDS: dict[str, type[VehicleEntered] | type[VehicleExited]] = {
    VehicleEntered.kind: VehicleEntered,
    VehicleExited.kind: VehicleExited,
}


@dataclass(frozen=True)
class Plan:
    """What a run of cameras is asked for beside the settings."""

    events: int | None = None
    seed: str | None = None
    journals: Mapping[str, Path] = field(default_factory=dict)


def make_lane(
    kind: str,
    settings: Settings,
    plan: Plan,
    *,
    plugins: Plugins,
    lot: Lot,
    clock: Clock,
    stamps: Stamps | None = None,
    start: float | None = None,
    registry: CollectorRegistry | None = None,
) -> Lane:
    """Make one camera with all that belongs to it."""
    plates = plugins.make_plates(plugins.context(settings), stream(plan.seed, f"{kind}/plates"))
    journal = Journal(plan.journals[kind], KINDS[kind]) if kind in plan.journals else None
    camera = _camera(kind, settings, plan, plates, lot, stamps or Stamps(clock, journal.last if journal else None))
    lane = Lane(
        camera,
        Schedule(settings.rate, clock.monotonic() if start is None else start),
        journal=journal,
        events=plan.events,
        metrics=CameraMetrics(kind, registry) if registry else None,
    )
    try:
        if plan.seed is not None:
            lane.forward()
    except ConfigurationError:
        lane.close()
        raise
    return lane


def local_lanes(
    settings: Settings, plan: Plan, *, plugins: Plugins, clock: Clock, registry: CollectorRegistry | None = None
) -> list[Lane]:
    """Make both cameras of a run that has everything in one process."""
    lot = LocalLot(settings.capacity, stream(plan.seed, "exit/who"))
    shared: dict[str, Any] = {"lot": lot, "clock": clock, "stamps": Stamps(clock), "start": clock.monotonic()}
    lanes: list[Lane] = []
    try:
        for kind in KINDS:
            lanes.append(make_lane(kind, settings, plan, plugins=plugins, registry=registry, **shared))
    except ConfigurationError:
        for lane in lanes:
            lane.close()
        raise
    return lanes


def _camera(kind: str, settings: Settings, plan: Plan, plates: PlateGenerator, lot: Lot, stamps: Stamps) -> Camera:
    if kind == VehicleEntered.kind:
        return EntryCamera(lot, plates, stamps, settings.capacity)
    return ExitCamera(lot, plates, stamps, MatchSequence(settings.match_ratio, stream(plan.seed, "exit/match")))
