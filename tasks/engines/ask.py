"""What an engine is asked and what every engine that runs a model can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from schemas.records import PageImage, Reading
from tasks.engines.ngram import NGramArguments


@dataclass(frozen=True, slots=True)
class Ask:
    """One question about page images: all that decides the answer but the images and the model.

    `question` holds no marks for images; `max_tokens` bounds the answer.
    """

    question: str
    max_tokens: int
    temperature: float = 0.0
    ngram: NGramArguments | None = None


class Engine(Protocol):
    """Something that runs a model."""

    @property
    def context(self) -> int | None:
        """Tokens of prompt and answer together, once the engine has said so."""

    @property
    def slots(self) -> int:
        """How many questions it takes at once, as far as is known by now."""

    async def ask(self, images: Sequence[PageImage], ask: Ask) -> Reading:
        """The model's answer about some images.

        Raises:
            DocumentError: `engine_error` or `engine_timeout`; the question was at fault, or the
                engine died of it three times.
            EngineLost: there is no engine to ask any more.
        """


SEED = 0
"""Of answers above temperature 0, so that the same page gives the same answer."""

REPETITION = {"max_pattern_size": 16, "min_pattern_size": 1, "min_count": 100}
"""vLLM's `repetition_detection`: it ends an answer of a hundred equal pieces of up to 16 tokens.

A hundred, because leaders of dots and empty cells repeat for good reason; sixteen, because every
token is held against every size. Longer and marching loops are for `tasks.loops.LoopWatch`.
"""
