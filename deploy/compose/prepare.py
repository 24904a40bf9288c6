"""What the stack needs and the project lacks: `.env` with secrets made by chance, and the files of the servers."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent

SECRETS = (
    "RABBITMQ_QUEUES_PASSWORD",
    "RABBITMQ_WORKER_PASSWORD",
    "RABBITMQ_ENTRY_PASSWORD",
    "RABBITMQ_EXIT_PASSWORD",
    "RABBITMQ_DASHBOARD_PASSWORD",
    "RABBITMQ_ADMIN_PASSWORD",
    "RABBITMQ_COOKIE",
    "REDIS_PASSWORD",
    "WRITER_TOKEN",
    "DASHBOARD_PASSWORD",
    "GRAFANA_PASSWORD",
)
UNPRIVILEGED = 10001


def read_env(path: Path) -> dict[str, str]:
    """Read an environment file.

    Args:
        path: The file, one `NAME=value` a line; it need not be there.

    Returns:
        Its variables.
    """
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, _, value in pairs}


def complete_env(path: Path) -> dict[str, str]:
    """Add to `.env` what it does not have yet: secrets by chance, and whose number the services run with.

    Args:
        path: The file; it is made when it is not there. Only its owner can read it from now on.

    Returns:
        All its variables.
    """
    if path.exists():
        path.chmod(0o600)  # it may have been made by hand, for all to read
    values = read_env(path)
    # The writer's files belong to whoever started the stack; root's number would make the services root.
    user, group = (os.getuid(), os.getgid()) if os.getuid() else (UNPRIVILEGED, UNPRIVILEGED)
    wanted = {name: secrets.token_urlsafe(24) for name in SECRETS}
    wanted |= {"STACK_UID": str(user), "STACK_GID": str(group), "CARPARK_BIND": "127.0.0.1"}
    missing = {name: value for name, value in wanted.items() if name not in values}
    if missing:
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        with os.fdopen(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600), "a", encoding="utf-8") as file:
            if not before:
                file.write(
                    "# Made by `make up`. Settings of the services, such as CARPARK_RATE=20, may be added here.\n"
                )
            elif not before.endswith("\n"):
                file.write("\n")
            file.writelines(f"{name}={value}\n" for name, value in missing.items())
        print(f"stack: {'completed' if before else 'wrote'} {short(path)}")
    return {**missing, **values}


def password_hash(password: str, salt: bytes) -> str:
    """Hash a password as RabbitMQ's definitions want it.

    Args:
        password: The password.
        salt: Four bytes.

    Returns:
        Salt and SHA-256 of both, in base64.
    """
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def write_secrets(folder: Path, values: Mapping[str, str]) -> None:
    """Write the files that the servers read their passwords from.

    Args:
        folder: Where they go. Others on this machine cannot enter it; the containers see single files of it.
        values: The variables of `.env`.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    definitions = json.loads((HERE / "rabbitmq" / "definitions.json").read_text(encoding="utf-8"))
    for user in definitions["users"]:
        password = values[f"RABBITMQ_{user['name'].upper()}_PASSWORD"]
        user["hashing_algorithm"] = "rabbit_password_hashing_sha256"
        user["password_hash"] = password_hash(password, secrets.token_bytes(4))
    redis = values["REDIS_PASSWORD"]
    sentinel = (HERE / "redis" / "sentinel.conf").read_text(encoding="utf-8").replace("PASSWORD", redis)
    for name, text in (
        ("definitions.json", json.dumps(definitions, indent=2) + "\n"),
        ("redis.conf", f"requirepass {redis}\nmasterauth {redis}\n"),
        ("sentinel.conf", sentinel),
    ):
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o644)


def prepare() -> dict[str, str]:
    """Write what the compose files need and the project does not have.

    Returns:
        The variables of `.env`.
    """
    values = complete_env(HERE / ".env")
    write_secrets(HERE / "secrets", values)
    data = HERE / values.get("STACK_DATA", "../../data/stack")
    data.mkdir(parents=True, exist_ok=True)
    if os.getuid() == 0:
        os.chown(data, int(values["STACK_UID"]), int(values["STACK_GID"]))
    return values


def short(path: Path) -> str:
    """Name a file as seen from where the command was given.

    Args:
        path: The file.

    Returns:
        The relative path.
    """
    return os.path.relpath(path)
