"""README and docs: what they name exists, every page is found and every link leads somewhere, and they stay short."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from dramatiq.cli import make_argument_parser

from carpark.cli import carpark
from carpark.plugins import Plugins
from carpark.plugins.manager import KINDS
from carpark.services import SERVICES
from carpark.settings import Settings
from carpark.settings.fields import Option, options_of
from tests.support.metrics_docs import documented
from tests.support.processes import ROOT, Processes
from tests.support.source import tracked_files

INDEX = ROOT / "docs/README.md"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
}
OF_TODAY = {name: text for name, text in PAGES.items() if name != "CHANGELOG.md"}
"""The changelog may speak of what is gone."""

MOST_WORDS = 18_000
"""Of README and docs, outside of code and of what commands write: who adds a page takes words out of others."""

WRITTEN_BY_COMMANDS = re.compile(r"<!-- (?:generated|measured): (.+?) -->.*?<!-- end: \1 -->", re.DOTALL)
FENCE = re.compile(r"^ *```(\w*).*?\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)#\s]*)(#[^)]*)?\)")
MADE = ("deploy/compose/.env", "deploy/compose/secrets", "deploy/compose/compose.override.yaml")
"""What users or commands make."""

OF_THE_TESTS = "CARPARK_TEST_"
OF_EXAMPLES = {"CARPARK_TALLY_PRICE", "--tally-price"}
FLAGS_OF_OTHERS = {"--no-deps", "--cluster", "--only"}
"""Of pip, of the stack's program, of the fault tests."""

OF_OTHERS = {"dramatiq_queue_prefetch", "dramatiq_dashboard"}
"""No metrics: a variable of Dramatiq's, and a package."""


def anchors(text: str) -> set[str]:
    """The fragments of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", re.sub(FENCE, "", text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def code(text: str) -> Iterator[str]:
    """The commands of a page, a line each: from its blocks, and from between its sentences."""
    for language, block in FENCE.findall(text):
        joined = re.sub(r"\\\n\s*", "", block)
        if language == "console":
            yield from re.findall(r"^ *\$ (.+)$", joined, re.MULTILINE)
        elif language == "sh":
            yield from joined.splitlines()
    yield from re.findall(r"`([^`\n]+)`", re.sub(FENCE, "", text))


def programs() -> Iterator[tuple[str, list[str]]]:
    """Every program that a page calls, with its arguments."""
    for page, text in PAGES.items():
        for line in code(text):
            for part in re.split(r"\s(?:\||&&|;|&)\s|\s*[<>]\s*|[()]", line):
                try:
                    words = shlex.split(part, comments=True)
                except ValueError:  # the beginning of a text that goes on in the next line
                    continue
                while words and re.match(r"[A-Z_]+=", words[0]):
                    words.pop(0)
                if words:
                    yield page, words


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """Find the command that is meant, and the words behind it."""
    command: click.Command = carpark
    while isinstance(command, click.Group) and words and re.fullmatch("[a-z][a-z-]*", words[0]):
        found = command.get_command(click.Context(command), words[0])
        assert found, f"{command.name} has no command {words[0]}"
        command, words = found, words[1:]
    return command, words


def options() -> list[Option]:
    """Every setting: carpark's, and those of the built-in offers."""
    offers = [found.offer for kind in KINDS for found in getattr(Plugins(lenient=True), kind).values()]
    own = [option for offer in offers for option in options_of(offer.settings, offer.variables).values()]
    return [*options_of(Settings).values(), *own]


def flags_of(command: click.Command) -> set[str]:
    names = {name for param in command.params for name in (*param.opts, *param.secondary_opts)} | {"--help"}
    if command.name == "worker":
        names |= {name for action in make_argument_parser()._actions for name in action.option_strings}
    return names | OF_EXAMPLES


def all_commands(command: click.Command) -> Iterator[click.Command]:
    yield command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found
            yield from all_commands(found)


def test_every_command_that_a_page_names_exists_with_its_flags() -> None:
    wrong, named = [], 0
    for page, words in programs():
        for prefix in (["carpark"], ["docker", "run", "--rm", "carpark:0.1.0"]):
            if words[: len(prefix)] != prefix:
                continue
            command, rest = command_of(words[len(prefix) :])
            named += 1
            given = {word.partition("=")[0] for word in rest if word.startswith("--") and word != "--version"}
            wrong += [(page, command.name, flag) for flag in given - flags_of(command)]
    assert wrong == []
    assert named > 100


def test_every_flag_that_a_page_names_alone_is_one_of_some_command() -> None:
    known = {flag for command in all_commands(carpark) for flag in flags_of(command)} | FLAGS_OF_OTHERS
    known |= {option.flag for option in options()}
    named = {(page, words[0]) for page, words in programs() if words[0].startswith("--")}
    assert {(page, flag) for page, flag in named if page in OF_TODAY and flag.partition("=")[0] not in known} == set()
    assert len(named) > 10


