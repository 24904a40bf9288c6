"""Reads the settings for the doctor, which works on with those that are right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from carpark.errors import ConfigurationError, InvalidSetting
from carpark.ops.doctor.findings import Finding, ok, warning, wrong
from carpark.settings import Settings
from carpark.settings.fields import PREFIX, given_texts, options_of, read, shown

_CHECK = "settings"
_LIKE = 0.8
"""How alike a variable has to be to a setting's to be taken for a slip: plugins may have variables of their own."""


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


def read_given(environ: Mapping[str, str], flags: Mapping[str, str | None]) -> Given:
    """Read every setting and note each that is wrong.

    Args:
        environ: The variables.
        flags: Setting name to the text given on the command line; None for one that was not given.

    Returns:
        The settings and what is wrong with them.
    """
    options = options_of(Settings)
    texts = given_texts(Settings, environ, flags)
    called = {name: options[name].flag if flags.get(name) is not None else options[name].variable for name in options}
    found = _mistakes(texts, called)
    unusable = {name for name, call in called.items() if any(each.name == call for each in found)}
    findings = [wrong(_CHECK, f"{each.name}={each.value!r}", f"wanted {each.wanted}") for each in found]
    # What is left may not fit the default of what was taken out.
    right = {name: text for name, text in texts.items() if name not in unusable and not _mistakes({name: text}, called)}
    settings = read(Settings, right if found else texts)
    if "broker_url" in unusable and "management_url" not in texts:
        unusable.add("management_url")
    findings += _slips(environ)
    if not unusable and not findings:
        findings.append(ok(_CHECK, f"{len(options)} are right; {_told(settings, texts)}"))
    return Given(settings, unusable, findings)


def _mistakes(texts: Mapping[str, str], called: Mapping[str, str]) -> list[InvalidSetting]:
    try:
        read(Settings, texts, called=called)
    except ConfigurationError as error:
        return [each for each in error.findings if isinstance(each, InvalidSetting)]
    return []


def _told(settings: Settings, given: Iterable[str]) -> str:
    told, options = shown(settings), options_of(Settings)
    values = ", ".join(f"{name}={told[name]}" for name in sorted(options[each].variable for each in given))
    return f"given are {values}" if values else "all by default"


def _slips(environ: Mapping[str, str]) -> list[Finding]:
    known = [option.variable for option in options_of(Settings).values()]
    findings = []
    for name in sorted(environ):
        if name.upper().startswith(PREFIX) and name not in known:
            close = difflib.get_close_matches(name.upper(), known, n=1, cutoff=_LIKE)
            if close and not name.startswith(f"{PREFIX}TEST_"):
                findings.append(warning(_CHECK, f"{name} is not a setting", f"did you mean {close[0]}?"))
    return findings
