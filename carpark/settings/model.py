"""One table of settings, from which flags, variables and the docs' table come, and one frozen object that holds them.

A value is taken from the flag, else from the environment variable, else from the default. Settings are read once, at
the start of a process, and passed down; nothing else in the project looks at the environment for them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carpark.errors import InvalidSetting
from carpark.services import ON_METRICS_PORT, SERVICES
from carpark.settings import values
from carpark.settings.sentinels import redis_url
from carpark.settings.values import MASK as MASK
from carpark.settings.values import management_url_of as management_url_of
from carpark.settings.values import mask_url as mask_url

PREFIX = "CARPARK_"


@dataclass(frozen=True)
class Setting:
    """One row of the table.

    Args:
        name: The attribute of `Settings`; in upper case with ``CARPARK_`` it is the variable, with hyphens the flag.
        default: The default as text, as the docs show it.
        wanted: What a right value is, for help and errors.
        parse: From text to value; raises ValueError when the text is not a right value.
        help: What the setting means.
        metavar: What the help shows for the value.
        secret: How the value is masked when it is shown: not at all, whole, or the password in a URL.
    """

    name: str
    default: str
    wanted: str
    parse: Callable[[str], Any]
    help: str
    metavar: str = "TEXT"
    secret: str = ""

    @property
    def variable(self) -> str:
        """The environment variable."""
        return PREFIX + self.name.upper()

    @property
    def flag(self) -> str:
        """The command line flag."""
        return "--" + self.name.replace("_", "-")

    def read(self, text: str) -> Any:
        """Make a value of text.

        Args:
            text: What the flag or the variable says.

        Returns:
            The value.

        Raises:
            InvalidSetting: The text is not a right value.
        """
        try:
            return self.parse(text)
        except ValueError:
            raise InvalidSetting(self.variable, self.shown(text), self.wanted) from None

    def shown(self, text: str) -> str:
        """Mask what is secret in a value.

        Args:
            text: The value as text.

        Returns:
            The text that may be printed.
        """
        if self.secret == "all" and text:
            return values.MASK
        if self.secret == "url":
            return values.mask_urls(text)
        return text


MOST_PARTITIONS = 64
"""How many there may be: each costs a worker process four connections to RabbitMQ, and at its start eight."""

_PORT = "a port from 0 to 65535 (0 for a free one)"
_port = values.integer(0, 65535)
_PARTS = f"a whole number from 1 to {MOST_PARTITIONS}"
_SECONDS = "a number of seconds from 0.001 to "

SETTINGS: tuple[Setting, ...] = (
    Setting(
        "broker_url",
        "amqp://guest:guest@localhost:5672",
        "amqp://user:password@host:port/vhost (several separated by ;), or stub://",
        values.url("amqp", "amqps", "stub", several=True),
        "RabbitMQ; several URLs separated by `;` for a cluster; `stub://` for the in-process broker",
        "URL",
        "url",
    ),
    Setting(
        "queue_type",
        "classic",
        "classic or quorum",
        values.one_of("classic", "quorum"),
        "kind of RabbitMQ queue: `quorum` for queues that a cluster keeps on several nodes; the same for all services",
        "TYPE",
    ),
    Setting(
        "partitions", "1", _PARTS, values.integer(1, MOST_PARTITIONS), "event queues per kind, for all services", "N"
    ),
    Setting(
        "management_url",
        "",
        "http://user:password@host:port",
        values.optional_url("http", "https"),
        "RabbitMQ's management API, user and password included; by default made of the broker URL, port 15672",
        "URL",
        "url",
    ),
    Setting(
        "redis_url",
        "redis://localhost:6379/0",
        "redis://host:port/0, redis+sentinel://host:port,host:port/name/0, or memory://",
        redis_url,
        "Redis, where the records are; `redis+sentinel://` for the primary that Sentinels name; `memory://` for the "
        "in-process store",
        "URL",
        "url",
    ),
    Setting(
        "writer_url",
        f"http://localhost:{SERVICES['writer'].port}",
        "http://host:port",
        values.url("http", "https"),
        "where the default sink posts summaries",
        "URL",
        "url",
    ),
    Setting(
        "writer_token",
        "",
        "printable ASCII characters without spaces",
        values.token,
        "if set, the writer wants it as a bearer token on POST and the sink sends it",
        "TOKEN",
        "all",
    ),
    Setting("csv", "data/summaries.csv", "a file name", values.path, "the writer's file", "FILE"),
    Setting(
        "sinks",
        "http-csv",
        "names of sinks, comma-separated; `carpark plugins` lists them",
        values.some_names,
        "summary sinks in use, comma-separated",
        "NAMES",
    ),
    Setting(
        "sink_timeout",
        "5",
        _SECONDS + "600",
        values.number(0.001, 600),
        "seconds that one delivery to a sink may take",
        "SECONDS",
    ),
    Setting(
        "sink_retries",
        "20",
        "a whole number from 0 to 1000000",
        values.integer(0, 1_000_000),
        "how often a failed delivery is tried again before it is dead-lettered",
        "N",
    ),
    Setting(
        "sink_retry_min",
        "1",
        _SECONDS + "1200",
        values.number(0.001, 1200),
        "seconds before the first retry of a delivery; doubled with each",
        "SECONDS",
    ),
    Setting(
        "sink_retry_max",
        "300",
        _SECONDS + "1200",
        values.number(0.001, 1200),
        "seconds between two retries of a delivery at most",
        "SECONDS",
    ),
    Setting(
        "sink_csv", "data/stays.csv", "a file name", values.path, "the file that the sink `csv` appends to", "FILE"
    ),
    Setting(
        "sink_jsonl",
        "data/stays.jsonl",
        "a file name",
        values.path,
        "the file that the sink `jsonl` appends to",
        "FILE",
    ),
    Setting(
        "sink_sqlite", "data/stays.sqlite", "a file name", values.path, "the database of the sink `sqlite`", "FILE"
    ),
    Setting(
        "webhook_url",
        "",
        "http://host/path",
        values.optional_url("http", "https"),
        "where the sink `webhook` posts each summary",
        "URL",
        "url",
    ),
    Setting(
        "webhook_secret",
        "",
        "printable ASCII characters",
        values.secret,
        "if set, the sink `webhook` signs what it posts with it (HMAC-SHA256)",
        "SECRET",
        "all",
    ),
    Setting(
        "plates",
        "alphanumeric",
        "the name of a plate generator; `carpark plugins` lists them",
        values.word,
        "plate generator in use",
        "NAME",
    ),
    Setting(
        "plates_file", "", "a file name", values.optional_path, "the plates of the generator `file`, one a line", "FILE"
    ),
    Setting(
        "plugins",
        "",
        "names of Python modules, comma-separated",
        values.names,
        "modules to load as plugins beside the installed ones, comma-separated",
        "MODULES",
    ),
    Setting(
        "match_ratio",
        "0.8",
        "a number from 0 to 1",
        values.number(0, 1),
        "share of exits whose plate was seen entering",
        "RATIO",
    ),
    Setting(
        "rate",
        "5",
        "a number from 0.000001 to 100000",
        values.number(0.000001, 100_000),
        "events per second of a generator",
        "RATE",
    ),
    Setting(
        "capacity",
        "1000",
        "a whole number from 0 to 1000000000 (0 for none)",
        values.integer(0, 1_000_000_000),
        "vehicles inside at which the entry generator waits at the barrier; 0 for no limit",
        "N",
    ),
    Setting(
        "retention",
        "172800",
        "a number of seconds from 1 to 1000000000",
        values.number(1, 1_000_000_000),
        "seconds that an event may be late: how long its id is known, an exit waits for its entry, a finished stay's "
        "record lasts, by Redis' clock",
        "SECONDS",
    ),
    Setting(
        "batch",
        "100",
        "a whole number from 1 to 1000",
        values.integer(1, 1000),
        "events that the backend works on together at most, when they arrive faster than one by one; 1 for each alone",
        "N",
    ),
    Setting(
        "bind", "127.0.0.1", "an address of this machine", values.word, "address that every port binds to", "ADDRESS"
    ),
    Setting("writer_port", str(SERVICES["writer"].port), _PORT, _port, "the writer's port; 0 for a free one", "PORT"),
    Setting(
        "dashboard_port",
        str(SERVICES["dashboard"].port),
        _PORT,
        _port,
        "the dashboard's port; 0 for a free one",
        "PORT",
    ),
    Setting(
        "dashboard_login",
        "",
        "user:password in printable ASCII characters",
        values.login,
        "user:password that the dashboard asks for; needed where other machines can reach it",
        "USER:PASSWORD",
        "all",
    ),
    Setting(
        "dashboard_links",
        "",
        "name=http://host pairs, comma-separated",
        values.links,
        "where the dashboard links to, comma-separated (`Grafana=http://localhost:3000`); else RabbitMQ and the writer",
        "LINKS",
    ),
    Setting(
        "metrics_port",
        "",
        _PORT,
        values.optional_port,
        "port of a service's metrics; by default "
        f"{', '.join(f'{service.title} {service.port}' for service in ON_METRICS_PORT)}; 0 for a free one",
        "PORT",
    ),
)
"""Every setting there is."""

BY_NAME: dict[str, Setting] = {setting.name: setting for setting in SETTINGS}


@dataclass(frozen=True)
class Settings:
    """The values of all settings; see `SETTINGS` for what each means."""

    broker_url: str
    queue_type: str
    partitions: int
    management_url: str
    redis_url: str
    writer_url: str
    writer_token: str
    csv: Path
    sinks: tuple[str, ...]
    sink_timeout: float
    sink_retries: int
    sink_retry_min: float
    sink_retry_max: float
    sink_csv: Path
    sink_jsonl: Path
    sink_sqlite: Path
    webhook_url: str
    webhook_secret: str
    plates: str
    plates_file: Path | None
    plugins: tuple[str, ...]
    match_ratio: float
    rate: float
    capacity: int
    retention: float
    batch: int
    bind: str
    writer_port: int
    dashboard_port: int
    dashboard_login: str
    dashboard_links: tuple[str, ...]
    metrics_port: int | None

    def shown(self) -> dict[str, str]:
        """Give every setting as text that may be printed.

        Returns:
            Variable to value, secrets masked.
        """
        return {setting.variable: setting.shown(values.as_text(getattr(self, setting.name))) for setting in SETTINGS}


def load_settings(environ: Mapping[str, str] | None = None, flags: Mapping[str, str | None] | None = None) -> Settings:
    """Read all settings.

    Args:
        environ: The variables; the process's own by default. An empty variable counts as not set.
        flags: Setting name to the text given on the command line; None for one that was not given.

    Returns:
        The frozen values.

    Raises:
        InvalidSetting: A value is wrong, or two do not fit each other.
    """
    environ = os.environ if environ is None else environ
    given = {name: text for name, text in (flags or {}).items() if text is not None}
    read = {
        setting.name: setting.read(given.get(setting.name, environ.get(setting.variable) or setting.default))
        for setting in SETTINGS
    }
    if not read["management_url"]:
        read["management_url"] = management_url_of(read["broker_url"])
    settings = Settings(**read)
    if settings.sink_retry_max < settings.sink_retry_min:
        raise InvalidSetting(
            BY_NAME["sink_retry_max"].variable,
            values.as_text(settings.sink_retry_max),
            f"at least CARPARK_SINK_RETRY_MIN, which is {values.as_text(settings.sink_retry_min)}",
        )
    return settings
