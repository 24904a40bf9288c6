"""The command: reads the settings, runs the checks, shows what they found."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from carpark.ops.doctor.findings import Check, Finding, Level, run_checks, status_of
from carpark.ops.doctor.given import Given, read_given
from carpark.ops.doctor.local import check_files, check_offer, check_plugins, check_ports, check_python
from carpark.ops.doctor.policies import check_policies
from carpark.ops.doctor.rights import check_broker_rights, check_redis_rights
from carpark.ops.doctor.servers import check_broker, check_management, check_message_size, check_redis
from carpark.plugins import Plugins
from carpark.plugins.options import PluginCommand, loaded
from carpark.settings import Settings
from carpark.settings.options import CONTEXT, examples, settings_options

SECONDS = 4.0
"""How long all checks together may take."""

CHECKS = (
    Check("python", (), check_python, ""),
    Check("rabbitmq", ("broker_url",), check_broker, "start RabbitMQ, or name another one in CARPARK_BROKER_URL"),
    Check(
        "management api",
        ("broker_url", "management_url"),
        check_management,
        "rabbitmq-plugins enable rabbitmq_management, or name it in CARPARK_MANAGEMENT_URL",
    ),
    Check(
        "policies",
        ("broker_url", "management_url"),
        check_policies,
        "rabbitmqctl list_policies and list_operator_policies show them",
    ),
    Check("message size", ("broker_url",), check_message_size, "look into RabbitMQ's log"),
    Check("redis", ("redis_url",), check_redis, "start Redis, or name another one in CARPARK_REDIS_URL"),
    Check("rabbitmq rights", ("broker_url",), check_broker_rights, "is RabbitMQ slow?"),
    Check("redis rights", ("redis_url",), check_redis_rights, "is Redis slow?"),
    Check("files", ("csv",), check_files, "is the disk of CARPARK_CSV there?"),
    Check("ports", ("bind", "writer_port", "dashboard_port", "metrics_port"), check_ports, "look at CARPARK_BIND"),
)
"""The checks of the core, in the order of the report; those of the offers in use come behind them."""

_COLOURS = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "red"}


def checks_of(plugins: Plugins, given: Given) -> list[Check]:
    """List what is looked at."""

    needs = tuple(sorted(given.unusable))
    used = [
        Check(offer.name, needs, partial(check_offer, offer, plugins=plugins), f"look into what {offer.name} uses")
        for offer in (found.offer for found in plugins.in_use(given.settings))
        if offer.check
    ]
    ours = Check("plugins", ("plugins", "sinks", "plates"), partial(check_plugins, plugins=plugins), "mend the plugins")
    return [*CHECKS, ours, *used]


def _reader(flags: Mapping[str, str]) -> dict[str, Any]:
    """Read what is right of the settings; `plugin_options` would take no value that is wrong."""
    plugins = loaded()
    return {"plugins": plugins, "given": read_given(os.environ, flags, plugins)}


@click.command(
    "doctor",
    cls=PluginCommand,
    context_settings=CONTEXT,
    epilog=examples(
        "carpark doctor",
        "carpark doctor --json",
        "carpark doctor --broker-url amqp://user:password@rabbit --redis-url redis://redis/0",
    ),
)
@settings_options(*Settings.model_fields, reader=_reader)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON")
def doctor(plugins: Plugins, given: Given, as_json: bool) -> int:
    """Check each setting and server, and say what is wrong and what to do.

    Changes nothing. Ends with status 0 when all is well or worth no more than a warning, 1 when a server has a
    problem, 2 when a setting is wrong.
    """
    findings = run_checks(checks_of(plugins, given), given.settings, given.unusable, SECONDS)
    # Python first, then the settings: the order in which one would mend things.
    findings = [*findings[:1], *given.findings, *findings[1:]]
    status = status_of(findings)
    if as_json:
        click.echo(json.dumps({"status": status, "checks": [asdict(finding) for finding in findings]}, indent=2))
    else:
        _show(findings)
    return status


def _show(findings: Sequence[Finding]) -> None:
    console = Console()
    if console.is_terminal:
        console.print(_table(findings))
    else:
        for finding in findings:
            advice = f"; {finding.advice}" if finding.advice else ""
            click.echo(f"{finding.level:<8} {finding.check}: {finding.found}{advice}")
    counts = Counter(finding.level for finding in findings)
    levels = (Level.PROBLEM, Level.WARNING)
    parts = [f"{counts[level]} {level}{'s' * (counts[level] > 1)}" for level in levels if counts[level]]
    click.echo(f"doctor: {' and '.join(parts) or 'all is well'}")


def _table(findings: Sequence[Finding]) -> Table:
    table = Table(title="carpark doctor", title_justify="left", expand=False)
    for heading in ("", "check", "found", "what to do"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        level = Text(finding.level.value, style=_COLOURS[finding.level])
        table.add_row(level, Text(finding.check), Text(finding.found), Text(finding.advice))
    return table
