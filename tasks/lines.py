"""Lines of text with their boxes, and how lines become running text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pymupdf

from schemas.records import Box
from tasks.storable import clean


@dataclass(frozen=True, slots=True)
class Line:
    """One line of text. `confidence` is the engine's, None for embedded text.

    `slant` is how far the page's lines fall a point to the right: a photo is rarely straight.
    """

    text: str
    box: Box
    confidence: float | None = None
    upright: bool = True
    slant: float = 0.0

    @property
    def middle(self) -> tuple[float, float]:
        """Centre of the line."""
        x0, y0, x1, y1 = self.box
        return (x0 + x1) / 2, (y0 + y1) / 2

    @property
    def level(self) -> float:
        """Height at which the line stands on the page made straight."""
        x, y = self.middle
        return y - self.slant * x


_SAME_ROW = 0.5  # of the lower line's height: middles closer than that stand in one row
_SPACE_FROM = 0.15  # gap between spans, in font sizes, that readers see as a space
_HYPHENS = ("-", "\u00ad", "\u2010")


def embedded_lines(page: pymupdf.Page) -> list[Line]:
    """The page's embedded text, line by line, in the file's own order; its /Rotate is undone."""
    flags = pymupdf.TEXT_PRESERVE_WHITESPACE | pymupdf.TEXT_MEDIABOX_CLIP
    turn = page.rotation_matrix
    found = []
    for block in page.get_text("dict", flags=flags)["blocks"]:
        for line in block.get("lines", ()):
            text = clean(_join_spans(line["spans"]))
            if text.strip():
                box = tuple((pymupdf.Rect(line["bbox"]) * turn).normalize())
                upright = abs((pymupdf.Point(line["dir"]) * _rotation_only(turn)).y) < 0.5
                found.append(Line(text.strip(), box, None, upright))
    return found


def reading_rows(lines: Iterable[Line]) -> list[list[Line]]:
    """Lines of one column grouped into rows: top to bottom, each from left to right."""
    rows: list[list[Line]] = []
    for line in sorted(lines, key=lambda line: line.level):
        if rows and _side_by_side(rows[-1][0], line):
            rows[-1].append(line)
        else:
            rows.append([line])
    return [sorted(row, key=lambda line: line.box[0]) for row in rows]


def paragraph(lines: Sequence[Line]) -> str:
    """Lines run together as a paragraph: hyphens at line ends undone, no spaces between CJK."""
    if not all(line.upright for line in lines):
        return join_paragraph([line.text for line in lines])
    return join_paragraph([" ".join(line.text for line in row) for row in reading_rows(lines)])


def _side_by_side(one: Line, other: Line) -> bool:
    height = min(one.box[3] - one.box[1], other.box[3] - other.box[1])
    return abs(other.level - one.level) < _SAME_ROW * height


def join_paragraph(rows: Iterable[str]) -> str:
    """Rows of text run together as a paragraph."""
    text = ""
    for row in rows:
        row = row.strip()
        if not row:
            continue
        if not text:
            text = row
        elif text.endswith(_HYPHENS) and _is_broken_word(text, row):
            text = text[:-1] + row
        elif _is_cjk(text[-1]) and _is_cjk(row[0]):
            text += row
        else:
            text += " " + row
    return text


def _is_broken_word(before: str, after: str) -> bool:
    # "state-of-the-" + "art" keeps its hyphen; so do numbers and names ("Nord-" + "Süd").
    last = re.split(r"\s", before)[-1][:-1]
    return last.isalpha() and len(last) > 1 and after[0].islower()


def _is_cjk(character: str) -> bool:
    return unicodedata.east_asian_width(character) in "WF"


def _join_spans(spans: Sequence[dict[str, object]]) -> str:
    text, end = "", None
    for span in spans:
        piece, box = str(span["text"]), span["bbox"]
        assert isinstance(box, tuple) and isinstance(span["size"], float)
        gap = end is not None and box[0] - end > _SPACE_FROM * span["size"]
        text += (" " if gap and not text.endswith(" ") else "") + piece
        end = box[2]
    return text


def _rotation_only(matrix: pymupdf.Matrix) -> pymupdf.Matrix:
    return pymupdf.Matrix(matrix.a, matrix.b, matrix.c, matrix.d, 0, 0)
