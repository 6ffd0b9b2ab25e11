"""An HTTP proxy in front of an S3 endpoint that plays a bad network, store or moment to die.

Requests go through as they were sent, bodies streamed, paths and queries untouched, until a test
says which of them to refuse, hold up, cut or lose.
"""

from __future__ import annotations

import asyncio
import fcntl
import random
import re
import socket
import struct
import termios
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

OF_ONE_CONNECTION = {b"connection", b"keep-alive", b"te", b"transfer-encoding", b"upgrade"}

Body = AsyncIterator[bytes] | bytes | None


@dataclass(frozen=True)
class Request:
    """A request as the proxy saw it: bucket, key and query decoded, headers in any case.

    `deleted` are the keys in the body of a DeleteObjects, which has no key of its own.
    """

    method: str
    bucket: str
    key: str
    query: dict[str, str]
    headers: Mapping[str, str]
    deleted: tuple[str, ...] = ()


Match = Callable[[Request], bool]


def puts(pattern: str = "") -> Match:
    """What makes an object: PutObject, CopyObject, CompleteMultipartUpload, not UploadPart.

    Here and below, of keys that this regular expression is found in, wherever it is.
    """
    makes = {("PUT", False), ("POST", True)}
    return lambda r: _found(pattern, r.key) and (r.method, "uploadId" in r.query) in makes


def parts(pattern: str = "") -> Match:
    """UploadPart."""
    return lambda r: _found(pattern, r.key) and r.method == "PUT" and "partNumber" in r.query


def gets(pattern: str = "") -> Match:
    """GetObject."""
    return lambda r: _found(pattern, r.key) and r.method == "GET"


def heads(pattern: str = "") -> Match:
    """HeadObject."""
    return lambda r: _found(pattern, r.key) and r.method == "HEAD"


def deletes(pattern: str = "") -> Match:
    """DeleteObject, and DeleteObjects with such a key among others."""
    return lambda r: (
        (_found(pattern, r.key) and r.method == "DELETE" and "uploadId" not in r.query)
        or any(_found(pattern, key) for key in r.deleted)
    )


def lists(pattern: str = "") -> Match:
    """ListObjectsV2, each page of it; the pattern is looked for in the prefix."""
    return lambda r: "list-type" in r.query and bool(re.search(pattern, r.query.get("prefix", "")))


def _found(pattern: str, key: str) -> bool:
    return key != "" and re.search(pattern, key) is not None


@dataclass(frozen=True)
class Refuse:
    """Answer with an error of S3's, and forward nothing."""

    status: int
    code: str
    message: str = "Refused by the proxy."


@dataclass(frozen=True)
class Reset:
    """Reset the connection (RST), and forward nothing."""


@dataclass(frozen=True)
class LostAnswer:
    """Let the store do it, then reset the connection instead of answering."""


@dataclass(frozen=True)
class CutBody:
    """Reset the connection after so much of the answer's body; one no longer arrives whole."""

    after_bytes: int


@dataclass(frozen=True)
class Slow:
    """Send the answer's body in chunks, with a pause before each."""

    seconds_a_chunk: float
    chunk: int = 1024


@dataclass(frozen=True)
class Delay:
    """Wait before the request is forwarded."""

    seconds: float


@dataclass(frozen=True)
class Without:
    """Drop a header of the request, to play a store that does not know it."""

    header: str


@dataclass(frozen=True)
class Call:
    """Call a function in a thread, and go on when it has returned.

    Either before the request is forwarded or after the store has done it, before the answer.
    """

    function: Callable[[Request], object]
    before: bool


Ending = Refuse | Reset | LostAnswer | CutBody | Slow
Fault = Ending | Delay | Without | Call


@dataclass
class _Rule:
    match: Match
    fault: Fault
    times: float


@dataclass
class _Chaos:
    """Draws for each request by what it is and how often it came, whatever came in between.

    That leaves a run with a seed the same when its requests overlap in another order.
    """

    seed: int
    share: float
    kinds: Sequence[Fault]
    seen: Counter[str] = field(default_factory=Counter)

    def draw(self, request: Request) -> list[Fault]:
        telling = (request.query.get(name) for name in ("partNumber", "prefix"))
        what = repr((request.method, request.key, request.deleted, *telling))
        self.seen[what] += 1
        dice = random.Random(f"{self.seed} {self.seen[what]} {what}")
        return [dice.choice(self.kinds)] if dice.random() < self.share else []


