"""Several processes in one, in turns and by a clock of their own: same choices, same history.

The real code runs here, asyncio and threads included, but never two lines of it at once. Whatever
waits (for a store's answer, an event, a lock, a time) gives its turn back. When nobody can go on,
the test says which call of the store is answered next and how, or lets time pass. So hours pass in
milliseconds, and whatever happened can be made to happen again.

A `Machine` is one process; the one that is running is in `HERE`. What else the code asks for, of
clocks, hosts and threads, is in `surroundings`.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from tests.memorystore import Bucket, Call, Fate, Killed, MemoryStore
from tests.turns import Fiber, Turns, Waiting

BEGAN = datetime(2026, 3, 1, 23, 59, tzinfo=UTC)
HERE: contextvars.ContextVar[Machine] = contextvars.ContextVar("machine")


class Machine:
    """One process; `function` is what it does, from `start` on.

    Args:
        turns: shared by all.
        bucket: what its store stores.
        name: for people.
        host: machines of one host know of each other's death at once.
        skew: seconds that its clock is fast.
        others: all processes there ever were, which this one becomes one of.
    """

    def __init__(
        self,
        turns: Turns,
        bucket: Bucket,
        name: str,
        host: str,
        skew: float,
        others: list[Machine],
        function: Callable[[], Any],
    ) -> None:
        self.turns, self.name, self.host = turns, name, host
        self.store = MemoryStore(bucket, self._gate)
        self.dead = self.frozen = False
        self.others = others
        self.others.append(self)
        self.pid = len(others)
        self.loops: list[Loop] = []
        self.interrupt: Callable[[], object] | None = None
        self._skew = skew
        self._ticks = 0
        self._fibers: list[Fiber] = []

        def main() -> Any:
            HERE.set(self)
            return function()

        self.main = self.fiber(main)

    def fiber(self, function: Callable[[], Any]) -> Fiber:
        """Run this in a thread of the process."""
        made = Fiber(self.turns, function)
        self._fibers.append(made)
        return made

    @property
    def ended(self) -> bool:
        """Whether nothing of it runs any more."""
        return all(fiber.ended for fiber in self._fibers)

    def kill(self) -> None:
        """End it where it stands: it asks the store for nothing any more."""
        self.dead, self.frozen = True, False
        self.turns.calls = [each for each in self.turns.calls if each.machine is not self]
        for _ in range(100):
            for fiber in self._fibers:
                if all(loop.waits_in is not fiber for loop in self.loops):
                    fiber.wake(Killed())
            for loop in self.loops:
                loop.cancel_all()
            self.turns.settle()
            if self.ended:
                return
        raise AssertionError(f"{self.name} cannot be ended")

    def now(self) -> datetime:
        """What its clock shows, which is never the same twice."""
        self._ticks += 1
        seconds = self.turns.now + self._skew
        return BEGAN + timedelta(seconds=seconds, microseconds=self._ticks)

    def _gate(self, call: Call) -> Fate:
        fiber = self.turns.running
        # Else the code uses threads for which there is no stand-in in `surroundings`.
        assert fiber is not None and fiber.thread is threading.current_thread()
        if self.dead:
            raise Killed
        self.turns.calls.append(Waiting(self, call, fiber))
        fate = self.turns.wait()
        assert isinstance(fate, Fate)
        return fate


class Loop(asyncio.BaseEventLoop):
    """An event loop that waits for its turn where another would wait in `select`."""

    def __init__(self) -> None:
        super().__init__()
        self._machine = HERE.get()
        self._machine.loops.append(self)
        self._selector = self
        self.waits_in: Fiber | None = None
        """The fiber in which it waits for something to do."""

    def time(self) -> float:
        return self._machine.turns.now

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None or timeout > 0:
            self.waits_in = self._machine.turns.running
            try:
                self._machine.turns.wait(timeout)
            finally:
                self.waits_in = None
        return []

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:
        future = self.create_future()
        fiber = self._machine.fiber(partial(func, *args))

        def tell() -> None:
            if not future.done():
                if fiber.error is not None:
                    future.set_exception(fiber.error)
                else:
                    future.set_result(fiber.result)

        fiber.at_the_end = lambda: None if self.is_closed() else self._soon(tell)
        return future

    def cancel_all(self) -> None:
        if not self.is_closed():
            for task in asyncio.all_tasks(self):
                self._soon(task.cancel)

    def _soon(self, callback: Callable[[], Any]) -> None:
        self.call_soon_threadsafe(callback)

    def _write_to_self(self) -> None:
        if self.waits_in is not None:
            self.waits_in.wake()

    def _process_events(self, events: list[Any]) -> None:
        pass
