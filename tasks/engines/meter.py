"""How busy an engine was kept: what was asked of it, and how long it had all it could take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from schemas.records import PageImage, Reading
from tasks.engines.ask import Ask, Engine


@dataclass(slots=True)
class Meter:
    """Counts over the time from the first question to the last answer, in seconds."""

    requests: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    full_seconds: float = 0.0
    began: float | None = None
    ended: float = 0.0
    under_way: int = 0

    @property
    def seconds(self) -> float:
        """From the first question to the last answer."""
        return self.ended - self.began if self.began is not None else 0.0

    def change(self, by: int, slots: int) -> None:
        """So many questions more are under way; `slots` is what the engine takes at once."""
        now = time.monotonic()
        if self.began is None:
            self.began = self.ended = now
        if self.under_way >= slots:
            self.full_seconds += now - self.ended
        self.ended = now
        self.under_way += by


class Metered:
    """An engine with a meter on it."""

    def __init__(self, engine: Engine, meter: Meter) -> None:
        self._engine = engine
        self._meter = meter

    @property
    def context(self) -> int | None:
        """See `Engine`."""
        return self._engine.context

    @property
    def slots(self) -> int:
        """See `Engine`."""
        return self._engine.slots

    async def ask(self, images: Sequence[PageImage], ask: Ask) -> Reading:
        """See `Engine.ask`."""
        meter = self._meter
        meter.change(+1, self.slots)
        try:
            reading = await self._engine.ask(images, ask)
        finally:
            meter.change(-1, self.slots)
        meter.requests += 1
        meter.prompt_tokens += reading.prompt_tokens or 0
        meter.output_tokens += reading.output_tokens or 0
        return reading
