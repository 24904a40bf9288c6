"""Which processes consume a queue, as RabbitMQ's management API has it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import requests

from carpark.rabbitmq.management import virtual_host_of

_TITLE = re.compile(r".*:(\d+)")
_ADDRESS = re.compile(r".*?:(\d+) -> .*")


@dataclass(frozen=True)
class Consumer:
    """A consumer of a queue.

    Args:
        pid: Its process.
        port: Its connection's port, as RabbitMQ sees it.
        active: Whether it gets messages: with a single active consumer one does, otherwise all.
    """

    pid: int
    port: int
    active: bool


class Consumers:
    """Asks for the consumers of one virtual host.

    Args:
        management_url: The management API, user and password included.
        broker_url: A URL of the broker, with the virtual host.
    """

    def __init__(self, management_url: str, broker_url: str) -> None:
        self._api, self._host = f"{management_url}/api", quote(virtual_host_of(broker_url), safe="")

    def of(self, queue: str) -> list[Consumer]:
        """List those of a queue.

        Args:
            queue: The queue.

        Returns:
            Those whose process is known: RabbitMQ says what a connection calls itself some moments after it was made.
        """
        pids = self.pids()
        names = {
            each["channel_details"]["connection_name"]: bool(each.get("active", True))
            for each in self._ask(f"consumers/{self._host}")
            if each["queue"]["name"] == queue and each["channel_details"]  # a list, and empty, when it is gone
        }
        return [Consumer(pids[name], _number(_ADDRESS, name), active) for name, active in names.items() if name in pids]

    def pids(self) -> dict[str, int]:
        """Say whose the connections are.

        Returns:
            A connection's name to its process.
        """
        connections = self._ask(f"vhosts/{self._host}/connections")
        return {
            each["name"]: _number(_TITLE, each.get("client_properties", {}).get("connection_name", ""))
            for each in connections
            if "client_properties" in each
        }

    def _ask(self, path: str) -> list[dict[str, Any]]:
        answer = requests.get(f"{self._api}/{path}", timeout=10)
        answer.raise_for_status()
        listed: list[dict[str, Any]] = answer.json()
        return listed


def _number(pattern: re.Pattern[str], text: str) -> int:
    found = pattern.fullmatch(text)
    return int(found[1]) if found else 0
