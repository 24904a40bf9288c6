"""The rules that the source keeps: size, direction of imports, docstrings, nothing of one machine."""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

import pytest

from carpark import errors
from tests.support.lines import count
from tests.support.processes import ROOT
from tests.support.source import (
    PACKAGES,
    Function,
    Module,
    arguments_of,
    decorators_of,
    imported_by,
    modules,
    tracked_files,
)

LONGEST_MODULE = 500

# What a room may import: itself, and what is on a lower floor. A room is a folder of carpark, a module beside them, or
# one of the other two packages.
FLOORS = (
    ("errors",),
    ("failpoints", "services"),
    ("domain", "settings", "web"),
    ("ledger", "telemetry", "records"),
    ("rabbitmq", "plugins", "simulation", "writer"),
    ("broker", "generators"),
    ("backend",),
    ("ops",),
    ("embedded", "lab", "actors"),
    ("cli", "testing"),
    ("__main__",),
)
BESIDE = {("simulation", "plugins"), ("writer", "plugins")}
"""Who may import whom on the same floor."""

MOST_FOLDERS, MOST_MODULES = 18, 8

REDIS = ("carpark.records", "carpark.settings.urls", "generators.redis_lot")
"""Who has a client of Redis, or its parser of URLs; all others read the records through their contract."""

MACHINE = re.compile(
    r"(?<![\w.])/(?:wor[k]|roo[t]|home/\w+|Users/\w+)/|--(?:extra-)?index-ur[l]|https?://[^\s'\"]*/simple\b"
)

# Their docstring is the help that a command shows, or that of the thing that they stand in for.
UNDOCUMENTED = {"command", "group", "hookimpl", "overload", "override", "property", "cached_property"}
UNDOCUMENTED_BASES = {"ABC", "Protocol", "Exception", "Generic", "object"}


def room_of(name: str) -> str:
    """Find a module's room; that of `carpark` itself is nowhere, as it has nothing but the version and the face."""
    first, _, rest = name.partition(".")
    return rest.partition(".")[0] if first == "carpark" else first


def test_no_module_is_too_long() -> None:
    lengths = {
        str(module.path.relative_to(ROOT)): len(module.path.read_text(encoding="utf-8").splitlines())
        for module in modules(*PACKAGES, "tests")
    }
    assert {path: lines for path, lines in lengths.items() if lines > LONGEST_MODULE} == {}


def test_imports_run_down_the_floors() -> None:
    known = {module.name for module in modules(*PACKAGES)}
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    wrong = []
    for module in modules(*PACKAGES):
        room = room_of(module.name)
        for name in imported_by(module, known) if room else ():
            other = room_of(name)
            if other and other != room and (room, other) not in BESIDE and floor[other] >= floor[room]:
                wrong.append(f"{module.name} imports {name}")
    assert wrong == []


def test_nobody_but_the_records_has_a_client_of_them() -> None:
    client = re.compile(r"^ *(?:import|from) redis\b|\bimport .*\bconnect\b|\.register_script\(", re.MULTILINE)
    others = [module for module in modules(*PACKAGES) if not module.name.startswith(REDIS)]
    assert [module.name for module in others if client.search(module.path.read_text(encoding="utf-8"))] == []


def test_the_front_of_the_house_is_small() -> None:
    tracked = {path.relative_to(ROOT).parts[1:] for path in tracked_files() if path.is_relative_to(ROOT / "carpark")}
    folders = {parts[0] for parts in tracked if len(parts) > 1}
    shown = {parts[0] for parts in tracked if len(parts) == 1 and parts[0].endswith(".py")}
    assert len(folders) <= MOST_FOLDERS
    assert len(shown) <= MOST_MODULES


def test_the_source_imports_nothing_of_the_tests() -> None:
    known = {module.name for module in modules("tests")}
    assert {module.name: name for module in modules(*PACKAGES) for name in imported_by(module, known)} == {}


