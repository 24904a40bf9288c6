"""The tree of errors: drawn as it is, one printable line each."""

from __future__ import annotations

import inspect
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carpark import errors
from carpark.errors import (
    BrokenPlugin,
    CarparkError,
    ConfigurationError,
    ExchangeMismatch,
    FileInUse,
    InvalidBody,
    InvalidEvent,
    InvalidSetting,
    InvalidSummary,
    MessageError,
    PortTaken,
    QueueInUse,
    QueueMismatch,
    SeveralMistakes,
    SummaryRefused,
    UnknownPlugin,
    one_line,
    shown,
)

CLASSES = [member for member in vars(errors).values() if inspect.isclass(member) and issubclass(member, Exception)]


def drawn() -> list[tuple[str, str | None]]:
    """Pairs of a class and its base, as the module's docstring draws them."""
    pairs: list[tuple[str, str | None]] = []
    path: list[str] = []
    for line in inspect.getdoc(errors).splitlines():  # type: ignore[union-attr]
        if match := re.match(r"    ([│├└─ ]*)([A-Z]\w+)", line):
            depth = len(match[1]) // 4
            path = [*path[:depth], match[2]]
            pairs.append((match[2], path[-2] if depth else None))
    return pairs


def test_the_tree_in_the_docstring_is_the_tree_of_classes() -> None:
    tree = [(each.__name__, None if each is CarparkError else each.__base__.__name__) for each in CLASSES]
    assert sorted(drawn()) == sorted(tree, key=str)
    assert len(tree) > 15


def test_bases_end_in_error_and_leaves_state_the_fact() -> None:
    for each in CLASSES:
        assert each.__name__.endswith("Error") == bool(each.__subclasses__()), each
        assert each.__doc__


EXAMPLES = [
    (InvalidSetting("CARPARK_RATE", "x", "a number"), "CARPARK_RATE='x': wanted a number"),
    (
        PortTaken("CARPARK_WRITER_PORT", "127.0.0.1:40000"),
        "CARPARK_WRITER_PORT: 127.0.0.1:40000 is already in use; choose another port, or 0 for a free one",
    ),
    (
        FileInUse("CARPARK_CSV", "a.csv"),
        "CARPARK_CSV='a.csv': another process is writing this file; stop it or choose another file",
    ),
    (
        UnknownPlugin("CARPARK_SINKS", "sqlit", ["csv", "sqlite"]),
        "CARPARK_SINKS='sqlit': there is no such plugin; did you mean 'sqlite'? There are: csv, sqlite",
    ),
    (
        UnknownPlugin("CARPARK_SINKS", "x", ["csv", "sqlite"]),
        "CARPARK_SINKS='x': there is no such plugin; there are: csv, sqlite",
    ),
    (BrokenPlugin("mine", "cannot be imported"), "plugin 'mine': cannot be imported"),
    (
        QueueMismatch("vehicle_entry", "x-max-priority"),
        "queue 'vehicle_entry' exists with other arguments than carpark's (x-max-priority); "
        "stop the workers and run `carpark queues --migrate`, or correct CARPARK_QUEUE_TYPE",
    ),
    (QueueInUse("vehicle_entry", "who and why"), "queue 'vehicle_entry' is in use: who and why"),
    (InvalidEvent("id", "is missing"), "id: is missing"),
    (InvalidSummary("id", "is missing"), "id: is missing"),
    (InvalidBody("the body is empty"), "the body is empty"),
    (SummaryRefused("the sink says no", ("a",)), "the sink says no"),
]


@pytest.mark.parametrize(("error", "line"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_an_error_says_what_is_wrong_in_one_line(error: CarparkError, line: str) -> None:
    assert str(error) == line


def test_errors_carry_what_they_speak_of() -> None:
    wrong = InvalidSetting("CARPARK_RATE", "x", "a number")
    assert (wrong.name, wrong.value, wrong.wanted) == ("CARPARK_RATE", "x", "a number")
    assert (InvalidEvent("id", "is missing").field, InvalidEvent("id", "is missing").reason) == ("id", "is missing")
    assert PortTaken("CARPARK_WRITER_PORT", "a:1").address == "a:1"
    assert FileInUse("CARPARK_CSV", "a.csv").path == "a.csv"
    assert UnknownPlugin("CARPARK_SINKS", "x", ["y"]).known == ["y"]
    assert BrokenPlugin("mine", "why").plugin == "mine"
    assert QueueMismatch("q", "why").queue == "q"
    assert SummaryRefused("why", ("a", "b")).ids == ("a", "b")


def test_several_mistakes_are_found_one_by_one_and_anything_else_finds_itself() -> None:
    one, two = InvalidSetting("CARPARK_RATE", "x", "a number"), BrokenPlugin("mine", "cannot be imported")
    both = SeveralMistakes(iter([one, two]))
    assert (one.findings, two.findings, both.findings) == ((one,), (two,), (one, two))
    assert str(both) == f"{one}; {two}"


def test_what_ends_a_command_with_status_2_is_not_what_dead_letters_a_message() -> None:
    assert not issubclass(ConfigurationError, MessageError)
    assert not issubclass(MessageError, ConfigurationError)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain", "plain"),
        ("a\r\nb\tc\x0bd\u2028e\x85f", "a b c d e f"),
        ("  around  ", "around"),
        ("\x1b[31mred\0", "\\x1b[31mred\\x00"),
        ("\ud800\u202e\ufeff", "\\ud800\\u202e\\ufeff"),
        ("Ä 粤 🚗", "Ä 粤 🚗"),
        ("x" * 1000, "x" * 1000),
        ("x" * 1001, "x" * 997 + "..."),
        ("\0" * 1000, "\\x00" * 249 + "\\..."),
        ("", ""),
    ],
)
def test_any_text_becomes_one_printable_line(text: str, line: str) -> None:
    assert one_line(text) == line


def test_a_wrong_value_is_quoted_and_shortened() -> None:
    assert shown("x\n") == "'x\\n'"
    assert shown("x" * 60) == "'" + "x" * 60 + "'"
    assert shown("x" * 61) == "'" + "x" * 57 + "...'"


@settings(deadline=None)
@given(st.text(st.characters()) | st.sampled_from(["\0" * 70_000, "🚗" * 70_000, "\n" * 70_000, "\ud800" * 70_000]))
def test_whatever_an_error_is_made_of_it_is_one_line_for_a_log_and_a_header(text: str) -> None:
    made = [
        CarparkError(text),
        InvalidSetting("CARPARK_X", text, "something else"),
        InvalidEvent(text, text),
        UnknownPlugin("CARPARK_SINKS", text, ["csv"]),
        BrokenPlugin(text, text),
        FileInUse("CARPARK_CSV", text),
        QueueInUse(text, text),
        QueueMismatch(text, text),
        ExchangeMismatch(text, text),
    ]
    for error in made:
        assert str(error).isprintable()
        assert len(str(error).encode()) <= 4000


def test_a_wrong_value_is_not_shown_at_length() -> None:
    assert len(str(InvalidSetting("CARPARK_RATE", "9" * 100_000, "a number"))) < 120
