"""Texts that settings take or refuse, and a secret to look for in what is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import strategies as st

NO_URLS = ["", " ", "localhost", "localhost:1", "://x", "http", "http:", "ftp://host", "HTTP//host", "http://",
           "http://:80", "http://host:x", "http://host:99999", "http://host:0", "http://host:-1", "http://ho st",
           "http://ho\nst", "http://ho\tst", "http://[::1", "http://a;http://b", "http://h\x7f",
           "http://h\u200b"]  # fmt: skip
NO_HTTP = [*NO_URLS, "amqp://h", "stub://", "memory://"]
FILES = [("a.csv", Path("a.csv")), (" a b.csv ", Path("a b.csv")), ("/tmp/ä/x", Path("/tmp/ä/x"))]
NO_FILES = ["", " ", "a\0b", "~nobody-of-this-name/x"]
SECRET = "hunter2"
DAMAGES = ["\n", " ä", "://", ";", "@", ":x", "[", "#"]
ANY_TEXT = st.text(st.characters()) | st.text("0123456789.eE+- ") | st.floats().map(repr) | st.integers().map(str)


def rows(table: dict[str, list[Any]]) -> list[tuple[str, Any]]:
    """Make pairs of a setting and a text for it."""
    return [(name, value) for name, each in table.items() for value in each]


def damaged(holder: str, damage: str) -> list[str]:
    """Damage what holds a secret at its end, its beginning, and where the secret ends.

    Args:
        holder: A right text, with ``{}`` where the secret is.
        damage: What is put in.

    Returns:
        The texts, with the secret.
    """
    texts = (holder + damage, damage + holder, holder.replace("@", damage + "@"))
    return [text.replace("{}", SECRET) for text in texts]
