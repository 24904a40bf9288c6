"""docs/reference/hooks.md says what the code says."""

from __future__ import annotations

import inspect
import re

import pytest

from carpark import plugins
from carpark.plugins import spec
from carpark.plugins.manager import HOOKS
from tests.support.processes import ROOT

PAGE = ROOT / "docs/reference/hooks.md"


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hooks_heading_is_its_exact_signature(hook: str) -> None:
    source = inspect.getsource(getattr(spec, hook))
    [line] = re.findall(r"^def (.*):$", source, re.MULTILINE)
    assert f"\n## `{line}`\n" in PAGE.read_text(encoding="utf-8")


def test_every_hook_has_its_heading_and_no_other_is_there() -> None:
    headings = re.findall(r"^## `(carpark_\w+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    defined = [name for name, thing in vars(spec).items() if inspect.isfunction(thing) and name.startswith("carpark_")]
    assert headings == defined == list(HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_says_who_calls_it_what_it_returns_and_what_happens_when_it_raises(hook: str) -> None:
    text = inspect.getdoc(getattr(spec, hook)) or ""
    assert "Called once" in text
    assert "Returns:\n" in text
    assert "Raises:\n" in text


def test_everything_that_is_public_for_plugins_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    missing = [name for name in plugins.__all__ if name not in ("Plugins", "hookimpl") and f"## `{name}" not in text]
    assert missing == []
    assert "carpark.hookimpl" in text
