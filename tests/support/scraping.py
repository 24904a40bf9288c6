"""Reads pages of metrics as Prometheus does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import requests
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from carpark.services import SERVICES

PAGE = r"metrics at (http://\S+/metrics)"
"""What each service says about its page."""

OURS = re.compile(f"({'|'.join(filter(None, (service.prefix for service in SERVICES.values())))}|dramatiq)_")
"""The namespaces of the system; what else a page shows is about its process."""


@dataclass(frozen=True)
class Page:
    """What a page of metrics said at one moment.

    Args:
        text: As it came.
    """

    text: str

    @classmethod
    def get(cls, url: str) -> Page:
        """Fetch a page.

        Args:
            url: Where it is.

        Returns:
            What it says now.
        """
        answer = requests.get(url, timeout=10)
        answer.raise_for_status()
        return cls(answer.text)

    def families(self) -> Iterator[Metric]:
        """Read the metrics.

        Returns:
            Those of the system, not those of a process.
        """
        return (family for family in text_string_to_metric_families(self.text) if OURS.match(family.name))

    def series(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """Read the series.

        Returns:
            Name and sorted labels to value.
        """
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in self.families()
            for sample in family.samples
        }

    def total(self, name: str, **labels: str) -> float:
        """Add up series.

        Args:
            name: The series' name.
            labels: What their labels are; those not given may be anything.

        Returns:
            The sum; 0 where there is none.
        """
        wanted = labels.items()
        return sum(
            value for (found, given), value in self.series().items() if found == name and wanted <= dict(given).items()
        )

    @property
    def events_worked_on(self) -> float:
        """Dramatiq's count of events; a delivery that a busy machine has tried again is a message, but no event."""
        return sum(self.total("dramatiq_messages_total", actor_name=f"vehicle_{kind}") for kind in ("entry", "exit"))
