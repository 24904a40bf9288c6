"""Commands that work with plugins: flags of the offers' own settings, and all that is wrong said at once."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from carpark.errors import one_line
from carpark.plugins.loading import load, own_options, slips
from carpark.plugins.manager import KINDS, Plugins, raise_all
from carpark.settings import Settings
from carpark.settings.fields import options_of
from carpark.settings.options import add_flags
from carpark.settings.values import names as names_in

_PLUGINS = options_of(Settings)["plugins"]
_LOADED = f"{__name__}.loaded"


class PluginCommand(click.Command):
    """A command that has a flag for each setting of the offers that there are, also where a plugin is broken."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Load the plugins that flags or variables name, then read the flags.

        Args:
            ctx: The command's context.
            args: The command line.

        Returns:
            What is left of it.
        """
        ctx.meta[_LOADED] = plugins = Plugins(names_in(_modules(args)), lenient=True)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption:
            raise_all(plugins.broken)  # it may be one of theirs
            raise

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Give all flags.

        Args:
            ctx: The command's context.

        Returns:
            Those of the command, then those of the offers, then help.
        """
        params = super().get_params(ctx)
        if _LOADED not in ctx.meta:
            return params
        ours = len(self.params)
        return [*params[:ours], *_flags(ctx.meta[_LOADED], getattr(self.callback, "kinds", KINDS)), *params[ours:]]


def plugin_options(
    *names: str, kinds: Sequence[str] = KINDS, flags: Mapping[str, str] | None = None
) -> Callable[[Callable[..., Any]], Any]:
    """Give a `PluginCommand` the flags of some settings; the command takes the arguments ``settings`` and ``plugins``.

    Args:
        names: Fields of the settings, in the order in which ``--help`` shows them; ``plugins`` among them.
        kinds: The kinds of offers that it works with.
        flags: Field to flag, where it is not the ordinary one.

    Returns:
        A decorator.
    """
    options = [options_of(Settings)[name] for name in names]
    flag = {each.name: each.flag for each in options} | dict(flags or {})

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def run(**arguments: Any) -> Any:
            every = {each.name: each for each in options} | own_options(loaded(), kinds)
            given = {name: text for name in every if (text := arguments.pop(name, None)) is not None}
            called = {name: f"{flag.get(name, every[name].flag)} ({every[name].variable})" for name in given}
            warn_of_slips(loaded())
            settings, plugins = load(os.environ, given, kinds, called, loaded())
            return command(settings=settings, plugins=plugins, **arguments)

        run.kinds = kinds  # type: ignore[attr-defined] # for `PluginCommand`
        return add_flags(run, options, flag)

    return decorate


def warn_of_slips(plugins: Plugins | None = None) -> None:
    """Say on stderr which variables begin as ours do and are no setting, a line each.

    Args:
        plugins: The plugins, if they are loaded already.
    """
    for found, advice in slips(os.environ, plugins):
        click.echo(one_line(f"carpark: warning: {found}; {advice}"), err=True)


def loaded() -> Plugins:
    """Give what the `PluginCommand` that runs now has loaded.

    Returns:
        The plugins, without those that are broken.
    """
    plugins: Plugins = click.get_current_context().meta[_LOADED]
    return plugins


def _flags(plugins: Plugins, kinds: Sequence[str]) -> list[click.Parameter]:
    holder: Any = add_flags(lambda: None, own_options(plugins, kinds).values())
    return list(reversed(getattr(holder, "__click_params__", [])))


def _modules(args: Sequence[str]) -> str:
    """Find out which modules are to be loaded, before the rest of the command line can be read."""
    modules = os.environ.get(_PLUGINS.variable, "")
    for place, each in enumerate(args):  # the last one counts
        if each == _PLUGINS.flag and place + 1 < len(args):
            modules = args[place + 1]
        elif each.startswith(f"{_PLUGINS.flag}="):
            modules = each.partition("=")[2]
    return modules
