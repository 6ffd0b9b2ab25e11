"""One server of a model: what it serves, whether it is alive, how much it takes, what it answers.

An endpoint is looked at every few seconds. One that does not answer is *set aside*: what it was
asked is called off at once, since a vLLM that is going down keeps its clients waiting for minutes.
It is *taken back* when it answers again and still serves the model.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from schemas.errors import DocumentError, ErrorCode, WrongModel
from schemas.records import PageImage, Reading
from tasks.engines.ask import Ask
from tasks.engines.dialects import VLLM, chat_body
from tasks.engines.profiles import Profile
from tasks.loops import LoopWatch

log = logging.getLogger("pagelake")

ENGINE = "server"

_LOOK_SECONDS = 1.0
_HEALTH_SECONDS = 10.0
_SILENT_LOOKS = 3  # looks without an answer after which an endpoint is set aside
_FIRST_IN_FLIGHT = 64
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_WAITING = re.compile(rb"^vllm:num_requests_waiting(?:\{[^}]*\})? ([0-9.e+]+)", re.M)
_RUNNING = re.compile(rb"^vllm:num_requests_running(?:\{[^}]*\})? ([0-9.e+]+)", re.M)


class Died(Exception):
    """The endpoint died while it was being asked."""


class Unreachable(Exception):
    """The endpoint did not answer at all: it has not seen the question."""


class Refused(Exception):
    """The endpoint answered with an error; `passing` where asking again may help."""

    def __init__(self, message: str, passing: bool) -> None:
        super().__init__(message)
        self.passing = passing


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one endpoint: requests in flight, and seconds to connect, without a byte, and in all."""

    in_flight: int
    connect: float
    silence: float
    total: float


