"""Page images to raw answers: by the CPU engine, or by a model whose answers are judged first.

image ─▶ ask ─ Reading ─▶ check ─ accepted ─▶ Recognized
          ▲                 └ rejected ─▶ the ladder's next rung ┐
          └──────────────────────────────────────────────────────┘
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from schemas.errors import DocumentError
from schemas.records import PageImage, PageRef, Reading
from tasks import worker
from tasks.check import Complaint, complaint, least_bad
from tasks.engines.ask import Engine
from tasks.engines.choice import Asked
from tasks.engines.profiles import Parser
from tasks.ladder import Rung, first_try, ladder
from tasks.pool import WorkerPool
from tasks.target import CpuTarget, Rendering

_COPIES = ("markdown", "ocr", "free")
"""Prompts whose answer holds the words of the page and no others."""


@dataclass(frozen=True, slots=True)
class Recognized:
    """The best answer there was about a page, of `attempts`, and the image it is about.

    `parser` takes a model's answer apart; None for the lines of the CPU engine. `rejected` says
    what was wrong with the answers before it; `complaint` what is wrong with this.
    """

    reading: Reading
    image: PageImage
    parser: Parser | None
    attempts: int = 1
    rejected: tuple[Complaint, ...] = ()
    complaint: Complaint | None = None


class Recognizer(Protocol):
    """One way to read page images."""

    rendering: Rendering
    """How the images must be rendered."""

    async def recognize(self, ref: PageRef, image: PageImage) -> Recognized:
        """The best answer about a page.

        Raises:
            DocumentError: the engine failed on it.
            EngineLost: there is no engine any more.
        """


class CpuRecognizer:
    """The CPU engine in the processes of a pool."""

    def __init__(self, pool: WorkerPool, read_timeout: float) -> None:
        self.rendering = Rendering(CpuTarget())
        self._pool = pool
        self._timeout = read_timeout

    async def recognize(self, ref: PageRef, image: PageImage) -> Recognized:
        """See `Recognizer`."""
        reading = await self._pool.run(self._timeout, worker.read_image, image)
        return Recognized(reading, image, None)


class ModelRecognizer:
    """A model on an engine, its answers judged and asked for again."""

    def __init__(
        self, engine: Engine, asked: Asked, rendering: Rendering, pool: WorkerPool, limits: Limits
    ) -> None:
        self.rendering = rendering
        self._engine = engine
        self._asked = asked
        self._pool = pool
        self._limits = limits

    async def recognize(self, ref: PageRef, image: PageImage) -> Recognized:
        """See `Recognizer`. Tokens and time are those of all attempts together: what was paid."""
        profile = self._asked.profile
        if image.ink == 0:
            return self._blank(image)
        first = first_try(self._asked, profile.most_output(self._engine.context, 1))
        tried = [await self._try(first, image)]
        if tried[0].complaint is not None:
            for rung in ladder(self._asked, tried[0].complaint, first):
                if len(tried) >= self._limits.attempts:
                    break
                try:
                    suited = await self._image(rung, ref, image)
                    if suited is None:
                        continue
                    turn, picture = suited
                    tried.append(await self._try(rung, picture, turn))
                except DocumentError:
                    continue  # the answers there are must not be lost over one that failed
                if tried[-1].complaint is None:
                    break
        return _best(tried)

    def _blank(self, image: PageImage) -> Recognized:
        """A page with nothing on it: not worth asking about, and it tempts models to invent."""
        reading = Reading("", "stop", "ink", self._asked.profile.model, 0.0, flags=("blank",))
        return Recognized(reading, image, self._asked.profile.parser, attempts=0)

    async def _try(self, rung: Rung, image: PageImage, turn: int = 0) -> Recognized:
        reading = await self._engine.ask([image], rung.ask)
        flags = (f"by_{rung.name}",) if rung.name else ()
        # An answer that does not copy the page may well be longer than what is on it.
        ink = image.ink if self._asked.prompt in _COPIES else 1.0
        wrong = complaint(reading.raw, reading.finish_reason, ink, (image.width, image.height))
        reading = replace(reading, turn=turn, flags=flags)
        return Recognized(reading, image, self._asked.profile.parser, complaint=wrong)

    async def _image(
        self, rung: Rung, ref: PageRef, image: PageImage
    ) -> tuple[int, PageImage] | None:
        """The turn and the image that a rung asks about; None if the page lies upright already."""
        if rung.upright:
            return await self._pool.run(self._limits.read_timeout, worker.turn_upright, image)
        if rung.mode == self._asked.mode:
            return 0, image
        other = replace(self.rendering, target=self._asked.profile.targets[rung.mode])
        return 0, await self._pool.run(self._limits.page_timeout, worker.render_again, ref, other)


@dataclass(frozen=True, slots=True)
class Limits:
    """Answers a page, and seconds to render one and to find out which way up it is."""

    attempts: int
    page_timeout: float
    read_timeout: float


def _best(tried: list[Recognized]) -> Recognized:
    """The last answer if it is good, else the least bad one, with the cost of all of them."""
    chosen = len(tried) - 1
    if tried[chosen].complaint is not None:
        wrong = [(each.reading.raw, each.complaint) for each in tried if each.complaint]
        chosen = least_bad(wrong)
    readings = [each.reading for each in tried]
    best = tried[chosen]
    return replace(
        best,
        reading=replace(
            best.reading,
            engine_ms=sum(reading.engine_ms for reading in readings),
            prompt_tokens=sum(reading.prompt_tokens or 0 for reading in readings),
            output_tokens=sum(reading.output_tokens or 0 for reading in readings),
        ),
        attempts=len(tried),
        rejected=tuple(
            each.complaint
            for number, each in enumerate(tried)
            if each.complaint is not None and number != chosen
        ),
    )
