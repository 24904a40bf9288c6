"""Commands that work with plugins: flags of the offers' own settings, and all that is wrong said at once."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from typing import Any

import click

from carpark.errors import one_line
from carpark.plugins.loading import load, own_options, plugins_of, unknown_variables
from carpark.plugins.manager import KINDS, Plugins
from carpark.settings import Settings
from carpark.settings.fields import OfFlag, options_of, together
from carpark.settings.options import SettingFlag, settings_options

_PLUGINS = options_of(Settings)["plugins"]
_LOADED = f"{__name__}.loaded"


class PluginCommand(click.Command):
    """A command that has a flag for each setting of the offers that there are, also where a plugin is broken.

    The kinds of offers that it works with are those whose settings it has flags of: ``sinks``, ``plates``.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Load the plugins that flags or variables name, then read the flags.

        Args:
            ctx: The command's context.
            args: The command line.

        Returns:
            What is left of it.
        """
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        parser.add_argument(_PLUGINS.flag, nargs="?", dest=_PLUGINS.variable)
        named = {name: text for name, text in vars(parser.parse_known_args(args)[0]).items() if text is not None}
        ctx.meta[_LOADED] = plugins = plugins_of({**os.environ, **named})
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption:
            if plugins.broken:  # it may be one of theirs
                raise together(plugins.broken) from None
            raise

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Give all flags.

        Args:
            ctx: The command's context.

        Returns:
            Those of the command, then those of the offers, then help.
        """
        params, ours = super().get_params(ctx), len(self.params)
        if _LOADED not in ctx.meta:
            return params
        own = own_options(ctx.meta[_LOADED], [kind for kind in KINDS if any(each.name == kind for each in params)])
        return [*params[:ours], *(SettingFlag([each.flag], each) for each in own.values()), *params[ours:]]


def plugin_options(*names: str, flags: Mapping[str, str] | None = None) -> Callable[[Callable[..., Any]], Any]:
    """Give a `PluginCommand` the flags of some settings; the command takes the arguments ``settings`` and ``plugins``.

    Args:
        names: Fields of the settings, in the order in which ``--help`` shows them; ``plugins`` among them.
        flags: Field to flag, where it is not the ordinary one.

    Returns:
        A decorator.
    """

    def reader(given: Mapping[str, OfFlag]) -> dict[str, Any]:
        warn_of_unknown_variables(loaded())
        settings, plugins = load(os.environ, given, [kind for kind in KINDS if kind in names], loaded())
        return {"settings": settings, "plugins": plugins}

    return settings_options(*names, flags=flags, reader=reader)


def warn_of_unknown_variables(plugins: Plugins | None = None) -> None:
    """Say on stderr which variables begin as ours do and are no setting, a line each.

    Args:
        plugins: The plugins, if they are loaded already.
    """
    for found, advice in unknown_variables(os.environ, plugins):
        click.echo(one_line(f"carpark: warning: {found}; {advice}"), err=True)


def loaded() -> Plugins:
    """Give what the `PluginCommand` that runs now has loaded.

    Returns:
        The plugins, without those that are broken.
    """
    plugins: Plugins = click.get_current_context().meta[_LOADED]
    return plugins
