"""Threads that run one at a time, on a clock that they share: in turns, and the same each time."""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.memorystore import Call, Fate


def _shut() -> threading.Lock:
    """A gate that lets one through each time it is opened, by `release`."""
    gate = threading.Lock()
    gate.acquire()
    return gate


class Fiber:
    """A thread that runs only in its turn; its first one follows by itself."""

    def __init__(self, turns: Turns, function: Callable[[], Any]) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self.waits = self.ended = False
        self.thread: threading.Thread | None = None
        self.at_the_end: Callable[[], None] = lambda: None
        self._run_it = partial(contextvars.copy_context().run, self._run, function)
        self._go, self._back = _shut(), _shut()
        self._begun = False
        self._said: Any = None
        self._turns = turns
        turns.ready.append((self, None))

    def wait(self) -> Any:
        """From inside: give the turn back until somebody wakes this fiber; what they said."""
        self.waits = True
        self._back.release()
        self._go.acquire()
        if isinstance(self._said, BaseException):
            raise self._said
        return self._said

    def wake(self, said: Any = None) -> None:
        """If it waits it goes on, when its turn comes: with what is said, or that error."""
        if self.waits:
            self.waits = False
            self._turns.ready.append((self, said))

    def turn(self, said: Any) -> None:
        """From outside: let it run until it waits or ends."""
        self._said = said
        if self._begun:
            self._go.release()
        else:
            self._begun = True
            self._turns.threads.submit(self._run_it)
        self._back.acquire()

    def _run(self, function: Callable[[], Any]) -> None:
        self.thread = threading.current_thread()
        try:
            self.result = function()
        except BaseException as error:
            self.error = error
        self.ended = True
        self.at_the_end()
        self._back.release()


@dataclass(eq=False)
class Waiting:
    """A call of a store that has not been answered yet, and whose it is."""

    machine: Any
    call: Call
    fiber: Fiber

    def __str__(self) -> str:
        return f"{self.machine.name}: {self.call}"


class Turns:
    """Who can go on, who waits for a store, who for a time, and what time it is."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self.threads = threads
        self.now = 0.0
        self.ready: deque[tuple[Fiber, Any]] = deque()
        self.calls: list[Waiting] = []
        self.running: Fiber | None = None
        self._times: list[tuple[float, Fiber]] = []

    def settle(self) -> None:
        """Let everybody go on who can."""
        while self.ready:
            self.running, said = self.ready.popleft()
            self.running.turn(said)
        self.running = None

    def answer(self, waiting: Waiting, fate: Fate) -> None:
        """Let a store call be answered, and whoever asked go on."""
        self.calls.remove(waiting)
        waiting.fiber.wake(fate)
        self.settle()

    def wait(self, seconds: float | None = None) -> Any:
        """From inside a fiber: wait to be woken, at most so long."""
        fiber = self.running
        assert fiber is not None
        alarm = (self.now + (seconds or 0.0), fiber)
        if seconds is not None:
            self._times.append(alarm)
        try:
            return fiber.wait()
        finally:
            self._times = [each for each in self._times if each is not alarm]

    def pass_time(self) -> bool:
        """On to the next time that somebody waits for; False if nobody does."""
        if not self._times:
            return False
        when, fiber = min(self._times, key=lambda alarm: alarm[0])
        self.now = max(self.now, when)
        fiber.wake()
        self.settle()
        return True
