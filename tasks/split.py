"""A page of an open document: its embedded text where that can be trusted, else its image."""

from __future__ import annotations

import time

import pymupdf

from schemas.errors import DocumentError, ErrorCode
from schemas.records import PageImage, PageRef, TextLayer
from tasks import picture, textlayer
from tasks.documents import open_document
from tasks.lines import embedded_lines
from tasks.render import render_page, render_picture
from tasks.target import Rendering


def split_page(
    ref: PageRef, use_text_layer: bool, rendering: Rendering
) -> tuple[PageImage | TextLayer, tuple[str, ...]]:
    """One page, and what was noticed of its text layer.

    Runs in a worker process.

    Returns:
        `TextLayer` if the embedded text stands for the page (or the page is blank), else the
        page's image; with the flags for the page's row.

    Raises:
        DocumentError: the page cannot be loaded, decoded or drawn.
    """
    began = time.perf_counter()
    opened = open_document(ref.document)
    if opened.pdf is None or not use_text_layer:
        return page_image(ref, rendering), ()
    page = load_page(opened.pdf, ref.page_number)
    complaint = textlayer.complaint(page, embedded_lines(page))
    if complaint is None or (complaint == "no_text_layer" and textlayer.is_blank(page)):
        spent = (time.perf_counter() - began) * 1000
        return TextLayer(page.rect.width, page.rect.height, spent), ()
    flags = () if complaint == "no_text_layer" else (complaint,)
    return render_page(page, rendering), flags


def page_image(ref: PageRef, rendering: Rendering) -> PageImage:
    """The image of one page, whatever text it carries. Runs in a worker process.

    Raises:
        DocumentError: the page cannot be loaded, decoded or drawn.
    """
    opened = open_document(ref.document)
    if opened.picture is not None:
        frame, across, down = picture.decode_frame(opened.picture, ref.page_number)
        return render_picture(frame, across, down, rendering)
    assert opened.pdf is not None
    return render_page(load_page(opened.pdf, ref.page_number), rendering)


def load_page(pdf: pymupdf.Document, page_number: int) -> pymupdf.Page:
    """A page of a PDF, counted from 1.

    Raises:
        DocumentError: `corrupt` if the file has no such page after all.
    """
    try:
        return pdf.load_page(page_number - 1)
    except (RuntimeError, ValueError, IndexError) as error:
        raise DocumentError(
            ErrorCode.CORRUPT, f"page {page_number} cannot be loaded: {error}"
        ) from None
