"""What a check finds: a line of the doctor's report, by ours and by those that an offer brings."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from carpark.errors import one_line
from carpark.web.ports import cause_of

LITTLE_SPACE = 200 * 1024 * 1024
"""Bytes of free disk below which it is worth a word."""


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report.

    Args:
        check: What was looked at, e.g. ``redis``.
        level: How bad it is.
        found: What was found, one line without secrets.
        advice: What to do, or nothing.
        setting: Whether it is a setting that is wrong.
    """

    check: str
    level: Level
    found: str
    advice: str = ""
    setting: bool = False

    @classmethod
    def ok(cls, check: str, found: str) -> Finding:
        """Say that something is as it should be.

        Args:
            check: What was looked at.
            found: What was found.

        Returns:
            The finding.
        """
        return cls(check, Level.OK, one_line(found))

    @classmethod
    def warning(cls, check: str, found: str, advice: str) -> Finding:
        """Say that something works, or may be meant so, but should be known.

        Args:
            check: What was looked at.
            found: What was found.
            advice: What to do.

        Returns:
            The finding.
        """
        return cls(check, Level.WARNING, one_line(found), one_line(advice))

    @classmethod
    def problem(cls, check: str, found: str, advice: str) -> Finding:
        """Say that something does not work.

        Args:
            check: What was looked at.
            found: What was found.
            advice: What to do.

        Returns:
            The finding.
        """
        return cls(check, Level.PROBLEM, one_line(found), one_line(advice))

    @classmethod
    def wrong(cls, check: str, found: str, advice: str) -> Finding:
        """Say that a setting is wrong.

        Args:
            check: What was looked at.
            found: What was found.
            advice: What to do.

        Returns:
            The finding.
        """
        return cls(check, Level.PROBLEM, one_line(found), one_line(advice), setting=True)


def check_file(variable: str, path: Path) -> Finding:
    """Look whether a file can be appended to.

    Args:
        variable: The setting that names it.
        path: The file, which need not be there yet.

    Returns:
        What was found.
    """
    check, rename, change = f"file {path.name}", f"name another file in {variable}", "change its owner or mode"
    try:
        is_there = path.exists()
        folder = next(each for each in path.absolute().parents if each.exists())
        free = shutil.disk_usage(folder).free
        if is_there and not path.is_file():
            found, advice = f"{variable}={path} is not a file", rename
        elif is_there and not os.access(path, os.R_OK | os.W_OK):
            found, advice = f"{path} cannot be read and written by this user", f"{change}, or {variable}"
        elif not folder.is_dir():
            found, advice = f"{folder}, on the way to {path}, is not a folder", rename
        elif not os.access(folder, os.W_OK | os.X_OK):
            found, advice = f"{folder} cannot be written by this user", f"{change}, or {variable}"
        elif free < LITTLE_SPACE:
            found = f"{folder} has only {free // 1024 // 1024} MB left"
            return Finding.warning(check, found, f"make room, or change {variable}")
        else:
            return Finding.ok(check, f"{path}, {free / 1024**3:.1f} GB free")
    except OSError as error:  # the name is too long, or a folder on the way is closed
        found, advice = f"{variable}={path}: {cause_of(error)}", rename
    return Finding.wrong(check, found, advice)


def check_ledger(variable: str, path: Path) -> Finding:
    """Look whether an append-only file of summaries can be kept, with its index beside it.

    Args:
        variable: The setting that names it.
        path: The file, which need not be there yet.

    Returns:
        What was found.
    """
    found = check_file(variable, path)
    beside = check_file(variable, path.with_name(f"{path.name}.index.sqlite-journal"))  # the longest name there
    return beside if found.level is Level.OK and beside.level is not Level.OK else found
