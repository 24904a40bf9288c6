"""A sink that writes a JSON file per stay."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from carpark import InvalidSetting, PluginContext, Sink, StaySummary


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
    """Make the sink; its own setting comes from the environment."""
    folder = context.environ.get("EXAMPLE_FOLDER", "data/stays")
    try:
        return JsonFolderSink(Path(folder))
    except OSError as error:
        raise InvalidSetting("EXAMPLE_FOLDER", folder, f"a folder that can be written ({error})") from error
