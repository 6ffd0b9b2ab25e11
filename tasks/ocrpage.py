"""A page that an engine has read as a PDF page with that text on it, so that the same layout
network sees pages with and without a text layer alike."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import pymupdf

from tasks.lines import Line

_BASELINE = 0.22  # of a line's height, from below
_TEXT_HEIGHT = 0.75  # font size over the height of a line's box
_INVISIBLE = 3


def searchable_page(
    picture: bytes | None, lines: Sequence[Line], width: float, height: float
) -> pymupdf.Document:
    """A one-page PDF: the picture, and the lines invisibly over it where they stand.

    Args:
        picture: the page as JPEG, upright; None if it is not at hand.
        lines: text with boxes in points.
        width: of the page in points.
        height: likewise.
    """
    document = pymupdf.open()
    page = document.new_page(width=width, height=height)
    if picture is not None:
        page.insert_image(page.rect, stream=picture)
    writer = pymupdf.TextWriter(page.rect)
    for line in lines:
        x0, y0, x1, y1 = line.box
        tall = y1 - y0 > 1.5 * (x1 - x0) and len(line.text) > 1
        font = _font(line.text.isascii())
        natural = sum(_advance(line.text.isascii(), letter) for letter in line.text)
        if tall or natural <= 0:
            continue  # sideways text: the layout network would take it for a column
        size = min((x1 - x0) / natural, 1.1 * (y1 - y0))
        size = max(size, _TEXT_HEIGHT * (y1 - y0) / 2, 1.0)
        writer.append((x0, y1 - _BASELINE * (y1 - y0)), line.text, font=font, fontsize=size)
    writer.write_text(page, render_mode=_INVISIBLE)
    return document


@lru_cache(maxsize=50_000)
def _advance(ascii_only: bool, letter: str) -> float:
    """Width of a letter at font size 1."""
    return float(_font(ascii_only).glyph_advance(ord(letter)))


@lru_cache(maxsize=2)
def _font(ascii_only: bool) -> pymupdf.Font:
    return pymupdf.Font("helv" if ascii_only else "china-s")
