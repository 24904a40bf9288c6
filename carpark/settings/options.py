"""Turns the table of settings into flags, and errors into one line and an exit status."""

from __future__ import annotations

import functools
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import click

from carpark.errors import CarparkError, ConfigurationError, InvalidSetting, one_line
from carpark.settings import Settings, load_settings
from carpark.settings.model import BY_NAME, SETTINGS
from carpark.settings.values import number

EXIT_OK = 0
EXIT_FAILED = 1
"""The work failed, or the audit found something."""
EXIT_USAGE = 2
"""The command or a setting was wrong."""
EXIT_INTERRUPTED = 130
"""Ctrl-C, where the command does not end in an orderly way on its own; what shells make of SIGINT."""

SINK_SETTINGS = (
    "sink_timeout",
    "sink_retries",
    "sink_retry_min",
    "sink_retry_max",
    "sink_csv",
    "sink_jsonl",
    "sink_sqlite",
    "webhook_url",
    "webhook_secret",
)
"""The settings of deliveries and of the built-in sinks, for every command that delivers."""

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def settings_options(*names: str, flags: Mapping[str, str] | None = None) -> Callable[[Callable[..., Any]], Any]:
    """Give a click command the flags of some settings; the command then takes the argument ``settings``.

    Args:
        names: Names of settings, in the order in which ``--help`` shows them.
        flags: Setting name to flag, where it is not the ordinary one (``{"writer_port": "--port"}``).

    Returns:
        A decorator. The command's ``settings`` is a `carpark.settings.Settings` read from flags and environment.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def run(**arguments: Any) -> Any:
            given = {name: arguments.pop(name) for name in names}
            return command(settings=_load(given, flags or {}), **arguments)

        decorated: Callable[..., Any] = run
        for name in reversed(names):
            setting = BY_NAME[name]
            default = f"; default {setting.shown(setting.default)}" if setting.default else ""
            text = setting.help.replace("`", "")
            decorated = click.option(
                (flags or {}).get(name, setting.flag),
                name,
                metavar=setting.metavar,
                help=f"{text[0].upper()}{text[1:]}  [{setting.variable}{default}]",
            )(decorated)
        return decorated

    return decorate


def seconds(low: float, high: float = math.inf) -> Callable[[click.Context, click.Parameter, str | None], float | None]:
    """Make a click callback that reads an option's number of seconds, as settings read theirs.

    Args:
        low: The least that is right.
        high: The most that is right.

    Returns:
        The callback; an option that is not given stays None.
    """

    def read(ctx: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
        try:
            return None if text is None else number(low, high)(text)
        except ValueError:
            most = "" if high == math.inf else f" to {high:g}"
            raise click.BadParameter(
                f"{text!r}: wanted a number of seconds from {low:g}{most}", ctx, parameter
            ) from None

    return read


def _load(given: Mapping[str, str | None], flags: Mapping[str, str]) -> Settings:
    try:
        return load_settings(os.environ, given)
    except InvalidSetting as error:
        for setting in SETTINGS:
            if setting.variable == error.name and given.get(setting.name) is not None:
                flag = flags.get(setting.name, setting.flag)
                raise InvalidSetting(f"{flag} ({error.name})", error.value, error.wanted) from None
        raise


def examples(*lines: str) -> str:
    """Format examples for the end of a command's help.

    Args:
        lines: Commands to copy.

    Returns:
        Text for click's ``epilog``.
    """
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def run_command(command: click.Command, arguments: Sequence[str] | None = None, name: str = "carpark") -> NoReturn:
    """Run a command as a program: an expected error becomes one line on stderr and an exit status, no traceback.

    Args:
        command: The click command or group.
        arguments: The command line without the program's name; ``sys.argv`` by default.
        name: What the program is called in help and errors.

    Raises:
        SystemExit: Always; 0 all well, 1 the work failed, 2 the command or a setting was wrong, 130 Ctrl-C.
    """
    try:
        status = command.main(args=arguments, prog_name=name, standalone_mode=False)
        click.echo(nl=False)  # flushes
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "", err=True)
        sys.exit(EXIT_USAGE)
    except click.ClickException as error:
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else name
        fail(f"{where}: {one_line(error.format_message())} (see: {where} --help)", EXIT_USAGE)
    except ConfigurationError as error:
        fail(f"{name}: {error}", EXIT_USAGE)
    except CarparkError as error:
        fail(f"{name}: {error}", EXIT_FAILED)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # Whoever read the output has seen enough (`| head`). Python would complain about the rest when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)
    sys.exit(status if isinstance(status, int) else EXIT_OK)


def fail(line: str, status: int) -> NoReturn:
    """End the process with one line on stderr.

    Args:
        line: What went wrong.
        status: The exit status.

    Raises:
        SystemExit: Always.
    """
    click.echo(one_line(line), err=True)
    sys.exit(status)