@pytest.mark.parametrize("folders", [PACKAGES, ("tests",)])
def test_there_is_no_import_circle(folders: tuple[str, ...]) -> None:
    known = {module.name for module in modules(*folders)}
    # The face names what is behind it, for type checkers; when it is imported, it imports nothing.
    graph = {module.name: set(imported_by(module, known)) for module in modules(*folders) if module.name != "carpark"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import circle: {' -> '.join(error.args[1])}")


def test_no_file_names_a_machine_or_an_index() -> None:
    found = []
    for path in tracked_files():
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="ignore").splitlines(), 1):
            if MACHINE.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}")
    assert found == []


LOCKS = ("requirements.lock", "benchmarks/requirements.lock", "deploy/image.lock", "deploy/sbom.lock")
PINNED = re.compile(
    r"([a-z0-9-]+)(?:\[[a-z,-]+\])?==([\w.]+)(?: ; [^\\]+)?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n"
)


def locked(lock: str) -> dict[str, str]:
    """Read the versions of a lock, in which there is nothing but pinned packages with their hashes."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / lock).read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert PINNED.sub("", text) == "", lock
    return dict(match.groups()[:2] for match in PINNED.finditer(text))


def test_every_locked_package_is_pinned_with_its_hashes_and_in_one_version() -> None:
    every = {lock: locked(lock) for lock in LOCKS}
    ours = every["requirements.lock"]
    assert every["deploy/image.lock"].items() <= ours.items()
    for versions in every.values():
        assert len(versions) > 10
        assert {name: version for name, version in versions.items() if ours.get(name, version) != version} == {}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {re.split(r"[\[>=<]", each)[0] for each in project["dependencies"]}
    assert needed <= every["deploy/image.lock"].keys(), "run `make lock`"


def test_what_is_installed_from_a_lock_is_held_against_its_hashes() -> None:
    for name in ("Makefile", "deploy/compose/Dockerfile"):
        text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
        installs = [line for line in text.splitlines() if re.search(r"(\$\(PIP\)|pip install).* -r ", line)]
        assert installs, name
        assert [line for line in installs if "--require-hashes" not in line] == []


def test_the_drawn_tree_of_errors_is_the_tree() -> None:
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in inspect.cleandoc(errors.__doc__ or "").splitlines():
        match = re.match(r"    ((?:[│ ]   |[├└]── )*)([A-Z]\w+)(?:  |$)", line)
        if match:
            depth = len(match[1]) // 4
            path[depth:] = [match[2]]
            drawn[match[2]] = path[depth - 1] if depth else "Exception"
    classes = {
        name: thing.__base__.__name__
        for name, thing in vars(errors).items()
        if inspect.isclass(thing) and thing.__module__ == errors.__name__ and thing.__base__
    }
    assert drawn == classes


# Whose docstrings are read by those who do not read the code: they say all of it. Elsewhere a sentence says what the
# name does not, or there is none.
TOLD_IN_FULL = ("plugins", "testing", "errors", "domain", "settings", "simulation")
MOST_DOCSTRINGS = 0.2
SECTION = re.compile(r"^(?:Args|Returns|Raises|Yields|Attributes):$", re.MULTILINE)
FILLERS = frozenset(
    re.findall(
        r"\w+",
        "a all an and any are as at be been by each for from give given has have here how in into is it its no not of "
        "on one or said say tell that the there this to what where whether which who will with",
    )
)


def is_told_in_full(module: Module) -> bool:
    """Tell whether a module's docstrings say what goes in and what comes out."""
    return module.name == "carpark" or room_of(module.name) in TOLD_IN_FULL


def test_docstrings_say_what_goes_in_and_what_comes_out() -> None:
    wrong = []
    for module in filter(is_told_in_full, modules(*PACKAGES)):
        for name, complaint in complaints(module):
            wrong.append(f"{module.path.relative_to(ROOT)}: {name}: {complaint}")
    assert wrong == [], "\n" + "\n".join(wrong)


def test_docstrings_elsewhere_are_a_sentence_that_says_what_the_name_does_not() -> None:
    wrong = []
    for module in modules(*PACKAGES):
        if not is_told_in_full(module):
            for name, text in docstrings(module.tree):
                if SECTION.search(text) or words_of(text.partition("\n\n")[0]) <= words_of(name):
                    wrong.append(f"{module.path.relative_to(ROOT)}: {name}: {text.splitlines()[0]}")
    assert wrong == [], "\n" + "\n".join(wrong)


