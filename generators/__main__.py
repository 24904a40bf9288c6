"""``python -m generators entry`` and ``python -m generators exit``."""

from __future__ import annotations

from carpark.settings.options import run_command
from generators.cli import generate

if __name__ == "__main__":
    run_command(generate, name="python -m generators")
