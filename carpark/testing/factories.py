"""Summaries and contexts to try plugins with."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from carpark.domain.events import StaySummary, format_time
from carpark.plugins.base import PluginContext
from carpark.settings import load_settings

_ENTERED = datetime(2026, 11, 23, 18, tzinfo=UTC)


def make_summary(
    id_: str | None = None,
    plate: str = "QBF0427",
    *,
    entered: datetime = _ENTERED,
    stayed: timedelta = timedelta(minutes=90),
) -> StaySummary:
    """Make the summary of a stay.

    Args:
        id_: Its id; by default one that no other has.
        plate: Its plate, in canonical form.
        entered: When the vehicle came, as an aware datetime.
        stayed: How long it stayed.

    Returns:
        The summary.
    """
    return StaySummary.of_stay(id_ or str(uuid.uuid4()), plate, format_time(entered), format_time(entered + stayed))


def make_summaries(count: int) -> list[StaySummary]:
    """Make the summaries of several stays.

    Args:
        count: How many.

    Returns:
        Summaries with ids, plates and times that differ.
    """
    return [
        make_summary(plate=f"QBF{number:04}", entered=_ENTERED + timedelta(seconds=number)) for number in range(count)
    ]


def make_context(environ: Mapping[str, str] | None = None, own: object = None) -> PluginContext:
    """Make what a plugin is given.

    Args:
        environ: The variables that are set; the process's own do not count.
        own: The offer's own settings, an object of its model.

    Returns:
        The context, with the defaults of all other settings.
    """
    environ = dict(environ or {})
    context = PluginContext(load_settings(environ), environ)
    return context if own is None else replace(context, own=own)
