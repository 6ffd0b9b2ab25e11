"""One worker a shard: `_runs/<run_id>/claims/<shard>`.

A claim decides who works, never what is done: that is the log's. So a worker that was believed dead
and is not can do no harm; the claim is there to save work, and to find the document that kills.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from schemas.errors import ClaimHeld, ClaimLost
from schemas.records import Place
from tasks.lease import Held, Lease, Lost
from tasks.store import Store

_DEATHS_BEFORE_CARE = 2
_DEATHS_ALONE = 2


class Claim:
    """The right to work on a shard, as an async context manager; see `tasks.lease`.

    Each worker that died before adds to the deaths: after two the shard is read one document at a
    time, each noted in the claim first. A document over which two such workers die, one after the
    other, is given up: one alone may have been killed by somebody, whatever it was reading.

    Args:
        store: the lake.
        run_id: the run that the shard is of.
        name: of the shard in this run.
        writer: the token of the lake's lock under which this worker writes. A claim made under
            another is void: whoever made it may not commit any more.
        take_over_after: seconds of silence that mean death.
    """

    def __init__(
        self, store: Store, run_id: str, name: str, writer: str, take_over_after: float
    ) -> None:
        self._name = name
        key = f"_runs/{run_id}/claims/{name}"
        self._lease = Lease(store, key, {"writer": writer}, take_over_after, _of_another(writer))

    @property
    def taken_over(self) -> bool:
        """Whether a worker died here before."""
        return self._lease.epoch > 1

    @property
    def careful(self) -> bool:
        """Whether documents are to be read one at a time, each noted before."""
        return self._lease.epoch > _DEATHS_BEFORE_CARE

    def fatal(self) -> Place | None:
        """The document that killed the last two workers, if they were careful."""
        before = self._lease.predecessor
        if before is None or before.get("tries", 0) < _DEATHS_ALONE:
            return None
        index, member = before["place"]
        return (index, member)

    def note(self, place: Place) -> None:
        """Say which document is read next.

        Raises:
            ClaimLost: another worker has taken the shard over.
        """
        before = self._lease.predecessor or {}
        again = before.get("place") == list(place)
        try:
            self._lease.note(place=place, tries=before["tries"] + 1 if again else 1)
        except Lost:
            raise self._gone() from None

    def check(self) -> None:
        """Called before each commit.

        Raises:
            ClaimLost: another worker has taken the shard over.
        """
        try:
            self._lease.check()
        except Lost:
            raise self._gone() from None

    def _gone(self) -> ClaimLost:
        return ClaimLost(
            f"another worker has taken over shard {self._name}, for this one was silent for too "
            "long; what it had committed stands"
        )

    async def __aenter__(self) -> Claim:
        try:
            await asyncio.to_thread(self._lease.take, False)
        except Held as held:
            holder = held.holder
            raise ClaimHeld(
                f"shard {self._name} is being read on {holder['host']} (pid {holder['pid']}) "
                f"since {holder['since']}"
            ) from None
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self._lease.release)


def _of_another(writer: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda holder: bool(holder["writer"] != writer)
