"""Makes flags of the fields of any model, and of errors a line each and an exit status."""

from __future__ import annotations

import codecs
import functools
import io
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import click

from carpark.errors import CarparkError, ConfigurationError, one_line
from carpark.services import METRICS_FOLDER
from carpark.settings.fields import OfFlag, Option, options_of
from carpark.settings.model import Settings, load_settings
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
)
"""The settings of deliveries, for every command that delivers."""

_MARKS = {"✓": "ok", "✗": "x", "…": "...", "·": "-"}
"""What our texts have beyond ASCII, for terminals that lack it."""

_GIVEN = f"{__name__}.given"

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class SettingFlag(click.Option):
    """The flag of a setting. What it says is not handed to the command, but to what reads the settings.

    Args:
        declarations: The flag.
        setting: What it is of.
        attributes: What else click may know of it.
    """

    def __init__(self, declarations: Sequence[str], setting: Option, **attributes: Any) -> None:
        default = f"; default {setting.text.shown(setting.default)}" if setting.default else ""
        text = setting.help.replace("`", "")
        super().__init__(
            [*declarations, setting.argument],
            metavar=setting.text.metavar,
            help=f"{text[:1].upper()}{text[1:]}  [{setting.variable}{default}]",
            expose_value=False,
            callback=self._note,
            **attributes,
        )

    def _note(self, ctx: click.Context, parameter: click.Parameter, text: str | None) -> None:
        if text is not None:
            ctx.meta.setdefault(_GIVEN, {})[self.name] = OfFlag(text, self.opts[0])


def settings_options(
    *names: str,
    flags: Mapping[str, str] | None = None,
    reader: Callable[[Mapping[str, OfFlag]], dict[str, Any]] | None = None,
) -> Callable[[Callable[..., Any]], Any]:
    """Give a click command the flags of some settings; the command then takes the argument ``settings``.

    Args:
        names: Fields of the settings, in the order in which ``--help`` shows them.
        flags: Field to flag, where it is not the ordinary one (``{"writer_port": "--port"}``).
        reader: From what flags say, argument to text, makes what the command takes in the place of ``settings``.

    Returns:
        A decorator. The command's ``settings`` are read from flags and environment.
    """
    options = [options_of(Settings)[name] for name in names]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def run(**arguments: Any) -> Any:
            given = click.get_current_context().meta.get(_GIVEN, {})
            read = reader(given) if reader else {"settings": load_settings(flags=given)}
            return command(**read, **arguments)

        for each in reversed(options):
            flag = (flags or {}).get(each.name, each.flag)
            run = click.option(flag, cls=SettingFlag, setting=each)(run)
        return run

    return decorate


def seconds(low: float, high: float = math.inf) -> Callable[[click.Context, click.Parameter, str | None], float | None]:
    """Make a click callback that reads an option's number of seconds, as settings read theirs.

    Args:
        low: The least that is right.
        high: The most that is right.

    Returns:
        The callback; an option that is not given stays None.
    """

    kind = number(low, high, "a number of seconds")

    def convert(ctx: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
        try:
            return None if text is None else kind.parse(text)
        except ValueError:
            raise click.BadParameter(f"{text!r}: wanted {kind.wanted}", ctx, parameter) from None

    return convert


def examples(*lines: str) -> str:
    """Format examples for the end of a command's help.

    Args:
        lines: Commands to copy.

    Returns:
        Text for click's ``epilog``.
    """
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def run_command(command: click.Command, arguments: Sequence[str] | None = None, name: str = "carpark") -> NoReturn:
    """Run a command as a program: an expected error becomes a line or more on stderr and an exit status, no traceback.

    Args:
        command: The click command or group.
        arguments: The command line without the program's name; ``sys.argv`` by default.
        name: What the program is called in help and errors.

    Raises:
        SystemExit: Always; 0 all well, 1 the work failed, 2 the command or a setting was wrong, 130 Ctrl-C.
    """
    _prepare()
    try:
        status = command.main(args=arguments, prog_name=name, standalone_mode=False)
        click.echo(nl=False)  # flushes
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "", err=True)
        sys.exit(EXIT_USAGE)
    except click.ClickException as error:
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else name
        fail(EXIT_USAGE, f"{where}: {one_line(error.format_message())} (see: {where} --help)")
    except ConfigurationError as error:
        fail(EXIT_USAGE, *(f"{name}: {each}" for each in error.findings))
    except CarparkError as error:
        fail(EXIT_USAGE if getattr(error, "refuses", False) else EXIT_FAILED, f"{name}: {error}")
    except (KeyboardInterrupt, click.Abort):
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # Whoever read the output has seen enough (`| head`). Python would complain about the rest when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)
    sys.exit(status if isinstance(status, int) else EXIT_OK)


def _prepare() -> None:
    """Let the output streams take every text, and keep this process' numbers out of a folder of other programs."""
    codecs.register_error("spelled", _spell)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="spelled")
    # Only a worker's processes share numbers, in a folder of their own.
    for name in (METRICS_FOLDER, METRICS_FOLDER.lower()):
        os.environ.pop(name, None)


def _spell(error: UnicodeError) -> tuple[str, int]:
    """Spell what a stream's encoding lacks, and half characters of a file's name: as JSON does where it is no mark."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_MARKS.get(each) or json.dumps(each)[1:-1] for each in lacking), error.end


def fail(status: int, *lines: str) -> NoReturn:
    """End the process with lines on stderr.

    Args:
        status: The exit status.
        lines: What went wrong.

    Raises:
        SystemExit: Always.
    """
    for line in lines:
        click.echo(one_line(line), err=True)
    sys.exit(status)