class Endpoint:
    """A server at `url`, with or without `/v1` at its end."""

    def __init__(
        self, url: str, session: aiohttp.ClientSession, profile: Profile, limits: Limits
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/v1").rstrip("/")
        self.alive = False
        self.reserved = False
        self.in_flight = 0
        self.most_in_flight = min(_FIRST_IN_FLIGHT, limits.in_flight)
        self.context: int | None = None
        self._session = session
        self._profile = profile
        self._limits = limits
        self._server = self._served_as = self._complaint = ""
        self._asking: set[asyncio.Timeout] = set()

    async def examine(self) -> None:
        """Find out what is served; the endpoint is alive from then on.

        Raises:
            Unreachable: nothing answers, or not yet.
            WrongModel: it does not serve the profile's model, or wants a key.
        """
        status, told = await self._get("/v1/models")
        if status in (401, 403):
            raise WrongModel(f"{self.url} asks for an API key: set PAGELAKE_API_KEY")
        try:
            models = json.loads(told)["data"] if status == 200 else None
        except (ValueError, KeyError, TypeError):
            models = None
        if not isinstance(models, list):
            raise Unreachable(f"{self.url}/v1/models answers {status}: {_start_of(told)}")
        names = {self._profile.model, self._profile.repository}
        for model in models:
            if names & {model.get("id"), model.get("root")}:
                self._served_as, self._server = model["id"], str(model.get("owned_by"))
                self.context = model.get("max_model_len")
                self.alive = True
                return
        served = ", ".join(str(model.get("id")) for model in models) or "nothing"
        raise WrongModel(
            f"{self.url} serves {served}, not {self._profile.model}: serve it under that name "
            f"(`pagelake serve --model {self._profile.model}`) or choose another --model"
        )

    async def watch_over(self, changed: asyncio.Condition) -> None:
        """Look at the endpoint for ever; tell `changed` when it was set aside or taken back."""
        silent = 0
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            before = (self.alive, self.most_in_flight)
            if self.alive:
                silent = 0 if await self._is_healthy() else silent + 1
                if silent >= _SILENT_LOOKS:
                    self.set_aside("does not answer")
                elif not silent:
                    await self._adapt()
            else:
                await self._try_to_take_back()
                silent = 0
            if before != (self.alive, self.most_in_flight):
                async with changed:
                    changed.notify_all()

    def set_aside(self, why: str) -> None:
        """Ask this endpoint no more, and call off what it is being asked."""
        if not self.alive:
            return
        log.warning("engine %s %s: set aside", self.url, why)
        self.alive = False
        now = asyncio.get_running_loop().time()
        while self._asking:
            self._asking.pop().reschedule(now)

    async def answer(self, images: Sequence[PageImage], ask: Ask) -> Reading:
        """Ask, and follow the answer until it ends or is seen to loop.

        Raises:
            Died: the endpoint died of it or during it.
            Unreachable: it was gone before it could be asked.
            Refused: it answered with an error.
            DocumentError: `engine_timeout`; the endpoint lives and has not finished in time.
        """
        began = time.perf_counter()
        body = chat_body(self._server, self._served_as, images, ask)
        try:
            async with asyncio.timeout(self._limits.total) as asking:
                self._asking.add(asking)
                try:
                    raw, finish_reason, usage = await self._exchange(body)
                finally:
                    self._asking.discard(asking)
        except aiohttp.ClientConnectorError as error:
            self.set_aside("cannot be reached")
            raise Unreachable(str(error)) from None
        except (TimeoutError, aiohttp.ClientError, ConnectionError) as error:
            if not self.alive or not await self._is_healthy():
                self.set_aside("died")
                raise Died(self.url) from None
            if isinstance(error, TimeoutError):
                raise DocumentError(
                    ErrorCode.ENGINE_TIMEOUT,
                    f"{self.url} did not finish within {self._limits.total:g} s "
                    f"(or was silent for {self._limits.silence:g} s)",
                ) from None
            raise Refused(f"{type(error).__name__}: {error}", passing=True) from None
        return Reading(
            raw=raw,
            finish_reason=finish_reason,
            engine=ENGINE,
            model=self._profile.model,
            engine_ms=(time.perf_counter() - began) * 1000,
            prompt_tokens=usage.get("prompt_tokens"),
            output_tokens=usage.get("completion_tokens"),
        )

    async def _exchange(self, body: bytes) -> tuple[str, str, dict[str, Any]]:
        """Raw answer, finish reason (`repetition` if it was stopped for a loop) and usage."""
        async with self._session.post(
            self.url + "/v1/chat/completions",
            data=body,
            headers={"Content-Type": "application/json"},
            timeout=aiohttp.ClientTimeout(
                sock_connect=self._limits.connect, sock_read=self._limits.silence
            ),
        ) as response:
            if response.status != 200:
                said = _start_of(await response.read())
                passing = response.status in _PASSING
                raise Refused(f"{self.url} answers {response.status}: {said}", passing)
            return await _followed(response)

    async def _is_healthy(self) -> bool:
        try:
            status, _ = await self._get("/health")
        except Unreachable:
            return False
        return status in (200, 404)  # not every server has the page; one that answers lives

    async def _adapt(self) -> None:
        """Keep what waits in vLLM's own queue at an eighth of what it runs at once."""
        most = self.most_in_flight
        if self._server != VLLM:
            self.most_in_flight = self._limits.in_flight
            return
        try:
            told = (await self._get("/metrics"))[1]
        except Unreachable:
            return
        running = sum(float(number) for number in _RUNNING.findall(told))
        waiting = sum(float(number) for number in _WAITING.findall(told))
        if waiting > running / 8:
            most = int(running + running / 8)
        elif not waiting and self.in_flight >= most:
            most = 2 * most
        self.most_in_flight = min(max(most, 2), self._limits.in_flight)

    async def _try_to_take_back(self) -> None:
        try:
            await self.examine()
        except Unreachable:
            return
        except WrongModel as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                log.warning("%s", error)
            return
        log.info("engine %s answers again: taken back", self.url)

    async def _get(self, path: str) -> tuple[int, bytes]:
        timeout = aiohttp.ClientTimeout(total=_HEALTH_SECONDS, sock_connect=self._limits.connect)
        try:
            async with self._session.get(self.url + path, timeout=timeout) as response:
                return response.status, await response.read()
        except (TimeoutError, aiohttp.ClientError, ConnectionError) as error:
            raise Unreachable(f"{self.url}: {error or type(error).__name__}") from None


async def _followed(response: aiohttp.ClientResponse) -> tuple[str, str, dict[str, Any]]:
    """The pieces of a streamed answer put together; a loop ends it early."""
    watch = LoopWatch()
    pieces: list[str] = []
    finish_reason, usage = "", dict[str, Any]()
    async for event in _events(response):
        if "error" in event:
            raise Refused(f"the engine broke off: {_start_of(json.dumps(event).encode())}", True)
        usage = event.get("usage") or usage
        for choice in event.get("choices") or ():
            piece = (choice.get("delta") or {}).get("content") or ""
            pieces.append(piece)
            if choice.get("finish_reason"):
                repeats = choice.get("stop_reason") == "repetition_detected"
                finish_reason = "repetition" if repeats else str(choice["finish_reason"])
            if piece and watch.feed(piece):
                return "".join(pieces), "repetition", usage
    if not finish_reason:
        raise aiohttp.ClientPayloadError("the answer ended without a finish reason")
    return "".join(pieces), finish_reason, usage


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects of a stream of server-sent events."""
    rest = b""
    async for chunk in response.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            told = line.strip().removeprefix(b"data:").strip()
            if told.startswith(b"{"):
                yield json.loads(told)


def _start_of(told: bytes) -> str:
    return " ".join(told[:300].decode("utf-8", "replace").split())