def test_every_module_that_a_page_runs_is_there() -> None:
    named = {words[words.index("-m") + 1] for _, words in programs() if "-m" in words[:3] and "python" in words[0]}
    assert {"generators", "writer", "carpark.ops.docs", "tests.faults.safeguards"} <= named
    assert [name for name in named if importlib.util.find_spec(name) is None] == []


def test_every_target_that_a_page_names_is_there_and_takes_its_variables() -> None:
    named = {
        (words[1], *sorted(word for word in words[2:] if re.match("[A-Z_]+=", word)))
        for _, words in programs()
        if words[0] == "make" and len(words) > 1 and re.fullmatch("[a-z-]+", words[1])
    }
    assert len(named) > 30
    environ = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    for target, *variables in sorted(named):
        ended = subprocess.run(
            ["make", "--dry-run", target, *variables], cwd=ROOT, env=environ, capture_output=True, text=True
        )
        assert ended.returncode == 0, f"make {target} {variables}: {ended.stderr}"


def test_every_setting_that_a_page_names_is_there() -> None:
    known = {name for option in options() for name in (option.variable, option.file_variable)} | OF_EXAMPLES
    named = {
        (page, name) for page, text in OF_TODAY.items() for name in re.findall(r"\bCARPARK_[A-Z_]*[A-Z]\b(?!_)", text)
    }
    assert {(page, name) for page, name in named if name not in known and not name.startswith(OF_THE_TESTS)} == set()
    assert len(named) > 50


def test_every_metric_that_a_page_names_is_there() -> None:
    prefixes = "|".join([*(service.prefix for service in SERVICES.values() if service.prefix), "dramatiq"])
    known = {*documented(), *OF_OTHERS}
    named = {
        (page, name) for page, text in OF_TODAY.items() for name in re.findall(rf"\b(?:{prefixes})_[a-z_]+[a-z]", text)
    }
    assert {(page, name) for page, name in named if name not in known} == set()
    assert {name for _, name in named} >= documented().keys()


def test_every_path_that_a_page_names_is_there() -> None:
    first = {path.relative_to(ROOT).parts[0] for path in tracked_files() if path.parent != ROOT}
    named = {
        (page, name)
        for page, text in OF_TODAY.items()
        for line in code(WRITTEN_BY_COMMANDS.sub("", text))
        for name in re.findall(r"(?<![\w./-])[\w.-]+/[\w./-]*", line)
        if name.partition("/")[0] in first and not name.startswith(MADE)
    }
    assert len(named) > 40
    assert {(page, name) for page, name in named if not (ROOT / name).exists()} == set()


def test_every_room_is_drawn_and_no_other() -> None:
    drawn = re.findall(r"^  (\w+)/ ", PAGES["docs/explanation/architecture.md"], re.MULTILINE)
    rooms = {
        path.relative_to(ROOT).parts[1] for path in tracked_files() if re.search(r"/carpark/\w+/\w+\.py$", str(path))
    }
    assert sorted(drawn) == sorted(rooms)


@pytest.mark.parametrize("page", PAGES)
def test_links_and_their_anchors_lead_somewhere(page: str) -> None:
    broken = []
    for target, anchor in LINK.findall(re.sub(FENCE, "", PAGES[page])):
        if "://" in target:
            continue
        path = ((ROOT / page).parent / target).resolve() if target else ROOT / page
        if not path.exists() or (anchor and anchor[1:] not in anchors(path.read_text(encoding="utf-8"))):
            broken.append(target + anchor)
    assert broken == []


def test_every_page_of_the_docs_that_anything_else_names_is_there() -> None:
    broken, named = [], 0
    for path in tracked_files():
        if path.suffix == ".md":
            continue
        for target, anchor in re.findall(
            r"\bdocs/([\w./-]+\.(?:md|json))(#[\w-]+)?", path.read_text(encoding="utf-8", errors="ignore")
        ):
            named += 1
            page = ROOT / "docs" / target
            if not page.is_file() or (anchor and anchor[1:] not in anchors(page.read_text(encoding="utf-8"))):
                broken.append(f"{path.relative_to(ROOT)}: docs/{target}{anchor}")
    assert broken == []
    assert named > 30


def test_every_page_is_reached_from_the_index_and_the_index_from_the_readme() -> None:
    assert "(docs/README.md)" in README
    reached, waiting = {INDEX}, [INDEX]
    while waiting:
        page = waiting.pop()
        for target, _ in LINK.findall(page.read_text(encoding="utf-8")):
            path = (page.parent / target).resolve()
            if target.endswith(".md") and path.is_relative_to(INDEX.parent) and path not in reached:
                reached.add(path)
                waiting.append(path)
    assert set((ROOT / "docs").rglob("*.md")) - reached == set()


def test_the_docs_are_no_longer_than_they_may_be() -> None:
    words = 0
    for page, text in PAGES.items():
        if page == "README.md" or page.startswith("docs/"):
            prose = FENCE.sub("", WRITTEN_BY_COMMANDS.sub("", text))
            words += len([word for word in prose.split() if re.search(r"\w", word)])
    assert words <= MOST_WORDS


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
