"""Reads the settings for the doctor, which works on with those that are right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel

from carpark.errors import ConfigurationError, InvalidSetting
from carpark.ops.doctor.findings import Finding, ok, split_error, warning, wrong
from carpark.plugins import Plugins
from carpark.plugins.loading import own_options, slips, with_flags
from carpark.plugins.manager import own_settings
from carpark.settings import Settings
from carpark.settings.fields import PREFIX, given_texts, options_of, read, shown
from carpark.settings.fields import Given as Fields

_CHECK = "settings"


@dataclass(frozen=True)
class Given:
    """The settings as far as they can be read.

    Args:
        settings: The values; the default where the given one is wrong.
        unusable: Names of the settings that are wrong, and of those made from them.
        findings: What there is to say about them.
    """

    settings: Settings
    unusable: set[str]
    findings: list[Finding]


def read_given(environ: Mapping[str, str], flags: Mapping[str, str], plugins: Plugins) -> Given:
    """Read every setting and note each that is wrong.

    Args:
        environ: The variables.
        flags: Name of a setting, an offer's included, to the text given on the command line.
        plugins: The plugins, whose variables these become.

    Returns:
        The settings and what is wrong with them.
    """
    options = options_of(Settings)
    plugins.environ = environ = with_flags(environ, flags, plugins)
    texts = given_texts(Settings, environ, {name: flags.get(name) for name in options})
    called = {name: options[name].flag if name in flags else options[name].variable for name in options}
    own_flags = {name: option.flag for name, option in own_options(plugins).items() if name in flags}
    found = _mistakes(texts, called)
    unusable = {name for name, call in called.items() if any(each.name == call for each in found)}
    unusable |= {name for name, text in texts.items() if isinstance(text, InvalidSetting)}
    findings = [wrong(_CHECK, f"{each.name}={each.value!r}", f"wanted {each.wanted}") for each in found]
    # What is left may not fit the default of what was taken out.
    right = {name: text for name, text in texts.items() if name not in unusable and not _mistakes({name: text}, called)}
    settings = read(Settings, right if found else texts)
    if "broker_url" in unusable and "management_url" not in texts:
        unusable.add("management_url")
    count, told = len(options), _told(settings, texts)
    for offer in (each.offer for each in plugins.in_use(settings)):
        count += len(offer.settings.model_fields)
        try:
            own = own_settings(offer, environ, flags, own_flags)
            told |= _told(own, given_texts(offer.settings, environ, {}, offer.variables), offer.variables)
        except ConfigurationError as error:
            findings += [wrong(_CHECK, *_said(each)) for each in error.findings]
    findings = [*dict.fromkeys(findings), *(warning(_CHECK, *each) for each in slips(environ, plugins))]
    if not unusable and not findings:
        values = ", ".join(f"{name}={told[name]}" for name in sorted(told))
        findings.append(ok(_CHECK, f"{count} are right; {f'given are {values}' if values else 'all by default'}"))
    return Given(settings, unusable, findings)


def _mistakes(texts: Fields, called: Mapping[str, str]) -> list[InvalidSetting]:
    try:
        read(Settings, texts, called=called)
    except ConfigurationError as error:
        return [each for each in error.findings if isinstance(each, InvalidSetting)]
    return []


def _told(settings: BaseModel, given: Iterable[str], prefix: str = PREFIX) -> dict[str, str]:
    told, options = shown(settings, prefix), options_of(type(settings), prefix)
    return {options[each].variable: told[options[each].variable] for each in given}


def _said(error: ConfigurationError) -> tuple[str, str]:
    if isinstance(error, InvalidSetting):
        return f"{error.name}={error.value!r}", f"wanted {error.wanted}"
    return split_error(error)
