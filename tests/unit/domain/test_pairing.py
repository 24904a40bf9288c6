"""The reference itself, on cases worked out by hand from the contract's words."""

from __future__ import annotations

import pytest

from carpark.domain.events import Event
from tests.support.reference import account_for
from tests.support.stays import at, entered, exited


def events_of(text: str) -> list[Event]:
    """Read `E1 X5`: an entry at 1 and an exit at 5, each called as it is written; `E1=E3` is at 3, called E1."""
    events: list[Event] = []
    for word in text.split():
        name, _, moment = word.partition("=")
        make = entered if name[0] == "E" else exited
        events.append(make(name, "B1", int((moment or name)[1:])))
    return events


@pytest.mark.parametrize(
    ("events", "summaries", "inside", "abandoned", "unmatched", "duplicates"),
    [
        ("", "", "", "", "", 0),
        ("E1", "", "E1", "", "", 0),
        ("X1", "", "", "", "X1", 0),
        ("E1 X5", "E1-X5", "", "", "", 0),
        ("X5 E1", "E1-X5", "", "", "", 0),
        ("E1 X1", "E1-X1", "", "", "", 0),
        ("X1 E1", "E1-X1", "", "", "", 0),
        ("X1 E2", "", "E2", "", "X1", 0),
        ("E1 E2 X3 X4", "E2-X3", "", "E1", "X4", 0),
        ("E1 E3 X2 X4", "E1-X2 E3-X4", "", "", "", 0),
        ("E1 E3 X3", "E3-X3", "", "E1", "", 0),
        ("E1 X3 E3 X4", "E3-X3", "", "E1", "X4", 0),
        ("E1 X2 X3 E4", "E1-X2", "E4", "", "X3", 0),
        ("X6 X4 X2 E1 E3 E5", "E1-X2 E3-X4 E5-X6", "", "", "", 0),
        ("E1 E1 X2 E1=E9 X2=X1 X2", "E1-X2", "", "", "", 4),
    ],
)
def test_events_come_to_what_the_contract_says(
    events: str, summaries: str, inside: str, abandoned: str, unmatched: str, duplicates: int
) -> None:
    account = account_for(events_of(events))
    stays = [stay.split("-") for stay in summaries.split()]
    assert account.summaries == {(exit_, "B1", at(int(entry[1:])), at(int(exit_[1:]))) for entry, exit_ in stays}
    assert account.inside == ({"B1": inside} if inside else {})
    assert account.abandoned == set(abandoned.split())
    assert account.unmatched == set(unmatched.split())
    assert account.duplicates == duplicates


def test_plates_are_joined_each_for_itself() -> None:
    account = account_for([entered("1", "A1", 1), exited("1", "B1", 2), entered("2", "B1", 1), exited("2", "C1", 2)])
    assert account.summaries == {("1", "B1", at(1), at(2))}
    assert account.inside == {"A1": "1"}
    assert account.unmatched == {"2"}
