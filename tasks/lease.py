"""The right to something, as an object in the store: taken if absent, renewed while it is held,
taken over when its holder falls silent.

A holder on this host and boot whose process is gone is replaced at once; any other when its object
has not changed for `take_over_after` seconds of our own clock, so that clocks need not agree. Every
holder has an epoch one higher than the one it took over from.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from schemas.errors import LakeError
from tasks.store import AlreadyExists, Changed, Store

RENEWALS = 6
"""So often a lease is renewed in the time after which its silence would mean death."""

_POLL_SECONDS = 0.5


class Held(Exception):
    """Another holds the lease and shows life; `holder` is what it says of itself."""

    def __init__(self, holder: dict[str, Any]) -> None:
        super().__init__(holder)
        self.holder = holder


class Lost(Exception):
    """Another has taken the lease over."""


class Lease:
    """One holder's side of a lease.

    Args:
        store: the lake.
        key: where the lease stands.
        told: what others may want to know of the holder.
        take_over_after: seconds of silence that mean death.
        void: whether a holder may not act any more, however alive it is.
    """

    def __init__(
        self,
        store: Store,
        key: str,
        told: Mapping[str, Any],
        take_over_after: float,
        void: Callable[[Mapping[str, Any]], bool] = lambda holder: False,
    ) -> None:
        self._void = void
        self._store = store
        self._key = key
        self._take_over_after = take_over_after
        self._holder: dict[str, Any] = {
            **told,
            "token": uuid.uuid4().hex,
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
        self._renewer = threading.Thread(target=self._renew, name=f"lease {key}", daemon=True)
        self.predecessor: dict[str, Any] | None = None
        """What the holder said of itself from whom this one was taken over, if it was."""

    @property
    def token(self) -> str:
        """Tells this holder from all others, ever."""
        return str(self._holder["token"])

    @property
    def epoch(self) -> int:
        """One higher than that of the holder before, if it died."""
        return int(self._holder["epoch"])

    def take(self, wait: bool) -> None:
        """Hold the lease from now on.

        Args:
            wait: queue for it instead of raising `Held` once the holder shows life.

        Raises:
            Held: another holds it.
        """
        watched, since = "", 0.0
        while not self._create():
            try:
                data, tag = self._store.read(self._key)
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
            if (here and not alive) or silent >= patience or self._void(holder):
                if self._take_over(holder, tag):
                    break
                continue
            if alive and not wait:
                raise Held(holder)
            time.sleep(_POLL_SECONDS)
        self._renewer.start()

    def release(self) -> None:
        """Give the lease back; one that was taken over is another's now, and is left alone."""
        self._closing.set()
        self._renewer.join()
        with suppress(Changed):
            self._store.delete(self._key, self._tag)

    def note(self, **told: Any) -> None:
        """Say something more of the holder.

        Raises:
            Lost: the lease is another's now.
        """
        with self._guard:
            self._holder |= told
            try:
                self._tag = self._store.replace(self._key, self._body(), self._tag)
            except Changed:
                raise Lost from None

    def check(self) -> None:
        """Called before each commit.

        Raises:
            Lost: the lease is another's now.
        """
        with self._guard:
            try:
                lost = self._store.read(self._key)[1] != self._tag
            except FileNotFoundError:
                lost = True
        if lost:
            raise Lost

    def _create(self) -> bool:
        self._holder["epoch"] = 1  # a take-over may have been tried before
        try:
            self._tag = self._store.create(self._key, self._body())
        except AlreadyExists:
            return False
        return True

    def _take_over(self, holder: dict[str, Any], tag: str) -> bool:
        self._holder["epoch"] = holder["epoch"] + 1
        try:
            self._tag = self._store.replace(self._key, self._body(), tag)
        except Changed:
            return False
        self.predecessor = holder
        return True

    def _renew(self) -> None:
        while not self._closing.wait(self._take_over_after / RENEWALS):
            with self._guard:
                self._holder["renewals"] += 1
                try:
                    self._tag = self._store.replace(self._key, self._body(), self._tag)
                except Changed:
                    return  # check() will say so before the next commit
                except (OSError, LakeError):
                    continue  # a full disk or a store in trouble may recover before it is too late

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
