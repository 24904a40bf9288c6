"""What the docs take from the code is up to date, and the pages around it speak of what there is."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from carpark.cli import carpark
from carpark.domain.schemas import MODELS
from carpark.errors import CarparkError
from carpark.ops import docs
from carpark.ops.docs import GENERATED, Generated, markdown_table, outdated
from carpark.plugins import Plugins
from carpark.plugins.base import Offer
from carpark.plugins.manager import KINDS
from carpark.settings import Settings, load_settings
from carpark.settings.fields import Option, options_of, shown
from carpark.settings.options import EXIT_FAILED, EXIT_OK, run_command
from tests.support.processes import ROOT

SETTINGS_PAGE = (ROOT / "docs/reference/settings.md").read_text(encoding="utf-8")
SHOWN = SETTINGS_PAGE + "".join(
    (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("reference/commands.md", "how-to/scale.md")
)


OFFERS = [found.offer for kind in KINDS for found in getattr(Plugins(lenient=True), kind).values()]


def own(offer: Offer) -> list[Option]:
    return list(options_of(offer.settings, offer.variables).values())


EVERY = {
    option.variable: option
    for option in (*options_of(Settings).values(), *(option for offer in OFFERS for option in own(offer)))
}
FILES = {option.file_variable for option in EVERY.values() if option.file_variable}


def status_of(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        run_command(docs.docs, arguments)
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    return tmp_path


def test_what_is_generated_in_the_docs_is_up_to_date() -> None:
    assert outdated() == {}, "run `python -m carpark.ops.docs`"


def test_a_change_in_a_table_is_found_and_mended(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = checkout / "docs/reference/settings.md"
    right = page.read_text(encoding="utf-8")
    page.write_text(right.replace("`CARPARK_RATE`", "`CARPARK_SPEED`"), encoding="utf-8")
    assert status_of("--root", str(checkout), "--check") == EXIT_FAILED
    assert capsys.readouterr().out == "docs/reference/settings.md: out of date; run python -m carpark.ops.docs\n"
    assert "`CARPARK_SPEED`" in page.read_text(encoding="utf-8")
    assert status_of("--root", str(checkout)) == EXIT_OK
    assert page.read_text(encoding="utf-8") == right
    assert capsys.readouterr().out == "docs/reference/settings.md: written\n"
    assert status_of("--root", str(checkout), "--check") == EXIT_OK
    assert capsys.readouterr().out == ""


def test_what_people_wrote_around_a_table_stays(checkout: Path) -> None:
    page = checkout / "docs/reference/settings.md"
    other = "<!-- generated: built-in -->\n<!-- end: built-in -->\n"
    text = f"{other}before\n<!-- generated: settings -->\nold\n<!-- end: settings -->\nafter | é\n"
    page.write_text(text, encoding="utf-8")
    assert status_of("--root", str(checkout)) == EXIT_OK
    text = page.read_text(encoding="utf-8")
    assert "<!-- end: built-in -->\nbefore\n<!-- generated: settings -->\n| variable |" in text
    assert text.endswith("|\n<!-- end: settings -->\nafter | é\n")
    assert "old" not in text


def test_a_schema_that_is_missing_is_written(checkout: Path) -> None:
    shutil.rmtree(checkout / "docs/reference/schemas")
    assert {path.name for path in outdated(checkout)} == {f"{name}.json" for name in MODELS}
    assert status_of("--root", str(checkout)) == EXIT_OK
    assert outdated(checkout) == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<!-- generated: settings -->\n",
        "<!-- end: settings -->\n<!-- generated: settings -->\n",
        "<!-- generated: settings -->\n<!-- end: settings -->\n" * 2,
    ],
)
def test_a_page_without_one_pair_of_markers_is_an_error(
    text: str, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkout / "docs/reference/settings.md").write_text(text, encoding="utf-8")
    assert status_of("--root", str(checkout)) == EXIT_FAILED
    assert "docs/reference/settings.md: wanted one line <!-- generated: settings -->" in capsys.readouterr().err
    assert (checkout / "docs/reference/settings.md").read_text(encoding="utf-8") == text


def test_outside_of_a_checkout_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(CarparkError, match=r"^docs/reference/settings\.md is not there; run this in a checkout"):
        outdated(tmp_path)


def test_two_tables_may_share_a_page() -> None:
    page = "<!-- generated: a -->\n<!-- end: a -->\n<!-- generated: b -->\n<!-- end: b -->\n"
    for name in ("a", "b"):
        page = Generated("page.md", f"{name}\n".upper, name).render(page)
    assert page == "<!-- generated: a -->\nA\n<!-- end: a -->\n<!-- generated: b -->\nB\n<!-- end: b -->\n"


def test_every_marker_in_the_docs_has_something_behind_it() -> None:
    marked = {
        (str(path.relative_to(ROOT)), name)
        for path in (ROOT / "docs").rglob("*.md")
        for name in re.findall(r"<!-- generated: (.+?) -->", path.read_text(encoding="utf-8"))
    }
    assert marked == {(each.path, each.table) for each in GENERATED if each.table}


def test_a_table_keeps_bars_inside_its_cells() -> None:
    assert markdown_table(("a", "b"), [("1|2", "3")]) == "| a | b |\n| --- | --- |\n| 1\\|2 | 3 |\n"


def test_the_table_of_settings_has_a_row_for_each() -> None:
    rows = re.findall(
        r"^\| `(CARPARK_\w+)`(?: or `…(_FILE)`)? \| `(--[\w-]+)` \| (?:`(.+?)`|none) \|", SETTINGS_PAGE, re.MULTILINE
    )
    assert rows == [
        (option.variable, option.file_variable and "_FILE", option.flag, option.default) for option in EVERY.values()
    ]


def test_the_values_that_pages_show_are_right() -> None:
    lines = "\n".join(re.findall(r"^\$ (.+)$", SHOWN, re.MULTILINE))
    given: list[tuple[str, str]] = re.findall(r"\b(CARPARK_\w+)=('[^']+'|[^\s$]+)", lines)
    assert len(given) > 8
    for variable, value in given:
        if variable not in FILES:
            settings = load_settings({variable: value.strip("'"), "CARPARK_METRICS_PORT": "0"})
            assert shown(settings)[variable] != "", variable


def test_the_errors_that_the_settings_page_shows_are_those_that_come(capsys: pytest.CaptureFixture[str]) -> None:
    on_page = re.search(r"^\$ carpark (generate exit .+)\n((?:carpark: .+\n){2})", SETTINGS_PAGE, re.MULTILINE)
    assert on_page is not None
    with pytest.raises(SystemExit, match="2"):
        run_command(carpark, on_page[1].split())
    assert capsys.readouterr().err == on_page[2]
