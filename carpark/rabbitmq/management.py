"""What RabbitMQ's management API says: messages in hand, consumers, connections, alarms. AMQP does not say these."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Self
from urllib.parse import quote, unquote, urlsplit

import requests
from requests.auth import HTTPBasicAuth

from carpark.errors import BrokerUnavailable
from carpark.settings import Settings
from carpark.settings.values import mask_url
from carpark.web.ports import cause_of, client

TIMEOUT = 5.0
"""Seconds that an answer may take."""

TYPE_TIMEOUT = 2.0
"""Seconds that it may take to say of what type a queue is; without an answer RabbitMQ itself is asked."""

PEEK_TIMEOUT = 30.0
"""Seconds that a look at many messages may take at least."""

_ENABLE = "turn it on (rabbitmq-plugins enable rabbitmq_management), or name it in CARPARK_MANAGEMENT_URL"


@dataclass(frozen=True)
class QueueTotals:
    """A queue as the broker has it."""

    name: str
    ready: int | None
    unacked: int | None
    durable: bool = True
    arguments: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "classic"


@dataclass(frozen=True)
class Consumer:
    """A consumer of a queue."""

    queue: str
    connection: str
    prefetch: int


@dataclass(frozen=True)
class Connection:
    """A connection of a client."""

    name: str
    title: str
    user: str
    host: str
    since: datetime | None


@dataclass(frozen=True)
class Policy:
    """A policy of the virtual host, or an operator policy, which applies beside it."""

    name: str
    pattern: str
    apply_to: str
    priority: int
    definition: Mapping[str, Any]
    is_operator: bool

    def matches(self, name: str) -> bool:
        """Tell whether a name is meant; one whose pattern only RabbitMQ understands counts as if it were."""
        try:
            return re.search(self.pattern, name) is not None
        except re.error:
            return True


@dataclass(frozen=True)
class Peeked:
    """A message of a queue, looked at."""

    body: bytes
    size: int
    headers: Mapping[str, Any]
    properties: Mapping[str, Any]


class ManagementApi:
    """A client of the management API, for one virtual host."""

    def __init__(self, url: str, virtual_host: str, timeout: float = TIMEOUT) -> None:
        split = urlsplit(url)
        self._url, self._timeout = url, timeout
        self._base = split._replace(netloc=split.netloc.rpartition("@")[2]).geturl().rstrip("/")
        self._host = quote(virtual_host, safe="")
        self._said_at = ""
        self._session = client()
        user, password = (unquote(part or "guest").encode() for part in (split.username, split.password))
        self._session.auth = HTTPBasicAuth(user, password)  # as bytes, because text would be sent as Latin-1

    @classmethod
    def of(cls, settings: Settings, timeout: float = TIMEOUT) -> Self:
        """Make one from settings."""
        return cls(settings.management_url, virtual_host_of(settings.broker_url), timeout)

    def version(self) -> str:
        """Ask which RabbitMQ this is."""
        overview = self._get("overview")
        if not isinstance(overview, dict) or "rabbitmq_version" not in overview:
            raise self._foreign()
        return str(overview["rabbitmq_version"])

    def clock_ahead(self) -> float | None:
        """Compare RabbitMQ's clock with this machine's."""
        asked = time.time()
        self.version()
        here = (asked + time.time()) / 2
        try:
            return parsedate_to_datetime(self._said_at).timestamp() + 0.5 - here  # the header has whole seconds
        except ValueError:
            return None

    def queues(self) -> dict[str, QueueTotals]:
        """Count the messages of all queues of the virtual host, in one request."""
        # Without these two the numbers are those of the last statistics, some 5 s old and missing for new queues.
        answer = self._list(f"queues/{self._host}?disable_stats=true&enable_queue_totals=true", "name")
        return {
            each["name"]: QueueTotals(
                each["name"],
                each.get("messages_ready"),
                each.get("messages_unacknowledged"),
                bool(each.get("durable", True)),
                each.get("arguments") or {},
                str(each.get("type", "classic")),
            )
            for each in answer
        }

    def policies(self) -> list[Policy]:
        """List the policies of the virtual host: what applies to a queue shows in its statistics seconds later only."""
        return [
            Policy(
                str(each["name"]),
                str(each["pattern"]),
                str(each.get("apply-to", "all")),
                int(each.get("priority") or 0),
                dict(each.get("definition") or {}),
                kind == "operator-policies",
            )
            for kind in ("policies", "operator-policies")
            for each in self._list(f"{kind}/{self._host}", "name", "pattern")
        ]

    def bound(self, exchange: str) -> set[str]:
        """List the queues that an exchange is bound to."""
        return {
            each["destination"]
            for each in self._list(f"bindings/{self._host}", "source", "routing_key", "destination")
            if each["source"] == exchange and each["routing_key"] == each["destination"]
        }

    def consumers(self) -> list[Consumer]:
        """List the consumers of the virtual host."""
        return [
            Consumer(
                each["queue"]["name"],
                (each.get("channel_details") or {}).get("connection_name", ""),
                int(each.get("prefetch_count") or 0),
            )
            for each in self._list(f"consumers/{self._host}", "queue")
        ]

    def connections(self) -> list[Connection]:
        """List the connections to the virtual host."""
        return [_connection(each) for each in self._list(f"vhosts/{self._host}/connections")]

    def in_hand(self) -> dict[str, int]:
        """Count the messages that each connection has in hand."""
        counts: dict[str, int] = {}
        for each in self._list(f"vhosts/{self._host}/channels"):
            name = (each.get("connection_details") or {}).get("name", "")
            counts[name] = counts.get(name, 0) + int(each.get("messages_unacknowledged") or 0)
        return counts

    def peek(self, queue: str, count: int, cut: int) -> list[Peeked]:
        """Look at the first messages of a queue. RabbitMQ takes them out and puts them back in their places.

        That leaves a classic queue as it was. A quorum queue counts it as a delivery, of which it allows few.
        """
        wanted = {"count": count, "ackmode": "ack_requeue_true", "encoding": "base64", "truncate": cut}
        path = f"queues/{self._host}/{quote(queue, safe='')}/get"
        answer = self._ask("POST", path, wanted, missing=[], timeout=max(self._timeout, PEEK_TIMEOUT))
        if not isinstance(answer, list):
            raise self._foreign()
        return [_peeked(each) for each in answer]

    def alarms(self) -> list[str]:
        """Ask for the alarms during which RabbitMQ takes no messages."""
        kinds = {"mem_alarm": "memory", "disk_free_alarm": "disk space"}
        return [
            f"{word} on {node.get('name', '?')}"
            for node in self._list("nodes?columns=name,mem_alarm,disk_free_alarm")
            for key, word in kinds.items()
            if node.get(key)
        ]

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def _list(self, path: str, *keys: str) -> list[dict[str, Any]]:
        answer = self._get(path)
        if not isinstance(answer, list) or not all(
            isinstance(each, dict) and each.keys() >= {*keys} for each in answer
        ):
            raise self._foreign()
        return answer

    def _get(self, path: str) -> Any:
        return self._ask("GET", path)

    def _ask(self, method: str, path: str, json: Any = None, missing: Any = None, timeout: float | None = None) -> Any:
        url = f"{self._base}/api/{path}"
        try:
            response = self._session.request(
                method, url, json=json, timeout=timeout or self._timeout, allow_redirects=False
            )
        except OSError as error:  # every error of requests is one
            raise self._error(cause_of(error), _ENABLE) from error
        self._said_at = response.headers.get("Date", "")
        if response.status_code == 401:
            raise self._error(*_refused(response))
        if response.status_code == 404 and missing is not None and "no queue" in response.text:
            return missing
        if response.status_code == 404 and self._host in path:
            raise self._error(f"there is no virtual host {unquote(self._host)!r}", "check CARPARK_BROKER_URL")
        if response.status_code >= 500:
            raise self._error(f"it answers {response.status_code}", "look into RabbitMQ's log")
        try:
            if response.status_code != 200:
                raise self._foreign()
            return response.json()
        except ValueError:
            raise self._foreign() from None

    def _foreign(self) -> BrokerUnavailable:
        return self._error("what answers there is something else", "check host and port in CARPARK_MANAGEMENT_URL")

    def _error(self, reason: str, remedy: str) -> BrokerUnavailable:
        return BrokerUnavailable(f"RabbitMQ's management API at {mask_url(self._url)}: {reason}; {remedy}")


def virtual_host_of(broker_url: str) -> str:
    """Read the virtual host from a broker URL, as the AMQP client does."""
    return unquote(urlsplit(broker_url.split(";")[0].strip()).path[1:]) or "/"


def _refused(response: requests.Response) -> tuple[str, str]:
    if "management user" in response.text:
        return "the user may not use it", "rabbitmqctl set_user_tags USER monitoring"
    return "it refuses the user or the password", "check both in CARPARK_MANAGEMENT_URL"


def _peeked(each: dict[str, Any]) -> Peeked:
    properties = dict(each.get("properties") or {})  # an empty table comes as an empty list
    headers = dict(properties.pop("headers", None) or {})
    body = base64.b64decode(each.get("payload", ""))
    return Peeked(body, int(each.get("payload_bytes", len(body))), headers, properties)


def _connection(each: dict[str, Any]) -> Connection:
    since = each.get("connected_at")
    return Connection(
        str(each.get("name", "")),
        str((each.get("client_properties") or {}).get("connection_name", "")),
        str(each.get("user", "")),
        str(each.get("peer_host", "")),
        datetime.fromtimestamp(since / 1000, UTC) if isinstance(since, (int, float)) else None,
    )
