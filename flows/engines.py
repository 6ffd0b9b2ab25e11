"""The engines of one run of the command: opened when first needed, kept for all shards, closed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType

from schemas.errors import UsageError
from schemas.records import PageImage, Reading
from schemas.settings import IngestSettings, Recipe
from tasks.describe import Describer
from tasks.engines.arguments import engine_arguments, vllm_version
from tasks.engines.ask import Ask, Engine
from tasks.engines.choice import Asked, asked_by, engine_of
from tasks.engines.endpoint import Limits as EndpointLimits
from tasks.engines.meter import Meter, Metered
from tasks.engines.server import serving
from tasks.pool import WorkerPool
from tasks.recognize import CpuRecognizer, Limits, ModelRecognizer, Recognizer
from tasks.target import Rendering


class Engines:
    """Gives what reads page images by a recipe. An async context manager."""

    def __init__(self, settings: IngestSettings, pool: WorkerPool, meter: Meter | None) -> None:
        self._settings = settings
        self._pool = pool
        self._meter = meter
        self._opened: dict[str, Engine] = {}
        self._stack = AsyncExitStack()

    async def recognizer(self, recipe: Recipe) -> Recognizer:
        """What reads images by this recipe.

        Raises:
            UsageError: these settings do not say where the recipe's model runs, or it is another.
            EngineLost: no engine answers in time.
        """
        settings = self._settings
        asked = asked_by(recipe)
        if asked is None:
            return CpuRecognizer(self._pool, settings.read_timeout)
        limits = Limits(settings.attempts, settings.page_timeout, settings.read_timeout)
        engine = await self._engine(asked)
        return ModelRecognizer(engine, asked, self._rendering(asked), self._pool, limits)

    async def describer(self, recipe: Recipe) -> Describer | None:
        """What asks about whole documents, if the recipe does."""
        asked = asked_by(recipe)
        if asked is None or recipe.pages_per_prompt is None:
            return None
        return Describer(
            engine=await self._engine(asked),
            asked=asked,
            pages=recipe.pages_per_prompt,
            rendering=self._rendering(asked),
            pool=self._pool,
            page_timeout=self._settings.page_timeout,
        )

    def count(self) -> int:
        """How many engines work at once, for the number of pages to be kept under way."""
        engine = engine_of(self._settings)
        if engine == "rapidocr":
            return 0
        return len(self._settings.engine_url) or self._settings.data_parallel

    async def __aenter__(self) -> Engines:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    def _rendering(self, asked: Asked) -> Rendering:
        in_process = engine_of(self._settings) == "vllm"
        return Rendering(asked.target, "rgb" if in_process else "jpeg")

    async def _engine(self, asked: Asked) -> Engine:
        model = asked.profile.model
        if model not in self._opened:
            engine = await self._open(asked)
            self._opened[model] = Metered(engine, self._meter) if self._meter else engine
        return self._opened[model]

    async def _open(self, asked: Asked) -> Engine:
        settings = self._settings
        kind = engine_of(settings)
        if kind == "rapidocr":
            raise UsageError(
                f"an unfinished run of this lake reads with {asked.profile.model}: to finish it, "
                "say where that runs with --engine-url, or use --engine vllm"
            )
        if kind == "server":
            limits = EndpointLimits(
                in_flight=settings.max_in_flight or 256,
                connect=settings.connect_timeout,
                silence=settings.silence_timeout,
                total=settings.read_timeout,
            )
            return await self._stack.enter_async_context(
                serving(settings.engine_url, asked.profile, limits, settings.engine_wait)
            )
        vllm_version()  # says in one line if vLLM is not installed
        return _Lazy(lambda: self._start_vllm(asked), asked.profile.context)

    async def _start_vllm(self, asked: Asked) -> Engine:
        from tasks.engines.inprocess import VllmEngine

        arguments = engine_arguments(asked.profile, self._settings)
        engine = await VllmEngine.start(asked.profile, arguments, self._settings.read_timeout)
        self._stack.push_async_callback(engine.stop)
        return engine


class _Lazy:
    """An engine that is started by the first question; the others wait for it."""

    def __init__(self, start: Callable[[], Awaitable[Engine]], context: int) -> None:
        self.context: int | None = context
        self.slots = 1
        self._start = start
        self._starting = asyncio.Lock()
        self._engine: Engine | None = None

    async def ask(self, images: Sequence[PageImage], ask: Ask) -> Reading:
        """See `Engine.ask`."""
        async with self._starting:
            if self._engine is None:
                self._engine = await self._start()
                self.context, self.slots = self._engine.context, self._engine.slots
        return await self._engine.ask(images, ask)
