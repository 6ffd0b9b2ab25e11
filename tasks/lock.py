"""One writer a lake: `_runs/lock`."""

from __future__ import annotations

from types import TracebackType

from schemas.errors import LakeLocked, LockLost
from tasks.lease import Held, Lease, Lost
from tasks.store import Store

KEY = "_runs/lock"


class LakeLock:
    """The right to write to a lake, as a context manager; see `tasks.lease`.

    Args:
        store: the lake.
        run_id: written into the lock, for people.
        take_over_after: seconds of silence that mean death.
        wait: queue for the lock instead of raising `LakeLocked` once the holder shows life.
    """

    def __init__(self, store: Store, run_id: str, take_over_after: float, wait: bool) -> None:
        self._run_id = run_id
        self._wait = wait
        self._lease = Lease(store, KEY, {"run_id": run_id}, take_over_after)

    @property
    def token(self) -> str:
        """Tells this writer from all others, ever."""
        return self._lease.token

    def check(self) -> None:
        """Called before each commit.

        Raises:
            LockLost: another run has taken the lake over.
        """
        try:
            self._lease.check()
        except Lost:
            raise LockLost(
                f"run {self._run_id} was silent for so long that another run took the "
                "lake over; what it had committed stands, run it again to go on"
            ) from None

    def __enter__(self) -> LakeLock:
        try:
            self._lease.take(self._wait)
        except Held as held:
            holder = held.holder
            raise LakeLocked(
                f"run {holder['run_id']} on {holder['host']} (pid {holder['pid']}) has been "
                f"writing to this lake since {holder['since']}; let it end, or pass --wait"
            ) from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._lease.release()
