"""What `carpark` itself names is promised: typed, imported when it is asked for, used by docs and examples."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import carpark
from tests.support.processes import ROOT
from tests.support.source import tracked_files

PROMISED = {"carpark", "carpark.testing"}


def run(code: str) -> str:
    """Run a program in an interpreter that has imported nothing yet."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_every_name_can_be_imported_and_dir_shows_these_alone() -> None:
    assert dir(carpark) == carpark.__all__ == sorted(carpark.__all__)
    for name in carpark.__all__:
        assert getattr(carpark, name) is not None


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((ROOT / "carpark" / "__init__.py").read_text(encoding="utf-8"))
    [seen] = [node for node in tree.body if isinstance(node, ast.If)]
    imported = {
        (alias.name, alias.asname, node.module)
        for node in seen.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert {name for name, _, _ in imported} == set(carpark.__all__) - {"__version__"}
    for name, shown, home in imported:
        assert name == shown
        assert home == carpark._HOME[name]


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    assert run("import carpark, sys; print([name for name in sys.modules if name.startswith('carpark.')])") == "[]\n"
    assert run("from carpark import CarparkError as found; print(found.__module__)") == "carpark.errors\n"


def test_a_name_that_there_is_not_is_said_with_the_one_that_was_meant() -> None:
    with pytest.raises(AttributeError, match="module 'carpark' has no attribute 'Sinc'") as raised:
        carpark.Sinc  # type: ignore[attr-defined]  # noqa: B018
    assert (raised.value.name, raised.value.obj) == ("Sinc", carpark)
    with pytest.raises(ImportError, match="Sinc"):
        from carpark import Sinc  # type: ignore[attr-defined]  # noqa: F401


@pytest.mark.slow
def test_mypy_takes_the_names_and_no_other(tmp_path: Path) -> None:
    names = ", ".join(name for name in carpark.__all__ if name != "__version__")
    (tmp_path / "right.py").write_text(
        f"from carpark import {names}\nsettings: Settings = load_settings()\nnumber: int = canonical_plate('A')\n",
        encoding="utf-8",
    )
    (tmp_path / "wrong.py").write_text("from carpark import Sinc\n", encoding="utf-8")
    found = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-pretty", str(tmp_path / "right.py"), str(tmp_path / "wrong.py")],
        cwd=ROOT,  # for its settings and its cache
        capture_output=True,
        text=True,
        check=False,
    )
    errors = {line.partition(": error: ")[2] for line in found.stdout.splitlines()[:-1]}
    assert errors == {
        'Module "carpark" has no attribute "Sinc"  [attr-defined]',
        'Incompatible types in assignment (expression has type "str", variable has type "int")  [assignment]',
    }


def test_docs_and_examples_import_nothing_else() -> None:
    pages = [path for path in tracked_files() if path.suffix == ".md" or path.is_relative_to(ROOT / "examples")]
    imported = {
        (str(path.relative_to(ROOT)), module)
        for path in pages
        if path.suffix in (".md", ".py")
        for module in re.findall(r"^\s*(?:from|import) (carpark(?:\.\w+)*)\b", path.read_text(encoding="utf-8"), re.M)
    }
    assert {(path, module) for path, module in imported if module not in PROMISED} == set()
    assert {module for _, module in imported} == PROMISED
