"""Counts what the source is made of: ``python -m tests.support.lines [FOLDER ...]``."""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

from tests.support.source import PACKAGES, modules

_NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def lines_of(text: str) -> Counter[str]:
    """Count a module's lines: ``code``, ``docstring`` (also under a constant), ``comment`` and ``blank``."""
    docstrings = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NO_CODE:
            code.update(range(token.start[0], token.end[0] + 1))
    count = Counter[str]()
    for number, line in enumerate(text.splitlines(), 1):
        if number in docstrings:
            count["docstring"] += 1
        elif number in code:
            count["code"] += 1
        else:
            count["comment" if line.strip() else "blank"] += 1
    return count


def count(*folders: str) -> dict[str, Counter[str]]:
    """Count the lines below each folder."""
    return {
        folder: sum((lines_of(module.path.read_text(encoding="utf-8")) for module in modules(folder)), Counter[str]())
        for folder in folders
    }


def main(folders: list[str]) -> None:
    """Print a table."""
    kinds = ("code", "docstring", "comment", "blank")
    print(f"{'':12}" + "".join(f"{kind:>12}" for kind in kinds) + f"{'all':>12}{'docstrings':>12}")
    counts = count(*folders)
    for name, found in [*counts.items(), ("together", sum(counts.values(), Counter[str]()))]:
        share = found["docstring"] / max(1, found.total())
        print(f"{name:12}" + "".join(f"{found[kind]:12,}" for kind in kinds) + f"{found.total():12,}{share:12.1%}")


if __name__ == "__main__":
    main([name for name in sys.argv[1:] if Path(name).is_dir()] or list(PACKAGES))
