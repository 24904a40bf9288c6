"""What a check finds, and how checks are run: all at once, each on its own, none for longer than it may take."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import TypeVar

from carpark.errors import CarparkError, ConfigurationError, InvalidSetting
from carpark.plugins.findings import Finding as Finding
from carpark.plugins.findings import Level as Level
from carpark.settings import Settings
from carpark.settings.fields import options_of
from carpark.settings.options import EXIT_FAILED, EXIT_OK, EXIT_USAGE
from carpark.settings.values import MASK

T = TypeVar("T")

ok, warning, problem, wrong = Finding.ok, Finding.warning, Finding.problem, Finding.wrong

_USERINFO = re.compile(r"//[^/@\s]*@")


@dataclass(frozen=True)
class Check:
    """One thing to look at."""

    name: str
    needs: tuple[str, ...]
    look: Callable[[Settings], list[Finding]]
    remedy: str


def split_error(error: BaseException) -> tuple[str, str]:
    """Take the message of one of our errors apart."""
    if isinstance(error, InvalidSetting):
        return f"{error.name}={error.value!r}", f"wanted {error.wanted}"
    found, mark, advice = str(error).rpartition("; ")
    return (found, advice) if mark else (advice, "")


def status_of(findings: Sequence[Finding]) -> int:
    """Say how a command that found this ends."""
    problems = [finding for finding in findings if finding.level is Level.PROBLEM]
    if any(finding.setting for finding in problems):
        return EXIT_USAGE
    return EXIT_FAILED if problems else EXIT_OK


def in_background(work: Callable[[], T], name: str) -> Future[T]:
    """Do something in a thread that nothing waits for at the end of the process."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # a plugin may even raise SystemExit
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def run_checks(checks: Sequence[Check], settings: Settings, unusable: set[str], seconds: float) -> list[Finding]:
    """Run checks at once; one that fails or hangs is a finding itself and holds up no other."""
    deadline = time.monotonic() + seconds
    futures = {
        check: in_background(lambda look=check.look: look(settings), check.name)  # type: ignore[misc]
        for check in checks
        if not unusable & set(check.needs)
    }
    findings: list[Finding] = []
    for check in checks:
        future = futures.get(check)
        if future is None:
            names = ", ".join(options_of(Settings)[name].variable for name in check.needs if name in unusable)
            findings.append(Finding.warning(check.name, "not checked", f"correct {names} first"))
            continue
        wait([future], max(0.0, deadline - time.monotonic()))
        if not future.done():
            findings.append(Finding.problem(check.name, f"no result within {seconds:g} s", check.remedy))
        elif isinstance(error := future.exception(), CarparkError):
            is_setting = isinstance(error, ConfigurationError)
            findings.append(Finding(check.name, Level.PROBLEM, *split_error(error), is_setting))
        elif error:
            said = _USERINFO.sub(f"//{MASK}@", f"the check failed: {type(error).__name__}: {error}")
            findings.append(Finding.problem(check.name, said, check.remedy))
        else:
            findings += future.result()
    return findings
