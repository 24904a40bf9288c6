"""The ``carpark`` program: one command for each thing that one can do."""

from __future__ import annotations

import importlib

import click

from carpark import __version__
from carpark.settings.options import CONTEXT, examples, run_command

COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("carpark.embedded.command:run", "Run the whole car park in this process."),
    "generate": ("generators.cli:generate", "Run one camera: publish entries or exits."),
    "queues": ("carpark.rabbitmq.configurator:queues", "Declare the queues and keep them declared."),
    "worker": ("carpark.backend.worker:worker", "Run the backend: the actors on the queues, the relay to the sinks."),
    "writer": ("writer.cli:writer", "Run the server that appends summaries to a CSV file."),
    "dashboard": ("carpark.ops.dashboard.command:dashboard", "Show queues, workers, messages and dead letters."),
    "dlq": ("carpark.ops.dashboard.dlq:dlq", "List, show, requeue or purge dead letters."),
    "verify": ("carpark.ops.audit.command:verify", "Audit what was published: nothing lost, nothing twice."),
    "forget": ("carpark.ops.forget:forget", "Remove a plate from the records; say where else it stands."),
    "metrics": ("carpark.telemetry.command:metrics", "Say where the pages of metrics are."),
    "plugins": ("carpark.plugins.command:plugins", "List sinks and plate generators."),
    "doctor": ("carpark.ops.doctor:doctor", "Check settings and servers, and say what to do."),
}
"""Command to where it is, and what the list of commands says of it; it is imported when it is asked for."""

_WITHOUT_PLUGINS = ("queues", "writer", "dashboard", "dlq", "metrics", "plugins")


class _Commands(click.Group):
    """A group that imports a command only when it is used, so that each starts quickly."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        if cmd_name not in COMMANDS:
            raise click.UsageError(f"there is no command {cmd_name!r}; there are: {', '.join(COMMANDS)}", ctx)
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=_Commands,
    context_settings=CONTEXT,
    epilog=examples(
        "carpark run --rate 20 --duration 30",
        "carpark doctor",
        "carpark COMMAND --help",
    ),
)
@click.version_option(__version__, prog_name="carpark")
@click.pass_context
def carpark(ctx: click.Context) -> None:
    """Simulate a car park: cameras publish entries and exits, actors join them into stays, sinks take the summaries.

    Every setting has a flag and a variable CARPARK_...; the flag counts more.
    """
    if ctx.invoked_subcommand in _WITHOUT_PLUGINS:  # the others know more of them, or report it
        from carpark.plugins.options import warn_of_unknown_variables

        warn_of_unknown_variables()


def main() -> None:
    """Run the program; the console script ``carpark``."""
    run_command(carpark)