def docstrings(node: ast.Module | ast.ClassDef, outer: str = "") -> Iterator[tuple[str, str]]:
    """Give the names, classes' before them, and docstrings of what is defined."""
    for child in node.body:
        if isinstance(child, Function | ast.ClassDef):
            name = f"{outer} {child.name}"
            if text := ast.get_docstring(child):
                yield name, text
            if isinstance(child, ast.ClassDef):
                yield from docstrings(child, name)


def words_of(text: str) -> set[str]:
    """Find the words that say something, each without its ending."""
    found = re.findall("[a-z]+", re.sub("([a-z])([A-Z])", r"\1 \2", text).lower())
    return {re.sub(r"(?<=...)(?:ing|ed|es|s|e|d)$", "", word) for word in found} - FILLERS


def test_docstrings_are_no_more_than_a_fifth_of_the_source() -> None:
    lines = sum(count(*PACKAGES).values(), Counter[str]())
    assert lines["docstring"] <= MOST_DOCSTRINGS * lines.total()


def complaints(module: Module) -> Iterator[tuple[str, str]]:
    """Find public definitions whose docstrings leave something out."""
    for node in module.tree.body:
        if isinstance(node, Function) and is_public(node):
            yield from function_complaints(node.name, node)
        elif isinstance(node, ast.ClassDef) and is_public(node):
            yield from class_complaints(node)


def class_complaints(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """Judge a class: its constructor's arguments are said by itself, methods say their own."""
    text = ast.get_docstring(node) or ""
    methods = [method for method in node.body if isinstance(method, Function)]
    for method in methods:
        if method.name == "__init__" and (missing := unsaid(arguments_of(method), text)):
            yield node.name, f"Args without {', '.join(missing)}"
    if stands_in(node):
        return
    for method in methods:
        if is_public(method):
            yield from function_complaints(f"{node.name}.{method.name}", method)


def function_complaints(name: str, node: Function) -> Iterator[tuple[str, str]]:
    """Judge a function."""
    text = ast.get_docstring(node)
    if decorators_of(node) & UNDOCUMENTED or decorators_of(node) & {"setter", "route", "get", "post"}:
        return
    if text is None:
        yield name, "no docstring"
        return
    if missing := unsaid(arguments_of(node), text):
        yield name, f"Args without {', '.join(missing)}"
    returns = ast.unparse(node.returns) if node.returns else "None"
    if returns not in ("None", "NoReturn", "Never") and not re.search(r"^(Returns|Yields):$", text, re.MULTILINE):
        yield name, "no Returns"
    if raises(node) and "Raises:\n" not in text:
        yield name, "no Raises"


def unsaid(arguments: list[str], text: str) -> list[str]:
    """Find the arguments that a docstring's Args leave out."""
    section = text.partition("Args:\n")[2]
    return [name for name in arguments if not re.search(rf"^\s+\**{name}:", section, re.MULTILINE)]


def raises(node: Function) -> bool:
    """Tell whether a function itself raises something new that it does not catch at once."""
    inner = [
        child for child in ast.walk(node) if isinstance(child, (ast.FunctionDef, ast.Lambda)) and child is not node
    ]
    skipped = {id(part) for child in inner for part in ast.walk(child)}
    skipped |= {
        id(part)
        for child in ast.walk(node)
        if isinstance(child, ast.Try)
        for piece in child.body
        for part in ast.walk(piece)
    }
    return any(
        isinstance(part, ast.Raise) and part.exc is not None and id(part) not in skipped for part in ast.walk(node)
    )


def is_public(node: Function | ast.ClassDef) -> bool:
    """Tell whether a name is for others to call; a test of a shipped conformance suite says all in its name."""
    return not node.name.startswith(("_", "test_"))


def stands_in(node: ast.ClassDef) -> bool:
    """Tell whether a class takes the place of another, whose docstrings then are the ones to read."""
    bases = {ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in node.bases}
    return bool(bases - UNDOCUMENTED_BASES)
