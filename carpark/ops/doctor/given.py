"""Reads the settings for the doctor, which works on with those that are right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel

from carpark.ops.doctor.findings import Finding, ok, split_error, warning, wrong
from carpark.plugins import Plugins
from carpark.plugins.loading import read_all, unknown_variables
from carpark.plugins.manager import own_settings
from carpark.settings import Settings
from carpark.settings.fields import PREFIX, given_texts, options_of, shown

_CHECK = "settings"


@dataclass(frozen=True)
class Given:
    """The settings as far as they can be read."""

    settings: Settings
    unusable: set[str]
    findings: list[Finding]


def read_given(environ: Mapping[str, str], flags: Mapping[str, str], plugins: Plugins) -> Given:
    """Read every setting and note each that is wrong."""
    found = read_all(plugins, environ, flags)
    unusable = set(found.wrong)
    if "broker_url" in unusable and "management_url" not in given_texts(Settings, plugins.environ):
        unusable.add("management_url")
    said = dict.fromkeys(map(split_error, [*found.wrong.values(), *found.own]))
    findings = [wrong(_CHECK, *each) for each in said]
    findings += [warning(_CHECK, *each) for each in unknown_variables(environ, plugins)]
    if not findings:
        count, told = len(Settings.model_fields), _told(found.settings, plugins.environ)
        for offer in (each.offer for each in plugins.in_use(found.settings)):
            count += len(offer.settings.model_fields)
            told |= _told(own_settings(offer, plugins.environ), plugins.environ, offer.variables)
        values = ", ".join(f"{name}={told[name]}" for name in sorted(told))
        findings.append(ok(_CHECK, f"{count} are right; {f'given are {values}' if values else 'all by default'}"))
    return Given(found.settings, unusable, findings)


def _told(settings: BaseModel, environ: Mapping[str, str], prefix: str = PREFIX) -> dict[str, str]:
    told, options = shown(settings, prefix), options_of(type(settings), prefix)
    given = given_texts(type(settings), environ, prefix)
    return {options[each].variable: told[options[each].variable] for each in given}
