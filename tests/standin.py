"""A stand-in for a server of a model: speaks its protocol, answers by the shade of the page.

A page filled with grey level N is answered with "page of shade N"; what else happens is for the
test to say. `python -m tests.standin --slots 64 --seconds 0.5` runs one alone, for measuring.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pymupdf
from aiohttp import web
from PIL import Image

MODEL = "deepseek-ocr"


@dataclass(frozen=True)
class Said:
    """What is said to one question: an answer, or an error with another status."""

    text: str = ""
    finish_reason: str = "stop"
    status: int = 200
    stop_reason: str | None = None
    seconds: float = 0.0
    breaks_off: bool = False


@dataclass
class Question:
    """One question as it came over the wire."""

    body: dict[str, Any]
    headers: dict[str, str]

    @property
    def pictures(self) -> list[Image.Image]:
        urls = [
            part["image_url"]["url"]
            for part in self.body["messages"][0]["content"]
            if part["type"] == "image_url"
        ]
        return [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in urls]

    @property
    def words(self) -> str:
        return next(p["text"] for p in self.body["messages"][0]["content"] if p["type"] == "text")

    @property
    def shade(self) -> int:
        """The grey level of the page's middle, where tests fill pages with one."""
        picture = self.pictures[0].convert("L")
        return int(picture.getpixel((picture.width // 2, picture.height // 2)))


def grounded(words: str) -> str:
    return (
        "<|ref|>title<|/ref|><|det|>[[100, 50, 900, 100]]<|/det|>\n# Shade\n\n"
        f"<|ref|>text<|/ref|><|det|>[[100, 150, 900, 250]]<|/det|>\n{words}\n"
    )


def by_shade(question: Question) -> Said:
    return Said(grounded(f"page of shade {question.shade}"))


@dataclass
class StandIn:
    """The server. `answer` may be changed at any time; `asked` holds every question."""

    answer: Callable[[Question], Said] = by_shade
    models: tuple[str, ...] = (MODEL,)
    owned_by: str = "vllm"
    key: str | None = None
    slots: int = 1_000
    most_waiting: int = 0
    asked: list[Question] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    port: int = 0
    _loop: asyncio.AbstractEventLoop | None = None
    _runner: web.AppRunner | None = None
    _free: asyncio.Semaphore | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def up(self) -> None:
        """Listen, on the same port as before if there was one."""
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(self._up(), self._loop).result(10)

    def down(self) -> None:
        """Be gone, with every connection, as a process that was killed."""
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(self._down(), self._loop).result(10)

    async def _up(self) -> None:
        app = web.Application(client_max_size=64 * 2**20)
        app.add_routes(
            [
                web.get("/v1/models", self._models),
                web.get("/health", self._health),
                web.get("/metrics", self._metrics),
                web.post("/v1/chat/completions", self._chat),
            ]
        )
        self._free = asyncio.Semaphore(self.slots)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _down(self) -> None:
        if self._runner is not None:
            for connection in list(self._runner.server.connections if self._runner.server else ()):
                if connection.transport is not None:
                    connection.transport.abort()
            await self._runner.cleanup()
            self._runner = None
            await asyncio.sleep(0.1)  # aborted connections are closed by the loop

    async def _models(self, request: web.Request) -> web.Response:
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            return web.json_response({"error": "no key"}, status=401)
        served = [
            {"id": name, "object": "model", "owned_by": self.owned_by, "max_model_len": 8192}
            for name in self.models
        ]
        return web.json_response({"object": "list", "data": served})

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response()

    async def _metrics(self, request: web.Request) -> web.Response:
        running = min(self.running, self.slots)
        self.most_waiting = max(self.most_waiting, self.running - running)
        return web.Response(
            text=f'vllm:num_requests_running{{engine="0"}} {running}.0\n'
            f'vllm:num_requests_waiting{{engine="0"}} {self.running - running}.0\n'
        )

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        question = Question(await request.json(), dict(request.headers))
        self.asked.append(question)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            assert self._free is not None
            async with self._free:
                said = await asyncio.to_thread(self.answer, question)
                await asyncio.sleep(said.seconds)
                if said.status != 200:
                    return web.json_response({"error": {"message": said.text}}, status=said.status)
                return await self._stream(request, said)
        finally:
            self.running -= 1

    async def _stream(self, request: web.Request, said: Said) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        usage = {"prompt_tokens": 900, "completion_tokens": len(said.text.split())}
        async for event in _events(said, usage):
            await response.write(f"data: {json.dumps(event)}\n\n".encode())
        if said.breaks_off:
            assert request.transport is not None
            request.transport.abort()
            return response
        await response.write(b"data: [DONE]\n\n")
        return response


async def _events(said: Said, usage: dict[str, int]) -> AsyncIterator[dict[str, Any]]:
    size = 400
    for start in range(0, len(said.text), size):
        piece = said.text[start : start + size]
        yield {"choices": [{"index": 0, "delta": {"content": piece}}], "usage": usage}
        await asyncio.sleep(0)
    if not said.breaks_off:
        end = {"finish_reason": said.finish_reason, "stop_reason": said.stop_reason}
        yield {"choices": [{"index": 0, "delta": {}, **end}], "usage": usage}


@contextmanager
def standing_in(stand_in: StandIn) -> Iterator[StandIn]:
    """The stand-in listening in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    stand_in._loop = loop
    stand_in.up()
    try:
        yield stand_in
    finally:
        stand_in.down()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def write_shades(path: Path, shades: list[int], size: tuple[int, int] = (300, 400)) -> Path:
    """A PDF of pages filled with these greys (0 to 255), each with a line of words on it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = pymupdf.open()
    for shade in shades:
        page = document.new_page(width=size[0], height=size[1])
        fill(page, shade, [f"These words lie on shade {shade}."])
    document.save(path)
    return path


def fill(page: pymupdf.Page, shade: int, lines: list[str]) -> None:
    """Paint a page in one grey, with lines of words that can be seen on it."""
    page.draw_rect(page.rect, color=None, fill=(shade / 255,) * 3)
    ink = (0, 0, 0) if shade > 127 else (1, 1, 1)
    for number, line in enumerate(lines):
        page.insert_text((30, 40 + 24 * number), line, color=ink)


def main() -> None:
    """Run one alone until it is killed; prints its address."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--answer", type=Path, help="a file whose text is every answer")
    given = parser.parse_args()
    text = given.answer.read_text() if given.answer else grounded("A page like any other.")
    said = Said(text, seconds=given.seconds)
    stand_in = StandIn(answer=lambda _: said, slots=given.slots)
    with standing_in(stand_in):
        print(stand_in.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
