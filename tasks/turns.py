"""Shards side by side, but a careful one alone: what this process dies of is then in that shard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """Who may read, of the shards that this process has claimed."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._reading = self._queued = 0
        self._alone = False

    @asynccontextmanager
    async def take(self, alone: bool) -> AsyncIterator[None]:
        """Wait for a turn, and have it: with others, or `alone`. Who is to be alone goes first."""
        async with self._changed:
            self._queued += alone
            try:
                await self._changed.wait_for(lambda: self._may_begin(alone))
            finally:
                self._queued -= alone
                self._changed.notify_all()
            self._reading, self._alone = self._reading + 1, alone
        try:
            yield
        finally:
            async with self._changed:
                self._reading, self._alone = self._reading - 1, False
                self._changed.notify_all()

    def _may_begin(self, alone: bool) -> bool:
        return self._reading == 0 if alone else not (self._alone or self._queued)
