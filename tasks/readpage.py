"""The way of one page: split, then its text layer or an engine, then parsed, then a row.

split ─ PageImage ─▶ read ─ Reading ─▶ parse ─ ParsedPage ─▶ PageResult
      └ TextLayer ─────────────────▶ parse ─┘
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from schemas.errors import DocumentError, ErrorCode
from schemas.records import PageImage, PageRef, PageResult, ParsedPage, TextLayer
from tasks import worker
from tasks.pool import WorkerPool

TEXT_LAYER_ENGINE = "pymupdf"

_IN_THE_ENGINE = {
    ErrorCode.RENDER_TIMEOUT: ErrorCode.ENGINE_TIMEOUT,
    ErrorCode.RENDER_CRASH: ErrorCode.ENGINE_ERROR,
}
"""What a worker's end is called when it was reading a page and not rendering it."""


@dataclass(frozen=True, slots=True)
class PageReader:
    """Reads pages in the worker processes of a pool.

    Attributes:
        pool: where the work is done.
        text_layer: `auto` or `ignore`.
        with_layout: blocks, tables and figures, or text alone.
        page_timeout: seconds for opening and rendering.
        read_timeout: seconds for the engine, and again for the layout.
    """

    pool: WorkerPool
    text_layer: str
    with_layout: bool
    page_timeout: float
    read_timeout: float

    async def read(self, ref: PageRef) -> PageResult:
        """A page as a row, whatever happens to it."""
        blank = PageResult(ref.document_id, ref.document.uri, ref.page_number, "failed")
        try:
            found, flags = await self.pool.run(
                self.page_timeout, worker.split_page, ref, self.text_layer == "auto"
            )
            known = replace(
                blank,
                width_pt=found.width_pt,
                height_pt=found.height_pt,
                render_ms=found.render_ms,
                flags=flags,
            )
        except DocumentError as error:
            return _failed(blank, error)
        try:
            if isinstance(found, TextLayer):
                return await self._by_text_layer(ref, known)
            return await self._by_engine(ref, known, found)
        except DocumentError as error:
            code = _IN_THE_ENGINE.get(error.code, error.code)
            return _failed(known, DocumentError(code, error.message))

    async def _by_text_layer(self, ref: PageRef, known: PageResult) -> PageResult:
        parsed = await self.pool.run(
            self.read_timeout, worker.parse_text_layer, ref, self.with_layout
        )
        known = replace(known, origin="text_layer", engine=TEXT_LAYER_ENGINE)
        return _finished(known, parsed)

    async def _by_engine(self, ref: PageRef, known: PageResult, image: PageImage) -> PageResult:
        reading = await self.pool.run(self.read_timeout, worker.read_image, image)
        known = replace(
            known,
            origin="ocr",
            rotation=reading.turn,
            raw_output=reading.raw,
            engine=reading.engine,
            model=reading.model,
            finish_reason=reading.finish_reason,
            prompt_tokens=reading.prompt_tokens,
            output_tokens=reading.output_tokens,
            engine_ms=reading.engine_ms,
            flags=known.flags + reading.flags,
            image_width=image.width,
            image_height=image.height,
        )
        parsed = await self.pool.run(
            self.read_timeout, worker.parse_image, reading, image, ref, self.with_layout
        )
        return _finished(known, parsed)


def _finished(known: PageResult, parsed: ParsedPage) -> PageResult:
    return replace(
        known,
        status="ok" if parsed.text.strip() or parsed.figures else "empty",
        markdown=parsed.markdown,
        text=parsed.text,
        parser_version=parsed.parser_version,
        flags=known.flags + parsed.flags,
        blocks=parsed.blocks,
        figures=parsed.figures,
    )


def _failed(known: PageResult, error: DocumentError) -> PageResult:
    return replace(known, status="failed", error_code=error.code, error_message=error.message)
