"""What a worker process is asked to do. Each call imports what it needs over there, so that the
process which only directs never loads PyMuPDF or ONNX Runtime."""

from __future__ import annotations

from schemas.records import (
    DocumentFacts,
    LocalDocument,
    PageImage,
    PageRef,
    ParsedPage,
    Reading,
    TextLayer,
)


def inspect(document: LocalDocument) -> DocumentFacts:
    """See `tasks.documents.inspect`."""
    from tasks import documents

    return documents.inspect(document)


def split_page(ref: PageRef, use_text_layer: bool) -> tuple[PageImage | TextLayer, tuple[str, ...]]:
    """See `tasks.split.split_page`."""
    from tasks import split

    return split.split_page(ref, use_text_layer)


def read_image(image: PageImage) -> Reading:
    """See `tasks.engines.rapidocr.read`."""
    from tasks.engines import rapidocr

    return rapidocr.read(image)


def parse_text_layer(ref: PageRef, with_layout: bool) -> ParsedPage:
    """See `tasks.parse.parse_text_layer`."""
    from tasks import parse

    try:
        return parse.parse_text_layer(ref, with_layout)
    finally:
        _forget_pictures()


def parse_image(reading: Reading, image: PageImage, ref: PageRef, with_layout: bool) -> ParsedPage:
    """See `tasks.parse.parse_image`."""
    from tasks import parse

    try:
        return parse.parse_image(reading, image, ref, with_layout)
    finally:
        _forget_pictures()


def _forget_pictures() -> None:
    """Empty MuPDF's cache: it would keep 256 MB in each process, of pages that are done with."""
    import pymupdf

    pymupdf.TOOLS.store_shrink(100)
