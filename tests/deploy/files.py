"""What is in deploy/, read for the tests."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from carpark import services
from tests.support.processes import ROOT

COMPOSE = ROOT / "deploy" / "compose"
KUSTOMIZE = ROOT / "deploy" / "kustomize"

SERVICES = {service.command.split()[-1]: service for service in services.SERVICES.values() if service.name != "run"}
"""Our services; here each is called by the last word of its command."""

_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::?-(?P<default>[^}]*)|:\?(?P<error>[^}]*))?\}")


@cache
def compose(name: str = "compose.yaml") -> dict[str, Any]:
    """Read a compose file as it stands, with its anchors resolved and its variables not."""
    read: dict[str, Any] = yaml.safe_load((COMPOSE / name).read_text(encoding="utf-8"))
    return read


def with_overlay() -> dict[str, dict[str, Any]]:
    """Merge the services of both compose files, mappings in depth, as `-f one -f two` does."""
    merged: dict[str, dict[str, Any]] = {}
    for name in ("compose.yaml", "cluster.yaml"):
        for service, body in compose(name)["services"].items():
            merged[service] = _merge(merged.get(service, {}), body)
    return merged


def _merge(one: Any, other: Any) -> Any:
    if isinstance(one, dict) and isinstance(other, dict):
        return {key: _merge(one.get(key), other[key]) if key in other else one[key] for key in {**one, **other}}
    if isinstance(one, list) and isinstance(other, list):
        return one + other
    return other


def variables(text: str) -> list[tuple[str, str | None, bool]]:
    """Find the variables that a compose file takes: name, default, and whether it must be set."""
    found = _VARIABLE.finditer(text)
    return [(match["name"], match["default"], match["error"] is not None) for match in found]


def filled(text: str, values: dict[str, str]) -> str:
    """Put variables in, as compose does."""
    return _VARIABLE.sub(lambda match: values.get(match["name"]) or match["default"] or "", text)


def mebibytes(text: str) -> int:
    """Read a memory limit of a compose file."""
    match = re.fullmatch(r"(\d+)m", text)
    assert match, text
    return int(match[1])


def redis_conf() -> dict[str, str]:
    """Read the configuration of the stack's Redis."""
    lines = (COMPOSE / "redis" / "redis.conf").read_text(encoding="utf-8").splitlines()
    return dict(line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))


def tracked(folder: Path) -> list[Path]:
    """List the files below a folder."""
    return sorted(path for path in folder.rglob("*") if path.is_file())
