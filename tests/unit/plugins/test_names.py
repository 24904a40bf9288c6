"""The core knows no offer by its name: what it has to know of one, the offer says."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator

import pytest

from carpark.plugins import Plugins
from carpark.plugins.manager import BUILTIN
from carpark.settings import Settings
from tests.support.source import PACKAGES, imported_by, modules

ALSO_OTHER_THINGS = {"csv", "file"}
"""Names of offers that are words of ours, too; ``csv`` is a setting of the core."""

NAMES = {*Plugins(environ={}).sinks, *Plugins(environ={}).plates}
_WORD = re.compile(rf"(?<![\w.-])({'|'.join(sorted(NAMES - ALSO_OTHER_THINGS, key=len, reverse=True))})(?![\w-])")
_PROSE = {"stdout"}
"""What a sentence may have in it."""

OUTSIDE = [module for module in modules(*PACKAGES) if not f"{module.name}.".startswith("carpark.plugins.")]


def known_in(tree: ast.AST) -> Iterator[str]:
    """Find the names of offers in a module: as a text, in one, or compared with.

    Docstrings and examples are left aside, and what a file's name ends in.
    """
    for node in _code(tree):
        if isinstance(node, ast.Compare):
            yield from (each.value for each in _texts(node) if each.value in ALSO_OTHER_THINGS)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found = set(_WORD.findall(node.value))
            yield from found if node.value in found else found - _PROSE


def _texts(node: ast.AST) -> Iterator[ast.Constant]:
    return (each for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str))


def _code(node: ast.AST) -> Iterator[ast.AST]:
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    is_example = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "examples"
    if is_text or is_example:
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _code(child)


def test_no_module_outside_plugins_knows_an_offer_by_its_name_but_as_a_default() -> None:
    found = sorted((module.name, name) for module in OUTSIDE for name in known_in(module.tree))
    defaults = [*Settings.model_fields["sinks"].default, Settings.model_fields["plates"].default]
    assert found == sorted(("carpark.settings.model", name) for name in defaults)


def test_no_module_outside_plugins_imports_one_of_the_built_in_ones() -> None:
    known = {module.name for module in modules(*PACKAGES)}
    assert set(BUILTIN) <= known
    inner = ("carpark.plugins.sinks", "carpark.plugins.plates")
    found = [
        (module.name, name)
        for module in OUTSIDE
        for name in imported_by(module, known)
        if f"{name}.".startswith(tuple(f"{each}." for each in inner))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('if "webhook" in settings.sinks: pass', ["webhook"]),
        ('files = {"jsonl": "a", "http-csv": "b"}', ["jsonl", "http-csv"]),
        ("print(f'sink {name} is no sqlite')", ["sqlite"]),
        ('print("to stdout"); stream = "stdout"', ["stdout"]),
        ('"""Posts as webhook does."""\nimport sqlite3\nexamples("carpark run --sinks sqlite")', []),
        ('if name == "csv": pass', ["csv"]),
        ('settings_options("csv", "rate"); open("days.jsonl.old"); say("the UK, or sqlite3")', []),
    ],
)
def test_the_look_into_a_module_finds_what_it_is_for(source: str, found: list[str]) -> None:
    assert list(known_in(ast.parse(textwrap.dedent(source)))) == found
