"""Threads that stand still before each call to a server until they are told to go on: the schedule is the test's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, ClassVar


class Abandoned(BaseException):
    """What the thread was doing is given up: its process is dead, or the schedule is at its end."""


class Hand:
    """A thread that does one job after the other, each in steps.

    Attributes:
        at: The call that it stands before; None if it has nothing to do.
    """

    idle: ClassVar[list[Hand]] = []
    _here = threading.local()

    def __init__(self) -> None:
        self.at: Any = None
        self._answer: Any = None
        self._job: Callable[[], None] | None = None
        self._go, self._stands = threading.Lock(), threading.Lock()  # a semaphore of Python's takes five times as long
        self._go.acquire()
        self._stands.acquire()
        self._problem: BaseException | None = None
        threading.Thread(target=self._run, daemon=True).start()

    @classmethod
    def begin(cls, job: Callable[[], None]) -> Hand:
        """Have a job begun, up to its first call."""
        hand = cls.idle.pop() if cls.idle else cls()
        hand._job = job
        hand.go(None)
        return hand

    @classmethod
    def call(cls, what: Any) -> Any:
        """Stand still before a call; gives what `go` was given. What is called by none of these threads goes on."""
        hand: Hand | None = getattr(cls._here, "hand", None)
        if hand is None:
            return None
        hand.at = what
        hand._stands.release()
        hand._go.acquire()
        if isinstance(hand._answer, BaseException):
            raise hand._answer
        return hand._answer

    def go(self, answer: Any) -> None:
        """Go on to the next call, or to the end. An exception is what the call then raises."""
        self.at, self._answer = None, answer
        self._go.release()
        self._stands.acquire()
        problem, self._problem = self._problem, None
        if self.at is None:
            self.idle.append(self)
        if problem is not None and not isinstance(problem, Abandoned):
            raise problem

    def _run(self) -> None:
        self._here.hand = self
        while True:
            self._go.acquire()
            try:
                assert self._job
                self._job()
            except BaseException as error:
                self._problem = error
            self.at = None
            self._stands.release()
