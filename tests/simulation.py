"""Several processes in one, in turns and by a clock of their own: same choices, same history.

The real code runs here, asyncio and threads included, but never two lines of it at once. Whatever
waits (for a store's answer, an event, a lock, a time) gives its turn back. When nobody can go on,
the test says which call of the store is answered next and how, or lets time pass. So hours pass in
milliseconds, and whatever happened can be made to happen again.

A `Machine` is one process; the one that is running is in `HERE`. The clocks, host names and process
ids that the code asks for are that machine's own.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import duckdb
import pytest

from tests.memorystore import Bucket, Call, Fate, Killed, MemoryStore

BEGAN = datetime(2026, 3, 1, 23, 59, tzinfo=UTC)
HERE: contextvars.ContextVar[Machine] = contextvars.ContextVar("machine")


def _shut() -> threading.Lock:
    """A gate that lets one through each time it is opened, by `release`."""
    gate = threading.Lock()
    gate.acquire()
    return gate


class Fiber:
    """A thread that runs only in its turn; its first one follows by itself."""

    def __init__(self, machine: Machine, function: Callable[[], Any]) -> None:
        self.machine = machine
        self.result: Any = None
        self.error: BaseException | None = None
        self.waits = self.ended = False
        self.at_the_end: Callable[[], None] = lambda: None
        self._run_it = partial(contextvars.copy_context().run, self._run, function)
        self._go, self._back = _shut(), _shut()
        self._begun = False
        self._said: Any = None
        machine.turns.ready.append((self, None))

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
            self.machine.turns.ready.append((self, said))

    def turn(self, said: Any) -> None:
        """From outside: let it run until it waits or ends."""
        self._said = said
        if self._begun:
            self._go.release()
        else:
            self._begun = True
            self.machine.turns.threads.submit(self._run_it)
        self._back.acquire()

    def _run(self, function: Callable[[], Any]) -> None:
        try:
            self.result = function()
        except BaseException as error:
            self.error = error
        self.ended = True
        self.at_the_end()
        self._back.release()


@dataclass(eq=False)
class Waiting:
    """A call of a store that has not been answered yet."""

    machine: Machine
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
        self.loops: list[_Loop] = []
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
        made = Fiber(self, function)
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
        assert fiber is not None and fiber.machine is self
        if self.dead:
            raise Killed
        self.turns.calls.append(Waiting(self, call, fiber))
        fate = self.turns.wait()
        assert isinstance(fate, Fate)
        return fate


class _Loop(asyncio.BaseEventLoop):
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


class _Event:
    def __init__(self) -> None:
        self._set = False
        self._waiting: list[Fiber] = []

    def set(self) -> None:
        self._set = True
        for fiber in self._waiting:
            fiber.wake()

    def wait(self, timeout: float | None = None) -> bool:
        turns = HERE.get().turns
        if not self._set and turns.running is not None:
            self._waiting.append(turns.running)
            try:
                turns.wait(timeout)
            finally:
                self._waiting.remove(turns.running)
        return self._set


class _Lock:
    def __init__(self) -> None:
        self._held = False
        self._waiting: deque[Fiber] = deque()

    def __enter__(self) -> None:
        turns = HERE.get().turns
        while self._held:
            assert turns.running is not None
            self._waiting.append(turns.running)
            turns.wait()
        self._held = True

    def __exit__(self, *_: object) -> None:
        self._held = False
        if self._waiting:
            self._waiting.popleft().wake()


class _Thread:
    def __init__(self, target: Callable[[], Any], name: str, daemon: bool) -> None:
        self._target = target
        self._ended = _Event()

    def start(self) -> None:
        HERE.get().fiber(self._target).at_the_end = self._ended.set

    def join(self) -> None:
        self._ended.wait()


class _InTurn:
    """What takes the place of a thread pool: one after the other, in the caller's turn."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> _InTurn:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, function: Callable[..., Any], *arguments: Any) -> Iterator[Any]:
        return map(function, *arguments)


class _Database:
    """One DuckDB for all, each with a schema of its own: to start one takes longer
    than all that is asked of it."""

    def __init__(self, shared: duckdb.DuckDBPyConnection, schema: str) -> None:
        self._shared, self._schema = shared, schema
        self._own = shared.cursor()
        self._own.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}; SET schema = '{schema}'")

    def cursor(self) -> _Database:
        return _Database(self._shared, self._schema)

    def close(self) -> None:
        self._own.execute(f"DROP SCHEMA {self._schema} CASCADE")
        self._own.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)


class _Clock(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return HERE.get().now()


def _run(main: Any) -> Any:
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(main)


def _pid_started(pid: int) -> str | None:
    """As `tasks.lease` has it; a machine that was killed is gone, one that ended is gone too."""
    machine = HERE.get().others[pid - 1]
    return None if machine.dead or machine.main.ended else "0"


def in_simulation(patch: pytest.MonkeyPatch) -> None:
    """Let the code that asks for threads, times, hosts and processes ask the machine it runs on."""
    patch.setattr("asyncio.run", _run)
    clock = SimpleNamespace(
        monotonic=lambda: HERE.get().turns.now, sleep=lambda seconds: HERE.get().turns.wait(seconds)
    )
    for name in ("tasks.lease", "tasks.shardreader"):
        patch.setattr(f"{name}.time", clock)
    for name in ("tasks.runs", "tasks.collect", "tasks.lease", "flows.ingest", "flows.upkeep"):
        patch.setattr(f"{name}.datetime", _Clock)
    for name in ("shardlog", "lakefiles", "orphans", "compaction", "compact"):
        patch.setattr(f"tasks.{name}.ThreadPoolExecutor", _InTurn)
    shared, numbers = duckdb.connect(), itertools.count()
    hexadecimal = SimpleNamespace(token_hex=lambda size: f"{next(numbers):0{2 * size}x}")
    for name in ("runs", "rewrite"):
        patch.setattr(f"tasks.{name}.secrets", hexadecimal)
    databases = SimpleNamespace(
        connect=lambda *_: _Database(shared, f"s{next(numbers)}"), Error=duckdb.Error
    )
    for name in ("known", "address"):
        patch.setattr(f"tasks.{name}.duckdb", databases)
    folder = SimpleNamespace(name="", cleanup=lambda: None)
    folders = SimpleNamespace(TemporaryDirectory=lambda **_: folder)
    patch.setattr("tasks.known.tempfile", folders)
    threads = SimpleNamespace(Event=_Event, Lock=_Lock, Thread=_Thread)
    patch.setattr("tasks.lease.threading", threads)
    patch.setattr("tasks.lease.socket", SimpleNamespace(gethostname=lambda: HERE.get().host))
    patch.setattr("tasks.lease.os", SimpleNamespace(getpid=lambda: HERE.get().pid))
    patch.setattr("tasks.lease._boot_id", lambda: "boot")
    patch.setattr("tasks.lease._pid_started", _pid_started)