class Proxy:
    """The proxy, and what it is told to do. Its methods may be called from any thread.

    A request meets every Delay, Without and Call that matches it, but only one of the faults that
    say how it ends (the rest): the one told first. Those after it wait for a later request.
    """

    def __init__(self, target: str) -> None:
        self.endpoint = ""
        self.failures: list[Exception] = []
        self._target = target.rstrip("/")
        self._lock = threading.RLock()  # a match may ask for `requests`
        self._seen: list[Request] = []
        self._rules: list[_Rule] = []
        self._chaos: _Chaos | None = None

    @property
    def requests(self) -> list[Request]:
        """All requests so far, in order of their arrival."""
        with self._lock:
            return list(self._seen)

    def on(self, match: Match, fault: Fault, times: int | None = 1) -> None:
        """Do this to the next requests that match, so many times; None is for ever."""
        with self._lock:
            self._rules.append(_Rule(match, fault, float("inf") if times is None else times))

    def chaos(self, seed: int, share: float, kinds: Sequence[Fault]) -> None:
        """Do one of these to about this share of all requests, until `clear`."""
        with self._lock:
            self._chaos = _Chaos(seed, share, tuple(kinds))

    def clear(self) -> None:
        """Pass everything on from now on. Requests under way keep their faults."""
        with self._lock:
            self._rules.clear()
            self._chaos = None

    def _faults(self, request: Request) -> list[Fault]:
        with self._lock:
            self._seen.append(request)
            chosen: list[Fault] = []
            for rule in self._rules:
                taken = isinstance(rule.fault, Ending) and _ending(chosen) is not None
                if rule.times > 0 and not taken and rule.match(request):
                    rule.times -= 1
                    chosen.append(rule.fault)
            # Last, so that it leaves alone what a test asked for by name.
            return chosen + (self._chaos.draw(request) if self._chaos else [])

    async def _up(self) -> None:
        # A connection for each request: one that the store had closed meanwhile would look to the
        # client like a fault that no test asked for.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        )
        self._server = web.Server(self._handle, access_log=None, auto_decompress=False)
        self._runner = web.ServerRunner(self._server, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.endpoint = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _down(self) -> None:
        for connection in self._server.connections:
            if connection.transport is not None:
                connection.transport.abort()
        await self._runner.cleanup()
        # aiohttp forgets the handlers of aborted connections: what still waits goes with the proxy.
        waiting = asyncio.all_tasks() - {asyncio.current_task()}
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await self._session.close()
        await asyncio.get_running_loop().shutdown_default_executor()

    async def _handle(self, incoming: web.BaseRequest) -> web.StreamResponse:
        try:
            request, body = await _read(incoming)
            return await self._answer(incoming, request, body, self._faults(request))
        except Exception as error:
            if not _gone(incoming):
                self.failures.append(error)
            return _reset(incoming)

    async def _answer(
        self, incoming: web.BaseRequest, request: Request, body: Body, faults: list[Fault]
    ) -> web.StreamResponse:
        ending = _ending(faults)
        dropped = OF_ONE_CONNECTION | {b"expect"}
        for fault in faults:
            if isinstance(fault, Delay):
                await asyncio.sleep(fault.seconds)
            elif isinstance(fault, Without):
                dropped.add(fault.header.lower().encode())
            elif isinstance(fault, Call) and fault.before:
                await asyncio.to_thread(fault.function, request)
        if isinstance(ending, Reset):
            return _reset(incoming)
        if isinstance(ending, Refuse):
            return await _refuse(ending, body)
        async with self._session.request(
            incoming.method,
            URL(self._target + incoming.raw_path, encoded=True),
            headers=_headers(incoming.raw_headers, dropped),
            data=body,
            allow_redirects=False,
        ) as answer:
            for fault in faults:
                if isinstance(fault, Call) and not fault.before:
                    await asyncio.to_thread(fault.function, request)
            if isinstance(ending, LostAnswer):
                return _reset(incoming)
            outgoing = web.StreamResponse(
                status=answer.status,
                reason=answer.reason,
                headers=_headers(answer.raw_headers, OF_ONE_CONNECTION),
            )
            await outgoing.prepare(incoming)
            await _send(answer, incoming, outgoing, ending)
            return outgoing


def _ending(faults: list[Fault]) -> Ending | None:
    return next((fault for fault in faults if isinstance(fault, Ending)), None)


async def _read(incoming: web.BaseRequest) -> tuple[Request, Body]:
    """A request and its body, which is still to be read unless its keys are in there."""
    path, _, query = incoming.raw_path.partition("?")
    bucket, _, key = map(unquote, path[1:].partition("/"))
    asked = dict(parse_qsl(query, keep_blank_values=True))
    body: Body = _body(incoming) if incoming.body_exists else None
    deleted: tuple[str, ...] = ()
    if incoming.method == "POST" and "delete" in asked:
        body = b"".join([piece async for piece in _body(incoming)])
        found = ElementTree.fromstring(body).iterfind("{*}Object/{*}Key")
        deleted = tuple(each.text or "" for each in found)
    return Request(incoming.method, bucket, key, asked, incoming.headers, deleted), body


async def _body(incoming: web.BaseRequest) -> AsyncIterator[bytes]:
    if incoming.headers.get("Expect", "").lower() == "100-continue":
        await incoming.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        incoming.writer.output_size = 0
    async for piece in incoming.content.iter_any():
        yield piece


async def _refuse(fault: Refuse, body: Body) -> web.Response:
    # Read to the end: what is left over would be taken for the next request of this connection.
    if isinstance(body, AsyncIterator):
        async for _ in body:
            pass
    return web.Response(
        status=fault.status,
        content_type="application/xml",
        text='<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{escape(fault.code)}</Code><Message>{escape(fault.message)}</Message>"
        "<RequestId>proxy</RequestId></Error>",
    )


async def _send(
    answer: aiohttp.ClientResponse,
    incoming: web.BaseRequest,
    outgoing: web.StreamResponse,
    ending: Ending | None,
) -> None:
    sent = 0
    size = ending.chunk if isinstance(ending, Slow) else 2**16
    async for piece in answer.content.iter_chunked(size):
        if isinstance(ending, Slow):
            await asyncio.sleep(ending.seconds_a_chunk)
        if isinstance(ending, CutBody) and sent + len(piece) > ending.after_bytes:
            await outgoing.write(piece[: ending.after_bytes - sent])
            await _arrived(incoming)
            _reset(incoming)
            return
        await outgoing.write(piece)
        sent += len(piece)


async def _arrived(incoming: web.BaseRequest) -> None:
    """Wait until the other side has all that was written: a reset throws away what is queued."""
    with suppress(TimeoutError):
        async with asyncio.timeout(5):
            while (transport := incoming.transport) is not None and not _gone(incoming):
                queued = fcntl.ioctl(_socket(incoming).fileno(), termios.TIOCOUTQ, bytes(4))
                if not transport.get_write_buffer_size() and not any(queued):
                    return
                await asyncio.sleep(0.001)


def _reset(incoming: web.BaseRequest) -> web.Response:
    """Close the connection with RST. What is returned is for aiohttp, and goes nowhere."""
    if incoming.transport is not None and not _gone(incoming):
        at_once = struct.pack("ii", 1, 0)
        _socket(incoming).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        incoming.transport.abort()
    return web.Response()


def _gone(incoming: web.BaseRequest) -> bool:
    return incoming.transport is None or incoming.transport.is_closing()


def _socket(incoming: web.BaseRequest) -> Any:
    assert incoming.transport is not None
    return incoming.transport.get_extra_info("socket")


def _headers(sent: Sequence[tuple[bytes, bytes]], dropped: set[bytes]) -> CIMultiDict[str]:
    """Headers in the case they were sent in, which aiohttp's own mapping forgets."""
    return CIMultiDict(
        (n.decode(), v.decode("utf-8", "surrogateescape"))
        for n, v in sent
        if n.lower() not in dropped
    )


@contextmanager
def proxying(endpoint: str) -> Iterator[Proxy]:
    """A proxy on a free port of 127.0.0.1, in a thread of its own; raises what went wrong in it."""
    proxy = Proxy(endpoint)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(proxy._up(), loop).result(10)
        try:
            yield proxy
        finally:
            asyncio.run_coroutine_threadsafe(proxy._down(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
    if proxy.failures:
        raise proxy.failures[0]
