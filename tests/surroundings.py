"""What stands in simulated processes for threads, clocks, hosts, process ids and databases."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import socket
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import duckdb
import pytest

from tests.simulation import HERE, Loop
from tests.turns import Fiber


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
    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(main)


def _pid_started(pid: int) -> str | None:
    """As `tasks.lease` has it; a machine that was killed is gone, one that ended is gone too."""
    machine = HERE.get().others[pid - 1]
    return None if machine.dead or machine.main.ended else "0"


def in_simulation(patch: pytest.MonkeyPatch) -> None:
    """Let the code that asks for threads, times, hosts and the like ask the machine it runs on.

    Every module of ours that has been loaded gets the stand-ins of what it imports.
    """
    shared, numbers = duckdb.connect(), itertools.count()
    connect: Callable[..., Any] = lambda *_: _Database(shared, f"s{next(numbers)}")  # noqa: E731
    folder = SimpleNamespace(name="", cleanup=lambda: None)
    stand_ins: list[tuple[object, object]] = [
        (ThreadPoolExecutor, _InTurn),
        (datetime, _Clock),
        (duckdb, SimpleNamespace(connect=connect, Error=duckdb.Error)),
        (secrets, SimpleNamespace(token_hex=lambda size: f"{next(numbers):0{2 * size}x}")),
        (tempfile, SimpleNamespace(TemporaryDirectory=lambda **_: folder)),
        (threading, SimpleNamespace(Event=_Event, Lock=_Lock, Thread=_Thread)),
        (socket, SimpleNamespace(gethostname=lambda: HERE.get().host)),
    ]
    ours = [module for name, module in sys.modules.items() if name.startswith(("tasks.", "flows."))]
    for module in ours:
        for name, value in list(vars(module).items()):
            for real, stand_in in stand_ins:
                if value is real:
                    patch.setattr(module, name, stand_in)
    patch.setattr("asyncio.run", _run)
    clock = SimpleNamespace(
        monotonic=lambda: HERE.get().turns.now, sleep=lambda seconds: HERE.get().turns.wait(seconds)
    )
    for name in ("lease", "shardreader"):
        patch.setattr(f"tasks.{name}.time", clock)
    patch.setattr("tasks.lease.os", SimpleNamespace(getpid=lambda: HERE.get().pid))
    patch.setattr("tasks.lease._boot_id", lambda: "boot")
    patch.setattr("tasks.lease._pid_started", _pid_started)
