"""The settings of a process that works with plugins: its own, and those of the offers in use, read together."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches

from carpark.errors import ConfigurationError, InvalidSetting
from carpark.plugins.manager import KINDS, Plugins, own_settings
from carpark.settings import Settings
from carpark.settings.fields import PREFIX, Option, is_service_link, options_of, read_right, together, with_flags
from carpark.settings.values import names as names_in

_PLUGINS = options_of(Settings)["plugins"]


@dataclass(frozen=True)
class Reading:
    """What is given, as far as it can be read.

    Args:
        settings: The process's settings; the default where the given one is wrong.
        wrong: Those of them that are wrong: name to what is wrong with it.
        own: What is wrong with the settings of the offers in use.
    """

    settings: Settings
    wrong: Mapping[str, InvalidSetting]
    own: list[ConfigurationError]


def plugins_of(environ: Mapping[str, str]) -> Plugins:
    """Load the plugins that the variables name.

    Args:
        environ: The variables.

    Returns:
        The plugins, without those that are broken.
    """
    modules: Iterable[str] = ()
    with suppress(ValueError):  # which is said with all else that is wrong
        modules = names_in(environ.get(_PLUGINS.variable, ""))
    return Plugins(modules, lenient=True)


def read_all(
    plugins: Plugins, environ: Mapping[str, str], flags: Mapping[str, str], kinds: Sequence[str] = KINDS
) -> Reading:
    """Read the settings of a process and those of the offers that it has in use.

    Args:
        plugins: The plugins, whose variables these become.
        environ: The variables.
        flags: Argument, an offer's included, to the text given on the command line.
        kinds: The kinds of offers that the process works with.

    Returns:
        What is right, and what is wrong.
    """
    options = [*options_of(Settings).values(), *own_options(plugins).values()]
    plugins.environ = with_flags(environ, flags, options)
    settings, wrong = read_right(Settings, plugins.environ)
    own: list[ConfigurationError] = []
    for found in plugins.in_use(settings, kinds):
        try:
            own_settings(found.offer, plugins.environ)
        except ConfigurationError as error:
            own += error.findings
    return Reading(settings, wrong, own)


def load(
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
    kinds: Sequence[str] = KINDS,
    plugins: Plugins | None = None,
) -> tuple[Settings, Plugins]:
    """Read the settings of a process that works with plugins: which these are, then its own, then those of the offers.

    Args:
        environ: The variables; the process's own by default.
        flags: Argument, an offer's included, to the text given on the command line.
        kinds: The kinds of offers that the process works with.
        plugins: The plugins, if they are loaded already.

    Returns:
        The settings, and the plugins.

    Raises:
        ConfigurationError: A setting is wrong, a plugin is broken or not there; it holds all that is wrong.
    """
    environ = os.environ if environ is None else environ
    plugins = plugins or plugins_of(with_flags(environ, flags or {}, ()))
    found = read_all(plugins, environ, flags or {}, kinds)
    wrong = [*plugins.broken, *found.wrong.values(), *plugins.unknown(found.settings, kinds), *found.own]
    if wrong:
        raise together(wrong)
    return found.settings, plugins


def unknown_variables(environ: Mapping[str, str], plugins: Plugins | None = None) -> list[tuple[str, str]]:
    """Find the variables that begin as ours do and are no setting.

    Left out are those that begin with an installed plugin's name, those of the tests, and those that Kubernetes sets.

    Args:
        environ: The variables.
        plugins: The plugins; they are loaded if one of them may have such a setting.

    Returns:
        For each, what is wrong and what to do.
    """
    known = _variables(options_of(Settings).values())
    found = [
        name
        for name in sorted(environ)
        if name.upper().startswith(PREFIX)
        and not (name in known or name.startswith(f"{PREFIX}TEST_") or is_service_link(name, environ))
    ]
    if found:
        plugins = plugins or plugins_of(environ)
        known |= _variables(own_options(plugins).values())
        theirs = tuple(f"{PREFIX}{each.name.upper().replace('-', '_')}_" for each in plugins.installed)
        found = [name for name in found if name not in known and not name.startswith(theirs)]
    return [(f"{name} is not a setting", _meant(name, known)) for name in found]


def _variables(options: Iterable[Option]) -> set[str]:
    return {name for option in options for name in (option.variable, option.file_variable) if name}


def _meant(name: str, known: Iterable[str]) -> str:
    plain = [each.removeprefix(PREFIX) for each in sorted(known)]
    close = get_close_matches(name.upper().removeprefix(PREFIX), plain, n=1)
    return f"did you mean {PREFIX}{close[0]}?" if close else "`carpark doctor --help` lists all settings"


def own_options(plugins: Plugins, kinds: Iterable[str] = KINDS) -> dict[str, Option]:
    """List the settings of the offers that there are.

    Args:
        plugins: The plugins.
        kinds: The kinds of offers.

    Returns:
        Argument to option; the first of two offers of one variable.
    """
    found: dict[str, Option] = {}
    for kind in kinds:
        for each in getattr(plugins, kind).values():
            for option in options_of(each.offer.settings, each.offer.variables).values():
                found.setdefault(option.argument, option)
    return found
