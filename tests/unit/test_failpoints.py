"""Failpoints: nothing where none is armed, SIGKILL at the right place and time where one is."""

from __future__ import annotations

import subprocess
import sys

import pytest

from carpark.errors import InvalidSetting
from carpark.failpoints import NAMES, VARIABLE, failpoints

PASS_THREE_TIMES = """
from carpark.failpoints import failpoints
reached = failpoints()
for number in range(3):
    for name in ("after-record", "before-ack"):
        reached(name)
        print(name, number, flush=True)
"""


def test_without_the_variable_no_place_is_fatal() -> None:
    for name in NAMES:
        failpoints({})(name)


def test_a_process_kills_itself_when_it_gets_there_for_the_nth_time() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PASS_THREE_TIMES], env={VARIABLE: "after-record:2"}, capture_output=True, text=True
    )
    assert ended.returncode == -9
    assert ended.stdout.split("\n") == ["after-record 0", "before-ack 0", ""]
    assert ended.stderr == "failpoint after-record: killed\n"


@pytest.mark.parametrize(
    "text", ["nowhere:1", "after-record", "after-record:0", "after-record:x", ":1", "before-ack:1,"]
)
def test_a_wrong_failpoint_is_an_error(text: str) -> None:
    with pytest.raises(InvalidSetting, match=VARIABLE):
        failpoints({VARIABLE: text})
