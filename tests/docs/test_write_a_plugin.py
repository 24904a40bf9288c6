"""Every step of the tutorials for plugins works, in a fresh environment, in the order in which a reader does them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from carpark.plugins import Plugins
from tests.support.outside import Outside
from tests.support.processes import ROOT

SINK, PLATES = (ROOT / "docs/tutorial" / name for name in ("write-a-sink.md", "write-a-plate-generator.md"))
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ANYTHING = "…"


def steps(page: Path) -> Iterator[tuple[str, str, str]]:
    """Read a page's blocks: language, file name if it is a file, content."""
    yield from BLOCK.findall(page.read_text(encoding="utf-8"))


def commands(content: str) -> Iterator[tuple[str, list[str]]]:
    """Split a console's block into commands and the lines that each prints."""
    for part in re.split(r"^\$ ", content, flags=re.MULTILINE)[1:]:
        command, *printed = part.splitlines()
        yield command, printed


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("page", "tested"), [(SINK, 2), (PLATES, 1)], ids=["sink", "plates"])
def test_every_step_of_the_page_works(tmp_path: Path, page: Path, tested: int) -> None:
    outside, folder = Outside(tmp_path / "venv"), tmp_path / "plugin"
    folder.mkdir()
    environ = {"CARPARK_WRITER_PORT": "0", "CARPARK_METRICS_PORT": "0"}
    done = []
    for language, name, content in steps(page):
        if name:
            (folder / name).write_text(content, encoding="utf-8")
            continue
        assert language == "console"
        for command, printed in commands(content):
            done.append(command)
            if command.startswith("export "):
                variable, _, value = command.removeprefix("export ").partition("=")
                environ[variable] = value
            elif command.startswith("unset "):
                del environ[command.removeprefix("unset ")]
            else:
                ended = outside.run(command, folder, **environ)
                is_error = any(line.startswith("carpark: ") for line in printed)
                assert ended.returncode == (2 if is_error else 0), f"{command}\n{ended.stdout}"
                for line in printed:
                    pattern = ".*?".join(re.escape(part.strip()) for part in line.split(ANYTHING))
                    assert re.search(f"^{pattern}$", ended.stdout, re.MULTILINE), f"{command}\n{line}\n{ended.stdout}"
    assert [command.split()[0] for command in done].count("pytest") == tested
    assert any(command.startswith("pip install") for command in done) == (page == SINK)


def test_the_first_sink_is_short() -> None:
    sink = next(content for _, name, content in steps(SINK) if name == "tally.py")
    statements = [line for line in sink.splitlines() if line.strip() and not line.startswith(("import ", "from "))]
    assert len(statements) <= 15


def test_everything_that_is_built_in_is_on_its_page() -> None:
    named = set(re.findall(r"`([a-z-]+)`", (ROOT / "docs/reference/plugins.md").read_text(encoding="utf-8")))
    plugins = Plugins()
    builtin = [*plugins.sinks.values(), *plugins.plates.values()]
    assert {found.offer.name for found in builtin if found.origin.source == "built in"} <= named
