"""Reads the project's own source, for tests that hold it to the rules of the house."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from tests.support.processes import ROOT

PACKAGES = ("carpark", "generators", "writer")
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """A Python file of the project.

    Args:
        name: As it is imported.
        path: The file.
    """

    name: str
    path: Path

    @cached_property
    def tree(self) -> ast.Module:
        """What is in it, parsed when it is first asked for."""
        return ast.parse(self.path.read_text(encoding="utf-8"), str(self.path))


@cache
def modules(*folders: str) -> tuple[Module, ...]:
    """Read all modules below some folders.

    Args:
        folders: Top folders of the project.

    Returns:
        The modules, sorted by name.
    """
    found = []
    for path in sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append(Module(name, path))
    return tuple(found)


def tracked_files() -> list[Path]:
    """List what belongs to the project, so not what is ignored.

    Returns:
        The files that git tracks; in an unpacked archive, all that are in no hidden folder.
    """
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
        return [path for path in paths if path.is_file()]
    return [
        path
        for path in ROOT.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(ROOT).parts[:-1])
    ]


def imported_by(module: Module, known: set[str]) -> Iterator[str]:
    """Find out what a module imports of the project, wherever in it the import stands.

    Args:
        module: The module.
        known: Names of all modules of the project.

    Yields:
        Names of modules.
    """
    for node in ast.walk(module.tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            names = [f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names]
        for name in names:
            if name in known and name != module.name:
                yield name


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    if module.path.name != "__init__.py":
        parts = parts[:-1]
    parts = parts[: len(parts) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])


def arguments_of(function: Function) -> list[str]:
    """Name a function's arguments.

    Args:
        function: The definition.

    Returns:
        All that a caller can give, without self and cls.
    """
    given = function.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    return [argument.arg for argument in every if argument is not None and argument.arg not in ("self", "cls")]


def decorators_of(node: Function | ast.ClassDef) -> set[str]:
    """Name the decorators.

    Args:
        node: The definition.

    Returns:
        The last part of each name: ``command`` for ``@main.command()``.
    """
    found = set()
    for decorator in node.decorator_list:
        target = decorator.func if isinstance(decorator, ast.Call) else decorator
        if isinstance(target, ast.Attribute):
            found.add(target.attr)
        elif isinstance(target, ast.Name):
            found.add(target.id)
    return found
