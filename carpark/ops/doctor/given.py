"""Reads the settings for the doctor: all that are wrong at once, where a command stops at the first."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from carpark.errors import InvalidSetting
from carpark.ops.doctor.findings import Finding, ok, warning, wrong
from carpark.settings import Settings, load_settings
from carpark.settings.model import BY_NAME, PREFIX, SETTINGS

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
    texts = {name: text for name, text in flags.items() if text is not None}
    named = {name: BY_NAME[name].flag for name in texts}
    for setting in SETTINGS:
        if setting.name not in texts and environ.get(setting.variable):
            texts[setting.name] = environ[setting.variable]
            named[setting.name] = setting.variable
    unusable: set[str] = set()
    findings: list[Finding] = []
    for name, text in list(texts.items()):
        try:
            BY_NAME[name].read(text)
        except InvalidSetting as error:
            findings.append(wrong(_CHECK, f"{named[name]}={error.value!r}", f"wanted {error.wanted}"))
            unusable.add(name)
            del texts[name]
    try:
        settings = load_settings({}, texts)
    except InvalidSetting as error:  # each is right by itself, but two do not fit each other
        findings.append(wrong(_CHECK, f"{error.name}={error.value!r}", f"wanted {error.wanted}"))
        settings = load_settings({}, {name: text for name, text in texts.items() if "sink_retry" not in name})
    if "broker_url" in unusable and "management_url" not in texts:
        unusable.add("management_url")
    findings += _slips(environ)
    if not unusable and not findings:
        findings.append(ok(_CHECK, f"{len(SETTINGS)} are right; {_told(texts)}"))
    return Given(settings, unusable, findings)


def _told(texts: Mapping[str, str]) -> str:
    told = ", ".join(f"{BY_NAME[name].variable}={BY_NAME[name].shown(text)}" for name, text in sorted(texts.items()))
    return f"given are {told}" if told else "all by default"


def _slips(environ: Mapping[str, str]) -> list[Finding]:
    known = [setting.variable for setting in SETTINGS]
    findings = []
    for name in sorted(environ):
        if name.upper().startswith(PREFIX) and name not in known:
            close = difflib.get_close_matches(name.upper(), known, n=1, cutoff=_LIKE)
            if close and not name.startswith(f"{PREFIX}TEST_"):
                findings.append(warning(_CHECK, f"{name} is not a setting", f"did you mean {close[0]}?"))
    return findings
