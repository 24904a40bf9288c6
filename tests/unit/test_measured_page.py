"""The measured tables of the docs: a row is renewed in its place, others are let be."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import page

EMPTY = "before\n<!-- measured: t -->\n<!-- end: t -->\nafter\n"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "page.md"
    path.write_text(EMPTY, encoding="utf-8")
    monkeypatch.setattr(page, "PAGE", path)
    return path


def rows(path: Path) -> list[list[str]]:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    return [line.strip("| ").split(" | ")[:-1] for line in lines if not line.startswith("| ---")]


def test_rows_are_added_and_renewed_in_their_place(path: Path) -> None:
    for cells in (("a", "1"), ("round 1", "2"), ("b|c", "3"), ("a", "4")):
        page.note("t", ("what", "took"), cells)
    assert rows(path) == [["what", "took"], ["a", "4"], ["round 1", "2"], ["b/c", "3"]]
    text = path.read_text(encoding="utf-8")
    assert text.startswith("before\n<!-- measured: t -->\n| what |")
    assert text.endswith("|\n<!-- end: t -->\nafter\n")


def test_rows_that_begin_alike_are_taken_out(path: Path) -> None:
    page.forget("t", "round ")
    assert path.read_text(encoding="utf-8") == EMPTY
    for cells in (("round 1", "1"), ("a", "2"), ("round 2", "3")):
        page.note("t", ("what", "took"), cells)
    page.forget("t", "round ")
    page.note("t", ("what", "took"), ("b", "4"))
    assert rows(path) == [["what", "took"], ["a", "2"], ["b", "4"]]
