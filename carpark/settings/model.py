"""The settings: one frozen model, whose fields are also the flags, the variables, and the docs' table.

They are read once, at the start of a process, and passed down; nothing else in the project looks at the environment for
them. A new setting is one more field."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from carpark.services import ON_METRICS_PORT, SERVICES
from carpark.settings import urls, values
from carpark.settings.fields import options_of, read, shown, with_flags
from carpark.settings.values import File, OptionalPort, Port, Text, as_text, integer, number, one_of, secret, url

MOST_PARTITIONS = 64
"""How many there may be: each costs a worker process four connections to RabbitMQ, and at its start eight."""

_BROKER = "amqp://user:password@host:port/vhost (several separated by ;), or stub://"
_REDIS = "redis://host:port/0, redis+sentinel://host:port,host:port/name/0, or memory://"
_LOGIN = secret("([ -9;-~]+:[ -~]+)?", "user:password in printable ASCII characters", "USER:PASSWORD")
_seconds = partial(number, what="a number of seconds", metavar="SECONDS")


class Settings(BaseModel, frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True):
    """The values of all settings."""

    broker_url: Annotated[str, Text(urls.amqp_url, _BROKER, "URL", mask="url")] = Field(
        default="amqp://guest:guest@localhost:5672",
        description="RabbitMQ; several URLs separated by `;` for a cluster; `stub://` for the in-process broker",
    )
    queue_type: Annotated[str, one_of("classic", "quorum", metavar="TYPE")] = Field(
        default="classic",
        description="kind of RabbitMQ queue: `quorum` for queues that a cluster keeps on several nodes; the same for "
        "all services",
    )
    partitions: Annotated[int, integer(1, MOST_PARTITIONS)] = Field(
        default=1, description="event queues per kind, for all services"
    )
    management_url: Annotated[str, url("http://user:password@host:port", "http", "https").optional("")] = Field(
        default="",
        description="RabbitMQ's management API, user and password included; by default made of the broker URL, port "
        "15672",
    )
    redis_url: Annotated[str, Text(urls.redis_url, _REDIS, "URL", mask="url")] = Field(
        default="redis://localhost:6379/0",
        description="Redis, where the records are; `redis+sentinel://` for the primary that Sentinels name; "
        "`memory://` for the in-process store",
    )
    writer_url: Annotated[str, url("http://host:port", "http", "https")] = Field(
        default=f"http://localhost:{SERVICES['writer'].port}", description="where the default sink posts summaries"
    )
    writer_token: Annotated[str, secret("[!-~]*", "printable ASCII characters without spaces", "TOKEN")] = Field(
        default="", description="if set, the writer wants it as a bearer token on POST and the sink sends it"
    )
    csv: File = Field(default=Path("data/summaries.csv"), description="the writer's file")
    sinks: Annotated[
        tuple[str, ...],
        Text(values.some_names, "names of sinks, comma-separated; `carpark plugins` lists them", "NAMES"),
    ] = Field(default=("http-csv",), description="summary sinks in use, comma-separated")
    sink_timeout: Annotated[float, _seconds(0.001, 600)] = Field(
        default=5, description="seconds that one delivery to a sink may take"
    )
    sink_retries: Annotated[int, integer(0, 1_000_000)] = Field(
        default=20, description="how often a failed delivery is tried again before it is dead-lettered"
    )
    sink_retry_min: Annotated[float, _seconds(0.001, 1200)] = Field(
        default=1, description="seconds before the first retry of a delivery; doubled with each"
    )
    sink_retry_max: Annotated[float, _seconds(0.001, 1200)] = Field(
        default=300, description="seconds between two retries of a delivery at most"
    )
    plates: Annotated[str, Text(values.word, "the name of a plate generator; `carpark plugins` lists them", "NAME")] = (
        Field(default="alphanumeric", description="plate generator in use")
    )
    plugins: Annotated[tuple[str, ...], Text(values.names, "names of Python modules, comma-separated", "MODULES")] = (
        Field(default=(), description="modules to load as plugins beside the installed ones, comma-separated")
    )
    match_ratio: Annotated[float, number(0, 1, metavar="RATIO")] = Field(
        default=0.8, description="share of exits whose plate was seen entering"
    )
    rate: Annotated[float, number(0.000001, 100_000, metavar="RATE")] = Field(
        default=5, description="events per second of a generator"
    )
    capacity: Annotated[int, integer(0, 1_000_000_000, note=" (0 for none)")] = Field(
        default=1000, description="vehicles inside at which the entry generator waits at the barrier; 0 for no limit"
    )
    retention: Annotated[float, _seconds(1, 1_000_000_000)] = Field(
        default=172_800,
        description="seconds that an event may be late: how long its id is known, an exit waits for its entry, a "
        "finished stay's record lasts, by Redis' clock",
    )
    batch: Annotated[int, integer(1, 1000)] = Field(
        default=100,
        description="events that the backend works on together at most, when they arrive faster than one by one; 1 for "
        "each alone",
    )
    bind: Annotated[str, Text(values.word, "an address of this machine", "ADDRESS")] = Field(
        default="127.0.0.1", description="address that every port binds to"
    )
    writer_port: Port = Field(default=SERVICES["writer"].port, description="the writer's port; 0 for a free one")
    dashboard_port: Port = Field(
        default=SERVICES["dashboard"].port, description="the dashboard's port; 0 for a free one"
    )
    dashboard_login: Annotated[str, _LOGIN] = Field(
        default="",
        description="user:password that the pages of dashboard and writer ask for; needed where other machines can "
        "reach them, but the writer's token will do for its own",
    )
    dashboard_links: Annotated[
        tuple[str, ...], Text(values.links, "name=http://host pairs, comma-separated", "LINKS")
    ] = Field(
        default=(),
        description="where the dashboard links to, comma-separated (`Grafana=http://localhost:3000`); else RabbitMQ "
        "and the writer",
    )
    metrics_port: OptionalPort = Field(
        default=None,
        description="port of a service's metrics; by default "
        f"{', '.join(f'{service.title} {service.port}' for service in ON_METRICS_PORT)}; 0 for a free one",
    )

    def __repr_args__(self) -> Iterable[tuple[str, str]]:
        return shown(self).items()  # a log line, or an error of a plugin, may show it

    @field_validator("management_url")
    @classmethod
    def _of_the_broker(cls, given: str, info: ValidationInfo) -> str:
        return given or values.management_url_of(info.data.get("broker_url", ""))

    @field_validator("sink_retry_max")
    @classmethod
    def _not_below_the_least(cls, most: float, info: ValidationInfo) -> float:
        least = info.data.get("sink_retry_min", most)  # a wrong one is not there, and said by itself
        if most < least:
            raise ValueError(f"at least CARPARK_SINK_RETRY_MIN, which is {as_text(least)}")
        return most


def load_settings(environ: Mapping[str, str] | None = None, flags: Mapping[str, str | None] | None = None) -> Settings:
    """Read all settings.

    Args:
        environ: The variables; the process's own by default. An empty variable counts as not set.
        flags: Setting name to the text given on the command line; None for one that was not given.

    Returns:
        The frozen values.

    Raises:
        ConfigurationError: A value is wrong, or two do not fit each other; it holds all that is wrong.
    """
    given = {name: text for name, text in (flags or {}).items() if text is not None}
    options = options_of(Settings).values()
    return read(Settings, with_flags(os.environ if environ is None else environ, given, options))
