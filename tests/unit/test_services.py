"""The table of services is what the contract with its users says, and what commands and settings have."""

from __future__ import annotations

import click
import pytest

from carpark.cli import carpark
from carpark.services import ON_METRICS_PORT, SERVICES, Service
from carpark.settings import Settings
from carpark.settings.fields import options_of
from tests.support.metrics_docs import PAGE, documented

DEFAULTS = {option.variable: option.default for option in options_of(Settings).values()}


def test_ports_and_namespaces_are_those_that_users_know() -> None:
    assert {name: (service.port, service.prefix) for name, service in SERVICES.items()} == {
        "writer": (40000, "web_backend"),
        "dashboard": (40001, ""),
        "backend": (9191, "go_backend"),
        "entry": (9201, "vehicle_entry"),
        "exit": (9202, "vehicle_exit"),
        "queues": (9203, "queue_configurator"),
        "run": (9190, ""),
    }


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_a_service_s_command_is_one_that_there_is(service: Service) -> None:
    command: click.Command | None = carpark
    for word in service.command.split():
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), word)
    assert command


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_a_service_s_port_is_the_default_of_its_setting(service: Service) -> None:
    assert DEFAULTS[service.setting] == ("" if service in ON_METRICS_PORT else str(service.port))


def test_every_metric_has_the_prefix_of_a_service() -> None:
    prefixes = {service.prefix for service in SERVICES.values() if service.prefix}
    found = {prefix for prefix in prefixes for name in documented() if name.startswith(f"{prefix}_")}
    strangers = [name for name in documented() if not name.startswith(tuple(f"{each}_" for each in prefixes))]
    assert found == prefixes
    assert [name for name in strangers if not name.startswith("dramatiq_")] == []


def test_the_docs_say_where_each_page_is() -> None:
    for service in (SERVICES["writer"], *ON_METRICS_PORT):
        namespace = f"`{service.prefix}`" if service.prefix else "all of them"
        row = (
            f"| {service.title} (`carpark {service.command}`) | `http://127.0.0.1:{service.port}/metrics` | {namespace}"
        )
        assert row in PAGE
