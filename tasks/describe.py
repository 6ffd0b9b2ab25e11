"""What a document is about: a model asked about several of its pages in one question."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.errors import DocumentError
from schemas.records import DocumentFacts, LocalDocument, PageImage, PageRef
from tasks import worker
from tasks.engines.ask import Ask, Engine
from tasks.engines.choice import Asked
from tasks.pool import WorkerPool
from tasks.target import Rendering

KEY = "description"
"""Where the answer stands in the document's metadata."""


@dataclass(frozen=True, slots=True)
class Describer:
    """Asks `asked` about every `pages` pages of a document in turn."""

    engine: Engine
    asked: Asked
    pages: int
    rendering: Rendering
    pool: WorkerPool
    page_timeout: float

    async def describe(self, document: LocalDocument, facts: DocumentFacts) -> str:
        """The answers, each headed by the pages that it is about if there are several.

        Pages that cannot be drawn are left out; what the engine refuses is said in its place.

        Raises:
            EngineLost: there is no engine any more.
        """
        answers = []
        for first in range(1, facts.page_count + 1, self.pages):
            numbers = range(first, min(first + self.pages, facts.page_count + 1))
            refs = [PageRef("", document, facts.media_type or "", number) for number in numbers]
            images = [image for ref in refs if (image := await self._image(ref)) is not None]
            head = f"Pages {numbers[0]} to {numbers[-1]}:\n"
            answers.append((head, await self._answer(images)))
        if len(answers) == 1:
            return answers[0][1]
        return "\n\n".join(head + answer for head, answer in answers)

    async def _answer(self, images: list[PageImage]) -> str:
        if not images:
            return ""
        profile = self.asked.profile
        ask = Ask(
            profile.question(self.asked.prompt),
            profile.most_output(self.engine.context, len(images)),
            ngram=profile.ngram,
        )
        try:
            return (await self.engine.ask(images, ask)).raw.strip()
        except DocumentError as error:
            return f"({error})"

    async def _image(self, ref: PageRef) -> PageImage | None:
        try:
            return await self.pool.run(self.page_timeout, worker.render_again, ref, self.rendering)
        except DocumentError:
            return None  # its own row says why
