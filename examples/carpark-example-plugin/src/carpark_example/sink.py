"""A sink that writes a JSON file per stay."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel, Field

from carpark import CarparkError, Finding, InvalidSetting, PluginContext, ReadBack, Sink, StaySummary

VARIABLE = "CARPARK_EXAMPLE_FOLDER"


class JsonFolderSettings(BaseModel, frozen=True):
    """The sink's own settings: each field is a variable, a flag, and a line of help."""

    folder: Path = Field(default=Path("data/stays"), description="the folder that the sink `json-folder` writes into")


class JsonFolderSink(Sink):
    """Keeps each summary in a file whose name is made of the summary's id, so that a repeat finds its file there.

    Args:
        folder: Where the files are; made when it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def deliver(self, summaries: Sequence[StaySummary]) -> None:
        """Write the files; an exception means that the summaries are offered again later."""
        for summary in summaries:
            path = self._folder / f"{hashlib.sha256(summary.id.encode()).hexdigest()}.json"
            if not path.exists():
                self._write(path, summary)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _write(self, path: Path, summary: StaySummary) -> None:
        # Written aside and then renamed: a file is there whole or not at all, whatever happens.
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=self._folder, delete=False) as file:
            json.dump(summary.to_dict(), file, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).rename(path)


def make_sink(context: PluginContext) -> JsonFolderSink:
    """Make the sink."""
    folder: Path = context.own.folder.expanduser()
    try:
        return JsonFolderSink(folder)
    except OSError as error:
        raise InvalidSetting(VARIABLE, str(folder), f"a folder that can be written ({error})") from error


def check(context: PluginContext) -> Iterator[Finding]:
    """Tell `carpark doctor` whether it would work; nothing is changed."""
    folder: Path = context.own.folder.expanduser()
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        yield Finding.ok("json-folder", f"{folder} can be written")
    else:
        yield Finding.wrong("json-folder", f"{there} is no folder that can be written", f"name another in {VARIABLE}")


def read_back(context: PluginContext) -> ReadBack:
    """Tell `carpark verify` what there is."""
    folder: Path = context.own.folder.expanduser()
    return ReadBack(str(folder), lambda: map(_row, sorted(folder.glob("*.json"))), folder.is_dir())


def _row(path: Path) -> list[str] | str:
    try:
        return [str(value) for value in StaySummary.parse(json.loads(path.read_bytes())).to_dict().values()]
    except (ValueError, CarparkError) as error:  # it is no JSON, or no summary
        return f"{path.name}: {error}"
