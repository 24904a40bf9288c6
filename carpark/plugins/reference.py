"""Makes the reference of hooks and offers in docs/reference/hooks.md from the docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator

from carpark.domain.events import StaySummary
from carpark.errors import SinkUnavailable, SummaryRefused
from carpark.plugins import spec
from carpark.plugins.base import Offer, PlateGenerator, PlatesType, PluginContext, ReadBack, Sink, SinkType
from carpark.plugins.findings import Finding
from carpark.plugins.manager import HOOKS

_CLASSES: tuple[tuple[type, tuple[str, ...]], ...] = (
    (Offer, ()),
    (SinkType, ()),
    (Sink, ("deliver", "close")),
    (StaySummary, ("to_dict",)),
    (SinkUnavailable, ()),
    (SummaryRefused, ()),
    (PlatesType, ()),
    (PlateGenerator, ("sample", "is_valid")),
    (PluginContext, ()),
    (Finding, ("ok", "warning", "problem", "wrong")),
    (ReadBack, ("of_file",)),
)


def hooks() -> str:
    """Write the reference of the hooks.

    Returns:
        Markdown, with a heading per hook that is its exact signature.
    """
    return "".join(_section(2, name, signature(getattr(spec, name)), getattr(spec, name)) for name in HOOKS)


def offers() -> str:
    """Write the reference of what the hooks offer.

    Returns:
        Markdown, with a heading per class and per method.
    """
    sections = []
    for kind, methods in _CLASSES:
        sections.append(_section(2, kind.__name__, _fields(kind), kind))
        for name in methods:
            method = getattr(kind, name)
            sections.append(_section(3, f"{kind.__name__}.{name}", signature(method), method))
    return "".join(sections)


def _section(level: int, name: str, arguments: str, thing: object) -> str:
    return "\n".join([f"\n{'#' * level} `{name}{arguments}`\n", *_docstring(thing)])


def signature(function: Callable[..., object]) -> str:
    """Write a signature as the source has it.

    Args:
        function: A function or method.

    Returns:
        For example ``(summaries: Sequence[StaySummary]) -> None``; without ``self``.
    """
    found = inspect.signature(function)
    arguments = [one for name, one in found.parameters.items() if name != "self"]
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(found.replace(parameters=arguments)))


def _fields(kind: type) -> str:
    if issubclass(kind, StaySummary):
        types = {name: getattr(each.annotation, "__name__", "") for name, each in kind.model_fields.items()}
        return f"({', '.join(f'{name}: {type_}' for name, type_ in types.items())})"
    if "__init__" not in vars(kind):
        return ""
    return re.sub(r" = <.*?>(?=[,)])| -> None$", "", signature(kind))  # such a default is an object of no name


def _docstring(thing: object) -> Iterator[str]:
    summary, _, rest = (inspect.getdoc(thing) or "").partition("\n\n")
    yield _marked(summary) + "\n"
    for block in re.split(r"\n\n", rest) if rest else []:
        title, colon, body = block.partition(":\n")
        if colon and title in ("Args", "Returns", "Raises", "Attributes"):
            yield f"**{title}**\n"
            yield "\n".join(_items(title, inspect.cleandoc(body))) + "\n"
        else:
            yield _marked(block) + "\n"


def _items(title: str, body: str) -> Iterator[str]:
    if title == "Returns":
        yield _marked(body)
        return
    for entry in re.split(r"\n(?=\S)", body):
        name, _, text = entry.partition(": ")
        lines = [line.strip() for line in text.splitlines()]
        yield f"- `{name}`: {_marked(chr(10).join([lines[0], *('  ' + line for line in lines[1:])]))}"


def _marked(text: str) -> str:
    return text.replace("``", "`")
