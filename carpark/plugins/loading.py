"""The settings of a process that works with plugins: its own, and those of the offers in use, read together."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from carpark.errors import ConfigurationError
from carpark.plugins.manager import KINDS, Plugins, own_settings, raise_all
from carpark.settings import Settings, load_settings
from carpark.settings.fields import PREFIX, Given, Option, given_texts, is_service_link, options_of, read
from carpark.settings.values import names as names_in

_PLUGINS = options_of(Settings)["plugins"]


def load(
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
    kinds: Iterable[str] = KINDS,
    called: Mapping[str, str] | None = None,
    plugins: Plugins | None = None,
) -> tuple[Settings, Plugins]:
    """Read the settings of a process that works with plugins: which these are, then its own, then those of the offers.

    Args:
        environ: The variables; the process's own by default.
        flags: Name of a setting, an offer's included, to the text given on the command line.
        kinds: The kinds of offers that the process works with.
        called: Name of a setting to what an error calls it, where that is not the variable.
        plugins: The plugins, if they are loaded already.

    Returns:
        The settings, and the plugins.

    Raises:
        ConfigurationError: A setting is wrong, a plugin is broken or not there; it holds all that is wrong.
    """
    environ, flags, called = os.environ if environ is None else environ, flags or {}, called or {}
    if plugins is None:
        plugins = Plugins(names_in(flags.get("plugins", environ.get(_PLUGINS.variable, ""))), lenient=True)
    plugins.environ = environ = with_flags(environ, flags, plugins)
    wrong = list(plugins.broken)
    texts = given_texts(Settings, environ, {name: flags.get(name) for name in Settings.model_fields})
    try:
        settings = read(Settings, texts, called=called)
    except ConfigurationError as error:
        wrong += error.findings
        settings = named_in(texts)
    wrong += plugins.unknown(settings, kinds)
    for found in plugins.in_use(settings, kinds):
        try:
            own_settings(found.offer, environ, flags, called)
        except ConfigurationError as error:
            wrong += error.findings
    raise_all(wrong)
    return settings, plugins


def with_flags(environ: Mapping[str, str], flags: Mapping[str, str], plugins: Plugins) -> dict[str, str]:
    """Write flags down as variables, for who reads nothing else.

    Args:
        environ: The variables.
        flags: Name of a setting, an offer's included, to the text given on the command line.
        plugins: The plugins.

    Returns:
        The variables with these, and without those that name files for the same settings.
    """
    options = {**options_of(Settings), **own_options(plugins)}
    files = {options[name].file_variable for name in flags if name in options}
    kept = {name: text for name, text in environ.items() if name not in files}
    return {**kept, **{PREFIX + name.upper(): text for name, text in flags.items()}}


def named_in(texts: Given) -> Settings:
    """Find out which offers are in use although other settings are wrong.

    Args:
        texts: Field to text.

    Returns:
        Settings of which `KINDS` alone say what was given, as far as that can be read.
    """
    settings = load_settings({})
    for kind in KINDS:
        try:
            settings = settings.model_copy(
                update={kind: getattr(read(Settings, {kind: texts[kind]} if kind in texts else {}), kind)}
            )
        except ConfigurationError:
            continue
    return settings


def slips(environ: Mapping[str, str], plugins: Plugins | None = None) -> list[tuple[str, str]]:
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
        if name.upper().startswith(PREFIX) and name not in known and not is_service_link(name, environ)
    ]
    found = [name for name in found if not name.startswith(f"{PREFIX}TEST_")]
    if found:
        plugins = plugins or Plugins(names_in(environ.get(_PLUGINS.variable, "")), lenient=True)
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
