"""The tests' own tools tell the truth."""

import signal
from pathlib import Path

import pytest

from tests.support.helpers import eventually, find_free_port, is_listening
from tests.support.processes import Processes

STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"


def test_eventually_gives_the_first_true_answer() -> None:
    answers = iter([0, "", "yes", "later"])
    assert eventually(lambda: next(answers), interval=0) == "yes"


def test_eventually_fails_with_the_last_answer_and_what_was_waited_for() -> None:
    with pytest.raises(AssertionError, match="the moon is full; last answer: 0"):
        eventually(lambda: 0, timeout=0, what="the moon is full")


def test_eventually_takes_a_failed_assertion_for_not_yet() -> None:
    seen: list[int] = []

    def third() -> bool:
        seen.append(1)
        assert len(seen) == 3, f"only {len(seen)}"
        return True

    assert eventually(third, interval=0)
    with pytest.raises(AssertionError) as failure:
        eventually(third, timeout=0)
    assert "only 4" in str(failure.value.__cause__)


def test_nothing_listens_on_a_free_port() -> None:
    assert not is_listening(find_free_port())


def test_a_process_that_ends_without_its_line_is_a_failure_that_shows_its_output(processes: Processes) -> None:
    ended = processes.start(["python", "-c", "print('something else'); raise SystemExit(3)"])
    with pytest.raises(AssertionError, match=r"(?s)ended with 3 before it printed 'ready'.*something else"):
        ended.wait_for_line("ready")


def test_a_process_is_ended_with_its_children(processes: Processes) -> None:
    script = (
        "import subprocess, sys; c = subprocess.Popen(['sleep', '600']); print('child', c.pid, flush=True); c.wait()"
    )
    parent = processes.start(["python", "-c", script])
    child = Path("/proc") / parent.wait_for_line(r"^child (\d+)$")[1]
    assert parent.terminate() == -signal.SIGTERM

    def ended() -> bool:
        try:
            return "State:\tZ" in (child / "status").read_text()
        except OSError:
            return True

    eventually(ended)


def test_a_process_deaf_to_sigterm_is_killed_and_named(tmp_path: Path) -> None:
    processes = Processes(tmp_path, {}, patience=0.2)
    deaf = processes.start(["python", "-c", STUBBORN])
    deaf.wait_for_line("deaf")
    with pytest.raises(AssertionError, match=r"did not end on SIGTERM within 0\.2 s: .*signal\.pause"):
        processes.close()
    assert deaf.status == -signal.SIGKILL
