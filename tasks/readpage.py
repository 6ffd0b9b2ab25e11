"""The way of one page: split, then its text layer or an engine, then parsed, then a row.

split ─ PageImage ─▶ recognize ─ Recognized ─▶ parse ─ ParsedPage ─▶ PageResult
      └ TextLayer ──────────────────────────▶ parse ─┘
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from schemas.errors import DocumentError, ErrorCode
from schemas.records import PageImage, PageRef, PageResult, ParsedPage, TextLayer
from tasks import worker
from tasks.check import Complaint
from tasks.media import PICTURES
from tasks.pool import WorkerPool
from tasks.recognize import CpuRecognizer, Recognized, Recognizer

TEXT_LAYER_ENGINE = "pymupdf"

_IN_THE_ENGINE = {
    ErrorCode.RENDER_TIMEOUT: ErrorCode.ENGINE_TIMEOUT,
    ErrorCode.RENDER_CRASH: ErrorCode.ENGINE_ERROR,
}
"""What a worker's end is called when it was reading a page and not rendering it."""

_FAILURES = {
    Complaint.LOOP: (ErrorCode.LOOP, "the model repeats itself on this page"),
    Complaint.TRUNCATED: (ErrorCode.TRUNCATED, "the answer was cut off at its longest"),
    Complaint.EMPTY_OUTPUT: (
        ErrorCode.EMPTY_OUTPUT,
        "the page has content, the answer none",
    ),
}
"""Complaints that fail a page. The others are flags: the text may be right where the boxes are not,
and what is said of a blank page is not on it."""


@dataclass(frozen=True, slots=True)
class PageReader:
    """Reads pages; documents are parsed and rendered in the worker processes of a pool.

    Attributes:
        pool: where the work is done.
        recognizer: what reads images.
        text_layer: `auto` or `ignore`.
        with_layout: blocks, tables and figures, or text alone.
        fallback: what reads a page of which no answer was good: `none`, `text_layer`, `rapidocr`.
        page_timeout: seconds for opening and rendering.
        read_timeout: seconds for the CPU engine, and again for the layout.
    """

    pool: WorkerPool
    recognizer: Recognizer
    text_layer: str
    with_layout: bool
    fallback: str
    page_timeout: float
    read_timeout: float

    async def read(self, ref: PageRef) -> PageResult:
        """A page as a row, whatever happens to it.

        Raises:
            EngineLost: there is no engine any more; the page has no row and stays to do.
        """
        blank = PageResult(ref.document_id, ref.document.uri, ref.page_number, "failed")
        try:
            found, flags = await self.pool.run(
                self.page_timeout,
                worker.split_page,
                ref,
                self.text_layer == "auto",
                self.recognizer.rendering,
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
            return _failed(known, DocumentError(_code(error), error.message))

    async def _by_text_layer(self, ref: PageRef, known: PageResult) -> PageResult:
        parsed = await self.pool.run(
            self.read_timeout, worker.parse_text_layer, ref, self.with_layout
        )
        known = replace(known, origin="text_layer", engine=TEXT_LAYER_ENGINE)
        return _finished(known, parsed)

    async def _by_engine(self, ref: PageRef, known: PageResult, image: PageImage) -> PageResult:
        recognized = await self.recognizer.recognize(ref, image)
        page = await self._parsed(ref, known, recognized)
        if recognized.complaint not in _FAILURES:
            return page
        instead = await self._instead(ref, known)
        if instead is not None and instead.status == "ok":
            flags = (*page.flags, f"by_{self.fallback}", *instead.flags)
            return replace(
                instead,
                attempts=page.attempts + instead.attempts,
                flags=tuple(dict.fromkeys(flags)),
                prompt_tokens=page.prompt_tokens,
                output_tokens=page.output_tokens,
            )
        return _failed(page, DocumentError(*_FAILURES[recognized.complaint]))

    async def _instead(self, ref: PageRef, known: PageResult) -> PageResult | None:
        """The page by what reads it when the model cannot; None if nothing is to."""
        if self.fallback == "text_layer" and ref.media_type not in PICTURES:
            return await self._by_text_layer(ref, replace(known, attempts=0))
        if self.fallback == "rapidocr":
            cpu = CpuRecognizer(self.pool, self.read_timeout)
            image = await self.pool.run(self.page_timeout, worker.render_again, ref, cpu.rendering)
            return await self._parsed(ref, known, await cpu.recognize(ref, image))
        return None

    async def _parsed(self, ref: PageRef, known: PageResult, recognized: Recognized) -> PageResult:
        reading, image = recognized.reading, recognized.image
        noticed = [f"not_at_first_{complaint}" for complaint in recognized.rejected]
        if recognized.complaint is not None:
            noticed.append(str(recognized.complaint))
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
            attempts=recognized.attempts,
            engine_ms=reading.engine_ms,
            flags=tuple(dict.fromkeys((*known.flags, *reading.flags, *noticed))),
            image_width=image.width,
            image_height=image.height,
        )
        try:
            parsed = await self.pool.run(
                self.read_timeout, worker.parse_image, recognized, ref, self.with_layout
            )
        except DocumentError as error:  # what was said is paid for, and kept
            return _failed(known, DocumentError(_code(error), error.message))
        page = _finished(known, parsed)
        if recognized.complaint is Complaint.HALLUCINATED:
            return replace(page, status="empty", markdown="", text="", blocks=(), figures={})
        return page


def _code(error: DocumentError) -> ErrorCode:
    return _IN_THE_ENGINE.get(error.code, error.code)


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
