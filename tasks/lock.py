"""One writer a lake: `_runs/lock`, renewed while it is held and taken over when it falls silent."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from schemas.errors import LakeLocked, LockLost
from tasks.store import AlreadyExists, Changed, LocalStore

KEY = "_runs/lock"
RENEWALS = 6
"""So often a lock is renewed in the time after which its silence would mean death."""


class LakeLock:
    """The right to write to a lake, as a context manager.

    A holder on this host and boot whose process is gone is replaced at once; any other holder
    when its lock has not changed for `take_over_after` seconds of our own clock, so that clocks
    need not agree. Every holder has an epoch one higher than the one it took over from.

    Args:
        store: the lake.
        run_id: written into the lock, for people.
        take_over_after: seconds of silence that mean death.
        wait: queue for the lock instead of raising `LakeLocked` once the holder shows life.
    """

    def __init__(self, store: LocalStore, run_id: str, take_over_after: float, wait: bool) -> None:
        self._store = store
        self._take_over_after = take_over_after
        self._wait = wait
        self._holder: dict[str, Any] = {
            "run_id": run_id,
            "host": socket.gethostname(),
            "boot": _boot_id(),
            "pid": os.getpid(),
            "pid_started": _pid_started(os.getpid()),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "take_over_after": take_over_after,
            "epoch": 1,
            "renewals": 0,
        }
        self._tag = ""
        self._guard = threading.Lock()
        self._closing = threading.Event()
        self._renewer = threading.Thread(target=self._renew, name="lake-lock", daemon=True)

    def __enter__(self) -> LakeLock:
        watched, since = "", 0.0
        while not self._create():
            try:
                data, tag = self._store.read(KEY)
            except FileNotFoundError:
                continue
            holder = json.loads(data)
            here = all(holder[name] == self._holder[name] for name in ("host", "boot"))
            here = here and self._holder["boot"] is not None
            alive = here and _pid_started(holder["pid"]) == holder["pid_started"]
            if tag != watched:
                alive = alive or watched != ""
                watched, since = tag, time.monotonic()
            silent = time.monotonic() - since
            patience = max(self._take_over_after, holder.get("take_over_after", 0.0))
            if (here and not alive) or silent >= patience:
                if self._take_over(holder, tag):
                    break
                continue
            if alive and not self._wait:
                raise LakeLocked(
                    f"run {holder['run_id']} on {holder['host']} (pid {holder['pid']}) has been "
                    f"writing to this lake since {holder['since']}; let it end, or pass --wait"
                )
            time.sleep(0.5)
        self._renewer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._renewer.join()
        with suppress(Changed):  # taken over: it is another's now
            self._store.delete(KEY, self._tag)

    def check(self) -> None:
        """Called before each commit.

        Raises:
            LockLost: another run has taken the lake over.
        """
        with self._guard:
            try:
                lost = self._store.read(KEY)[1] != self._tag
            except FileNotFoundError:
                lost = True
        if lost:
            raise LockLost(
                f"run {self._holder['run_id']} was silent for so long that another run took the "
                "lake over; what it had committed stands, run it again to go on"
            )

    def _create(self) -> bool:
        try:
            self._tag = self._store.create(KEY, self._body())
        except AlreadyExists:
            return False
        return True

    def _take_over(self, holder: dict[str, Any], tag: str) -> bool:
        self._holder["epoch"] = holder["epoch"] + 1
        try:
            self._tag = self._store.replace(KEY, self._body(), tag)
        except Changed:
            return False
        return True

    def _renew(self) -> None:
        while not self._closing.wait(self._take_over_after / RENEWALS):
            with self._guard:
                self._holder["renewals"] += 1
                try:
                    self._tag = self._store.replace(KEY, self._body(), self._tag)
                except Changed:
                    return  # check() will say so before the next commit
                except OSError:
                    continue  # a full disk may have room again before the lock counts as silent

    def _body(self) -> bytes:
        return json.dumps(self._holder).encode()


def _boot_id() -> str | None:
    """What tells this boot of this machine from others; None where pids cannot be compared."""
    source = Path("/proc/sys/kernel/random/boot_id")
    return source.read_text().strip() if source.exists() else None


def _pid_started(pid: int) -> str | None:
    """When a process began, in the kernel's ticks; None if there is none. Guards against reuse."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        state, *rest = stat.read_text().rpartition(")")[2].split()
        return None if state in "ZX" else rest[18]  # a zombie writes no more
    except (FileNotFoundError, ProcessLookupError):
        return None
