"""Engine `server`: a model behind one or several OpenAI-compatible endpoints.

Each page goes to the endpoint that has least to do for its size. A question is asked again only
where that can help: an overloaded or failing server after a pause, a dead one's questions by the
others. If all endpoints are dead for `wait` seconds, the engine is lost and the run ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiohttp

from schemas.errors import DocumentError, EngineLost, ErrorCode
from schemas.records import PageImage, Reading
from tasks.engines.ask import Ask
from tasks.engines.endpoint import Died, Endpoint, Limits, Refused, Unreachable
from tasks.engines.profiles import Profile

log = logging.getLogger("pagelake")

API_KEY = "PAGELAKE_API_KEY"

_MOST_TRIES = 5
_DEATHS_TO_RUN_ALONE = 2
_MOST_DEATHS = 3
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 20.0
_SECONDS_BETWEEN_LINES = 10.0


class ServerEngine:
    """The endpoints of one model. Use `serving` to open one."""

    def __init__(self, endpoints: Sequence[Endpoint], wait: float) -> None:
        self._endpoints = endpoints
        self._wait = wait
        self._changed = asyncio.Condition()
        self._give_up_at: float | None = None

    @property
    def context(self) -> int | None:
        """The smallest of the endpoints' contexts, in tokens."""
        stated = [each.context for each in self._endpoints if each.context]
        return min(stated, default=None)

    @property
    def slots(self) -> int:
        """What the living endpoints take at once."""
        return sum(each.most_in_flight for each in self._endpoints if each.alive)

    async def ready(self) -> None:
        """Wait until an endpoint answers; those that do must serve the model.

        Raises:
            WrongModel: one serves another model.
            EngineLost: none has answered in time.
        """
        began = told = time.monotonic()
        while True:
            looks = (each.examine() for each in self._endpoints)
            found = await asyncio.gather(*looks, return_exceptions=True)
            unreachable = [error for error in found if isinstance(error, Unreachable)]
            for error in found:
                if error is not None and not isinstance(error, Unreachable):
                    raise error
            if len(unreachable) < len(found):
                for error in unreachable:
                    log.warning("an engine does not answer yet, going on without it: %s", error)
                return
            waited = time.monotonic() - began
            if waited >= self._wait:
                raise EngineLost(
                    f"no engine has answered within {self._wait:g} s ({unreachable[0]}): "
                    "start it, check --engine-url, or wait longer with --engine-wait"
                )
            if waited < 1 or time.monotonic() - told >= _SECONDS_BETWEEN_LINES:
                told = time.monotonic()
                log.info("waiting for the engine, %.0f s so far: %s", waited, unreachable[0])
            await asyncio.sleep(1)

    async def ask(self, images: Sequence[PageImage], ask: Ask) -> Reading:
        """See `Engine.ask`."""
        deaths = tries = 0
        while True:
            async with self._slot(alone=deaths >= _DEATHS_TO_RUN_ALONE) as endpoint:
                try:
                    return await endpoint.answer(images, ask)
                except Unreachable:
                    continue  # it never saw the question
                except Died:
                    deaths += 1
                    if deaths >= _MOST_DEATHS:
                        raise DocumentError(
                            ErrorCode.ENGINE_ERROR,
                            f"the engine died {deaths} times of this page, the last time with "
                            "nothing else to do",
                        ) from None
                    continue
                except Refused as refused:
                    tries += 1
                    if not refused.passing or tries >= _MOST_TRIES:
                        raise DocumentError(ErrorCode.ENGINE_ERROR, str(refused)) from None
            await asyncio.sleep(_pause(tries))

    async def watch_over(self) -> None:
        """Look after the endpoints for ever."""
        async with asyncio.TaskGroup() as group:
            for endpoint in self._endpoints:
                group.create_task(endpoint.watch_over(self._changed))

    @asynccontextmanager
    async def _slot(self, alone: bool) -> AsyncIterator[Endpoint]:
        endpoint = await (self._take_alone() if alone else self._take())
        try:
            yield endpoint
        finally:
            endpoint.in_flight -= 1
            # One that waits to be alone may have been woken in vain, in the place of another.
            wake_all = any(each.reserved for each in self._endpoints)
            endpoint.reserved = endpoint.reserved and not alone
            async with self._changed:
                self._changed.notify_all() if wake_all else self._changed.notify()

    async def _take(self) -> Endpoint:
        async with self._changed:
            while True:
                free = [
                    each
                    for each in self._endpoints
                    if each.alive and not each.reserved and each.in_flight < each.most_in_flight
                ]
                if free:
                    least = min(free, key=lambda each: each.in_flight / each.most_in_flight)
                    least.in_flight += 1
                    return least
                await self._until_changed()

    async def _take_alone(self) -> Endpoint:
        """An endpoint with nothing else to do; one is kept free until it is so."""
        async with self._changed:
            while True:
                free = [each for each in self._endpoints if each.alive and not each.reserved]
                if free:
                    chosen = min(free, key=lambda each: each.in_flight)
                    if await self._emptied(chosen):
                        chosen.in_flight += 1
                        return chosen
                else:
                    await self._until_changed()

    async def _emptied(self, endpoint: Endpoint) -> bool:
        """Keep new questions from an endpoint until it has none; whether it lived to see that."""
        endpoint.reserved = True
        try:
            while endpoint.alive and endpoint.in_flight:
                await self._until_changed()
        except BaseException:
            endpoint.reserved = False
            raise
        endpoint.reserved = endpoint.alive
        return endpoint.alive

    async def _until_changed(self) -> None:
        if any(each.alive for each in self._endpoints):
            self._give_up_at = None
            await self._changed.wait()
            return
        now = time.monotonic()
        self._give_up_at = self._give_up_at or now + self._wait
        try:
            await asyncio.wait_for(self._changed.wait(), self._give_up_at - now)
        except TimeoutError:
            raise EngineLost(
                f"no engine has answered for {self._wait:g} s: what was read is in the lake, the "
                "same command goes on from there once an engine answers"
            ) from None


@asynccontextmanager
async def serving(
    urls: Sequence[str], profile: Profile, limits: Limits, wait: float
) -> AsyncIterator[ServerEngine]:
    """An engine of these endpoints that is ready, looked after until the end.

    The environment's `PAGELAKE_API_KEY` is sent as a bearer token, if it is set.

    Raises:
        WrongModel, EngineLost: see `ServerEngine.ready`.
    """
    key = os.environ.get(API_KEY)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        endpoints = [Endpoint(url, session, profile, limits) for url in urls]
        engine = ServerEngine(endpoints, wait)
        await engine.ready()
        watching = asyncio.create_task(engine.watch_over())
        try:
            yield engine
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


def _pause(tries: int) -> float:
    """Seconds before asking again: doubling, and spread so that not all come back at once."""
    pause: float = _FIRST_PAUSE * 2 ** (tries - 1)
    return min(pause, _LONGEST_PAUSE) * random.uniform(0.5, 1.5)
