"""The README shows what is printed, and every page's links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from carpark.cli import COMMANDS
from tests.support.processes import ROOT, Processes

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
MADE = ("deploy/compose/.env", "deploy/compose/secrets", "deploy/compose/compose.override.yaml")
"""What users or commands make."""
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)#\s]+)(#[^)]*)?\)")


@pytest.mark.slow
def test_what_a_run_prints_is_what_the_readme_shows(processes: Processes, tmp_path: Path) -> None:
    shown = re.search(r"^\$ make run (.*?)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert shown
    options = [part for pair in shown[1].split() for part in (f"--{pair.split('=')[0].lower()}", pair.split("=")[1])]
    free = {"CARPARK_WRITER_PORT": "0", "CARPARK_METRICS_PORT": "0", "CARPARK_DASHBOARD_PORT": "0"}
    process = processes.start(["carpark", "run", *options, "--csv", str(tmp_path / "stays.csv")], env=free)
    assert process.wait(60) == 0
    printed = [line.rstrip() for line in process.output.splitlines()]
    table = [line for line in shown[2].splitlines() if re.match(r"\w+ +\d", line)]
    assert len(table) == 13
    assert shown[2].splitlines()[-1] == printed[-1]
    assert [line for line in printed if re.match(r"\w+ +\d", line)][: len(table)] == table
    # The numbers of a moment differ from run to run, the words do not.
    words = [re.sub(r"[\d.,/:]+|data\S+|http\S+", "", line).split() for line in shown[2].splitlines()[:3]]
    said = [re.sub(r"[\d.,/:]+|\S*stays.csv|http\S+", "", line).split() for line in printed]
    assert [line for line in words if line not in said] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = [target for target, _ in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_that_a_page_names_is_there(page: Path) -> None:
    first = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"data"}
    named = re.findall(r"`([\w.-]+/[\w./-]*)`", page.read_text(encoding="utf-8"))
    wanted = [name for name in named if name.partition("/")[0] in first and not name.startswith(MADE)]
    assert [name for name in wanted if not (ROOT / name).exists()] == []


def test_every_page_of_the_docs_is_listed() -> None:
    assert [page.name for page in PAGES if page.parent.name == "docs" and f"docs/{page.name}" not in README] == []


def test_every_command_that_a_page_names_exists() -> None:
    named = {
        (page.name, command)
        for page in PAGES
        for command in re.findall(r"(?:`|^\$ (?:.* )?)carpark ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert {(page, command) for page, command in named if command not in COMMANDS} == set()
