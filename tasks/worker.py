"""What a worker process is asked to do. Each call imports what it needs over there, so that the
process which only directs never loads PyMuPDF or ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.records import (
    DocumentFacts,
    LocalDocument,
    PageImage,
    PageRef,
    ParsedPage,
    Reading,
    TextLayer,
)
from tasks.target import Rendering

if TYPE_CHECKING:
    from tasks.recognize import Recognized


def inspect(document: LocalDocument) -> DocumentFacts:
    """See `tasks.documents.inspect`."""
    from tasks import documents

    return documents.inspect(document)


def split_page(
    ref: PageRef, use_text_layer: bool, rendering: Rendering
) -> tuple[PageImage | TextLayer, tuple[str, ...]]:
    """See `tasks.split.split_page`."""
    from tasks import split

    return split.split_page(ref, use_text_layer, rendering)


def render_again(ref: PageRef, rendering: Rendering) -> PageImage:
    """The image of a page, whatever its text layer; see `tasks.split.page_image`."""
    from tasks import split

    return split.page_image(ref, rendering)


def read_image(image: PageImage) -> Reading:
    """See `tasks.engines.rapidocr.read`."""
    from tasks.engines import rapidocr

    return rapidocr.read(image)


def turn_upright(image: PageImage) -> tuple[int, PageImage] | None:
    """The clockwise turn that makes a page upright, and its image so turned.

    Returns:
        None if the page is upright as it is.
    """
    from tasks import render
    from tasks.engines import rapidocr

    turn = rapidocr.turn_needed(image)
    return (turn, render.turned(image, turn)) if turn else None


def parse_text_layer(ref: PageRef, with_layout: bool) -> ParsedPage:
    """See `tasks.parse.parse_text_layer`."""
    from tasks import parse

    try:
        return parse.parse_text_layer(ref, with_layout)
    finally:
        _forget_pictures()


def parse_image(recognized: Recognized, ref: PageRef, with_layout: bool) -> ParsedPage:
    """See `tasks.parse.parse_lines` and `tasks.parse.parse_answer`."""
    from tasks import parse

    try:
        if recognized.parser is None:
            return parse.parse_lines(recognized.reading, recognized.image, ref, with_layout)
        return parse.parse_answer(recognized, ref, with_layout)
    finally:
        _forget_pictures()


def _forget_pictures() -> None:
    """Empty MuPDF's cache: it would keep 256 MB in each process, of pages that are done with."""
    import pymupdf

    pymupdf.TOOLS.store_shrink(100)
