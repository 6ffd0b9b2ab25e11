"""Fonts, looks and lines: what is decided below the level of a page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import pymupdf

from markup import Word, words_of

FAMILIES = {
    "roman": {"regular": "tiro", "bold": "tibo", "italic": "tiit", "mono": "cour"},
    "sans": {"regular": "helv", "bold": "hebo", "italic": "heit", "mono": "cour"},
    "mono": {"regular": "cour", "bold": "cobo", "italic": "coit", "mono": "cour"},
    "cjk": dict.fromkeys(("regular", "bold", "italic", "mono"), "china-s"),
}
BLACK = (0.0, 0.0, 0.0)
Color = tuple[float, float, float]


@dataclass(frozen=True)
class Look:
    """How a document looks; lengths in points, margins as left, top, right, bottom."""

    size: tuple[float, float]
    margins: tuple[float, float, float, float]
    family: str = "roman"
    heading_family: str = "sans"
    body: float = 10
    leading: float = 1.3
    scale: tuple[float, float, float] = (1.7, 1.25, 1.08)
    justify: bool = False
    columns: int = 1
    indent: float = 0
    item_indent: float = 1.5
    para_gap: float = 0.5
    heading_color: Color = BLACK
    title_color: Color | None = None
    title_align: str = "left"
    title_gap: float = 0
    table_fill: Color | None = (0.9, 0.9, 0.9)
    grid: bool = True
    header: tuple[str, str] = ("", "")
    footer: tuple[str, str] = ("", "")
    running_size: float = 8
    header_y: float = 40
    footer_up: float = 34
    rule_header: bool = False
    bare_pages: tuple[int, ...] = ()
    backdrop: Callable[[pymupdf.Page, int], None] | None = None


@dataclass
class Text:
    """A run of text with everything that decides its lines."""

    text: str
    family: str
    size: float
    style: str = "regular"
    align: str = "left"
    color: Color = BLACK
    leading: float = 1.3


@cache
def font(code: str) -> pymupdf.Font:
    """One shared font object per built-in font."""
    return pymupdf.Font(code)


@dataclass
class Pen:
    """Writes lines of words on a page; text of one colour goes down in one piece."""

    page: pymupdf.Page
    writer: pymupdf.TextWriter | None = None
    ink: Color = BLACK

    def line(
        self, words: list[Word], text: Text, x: float, y: float, width: float, last: bool
    ) -> None:
        """Write one line of words with its top at `y`, aligned within `width`."""
        if not words:
            return
        space = word_space(text)
        widths = [word_width(word, text) for word in words]
        gaps = [space if word.spaced else 0.0 for word in words[:-1]]
        slack = width - sum(widths) - sum(gaps)
        if text.align == "justify" and not last and gaps:
            gaps = [gap + slack / len(gaps) for gap in gaps]
        elif text.align in ("right", "center"):
            x += slack if text.align == "right" else slack / 2
        baseline = y + text.size * (text.leading + 0.62) / 2
        for word, advance, gap in zip(words, widths, [*gaps, 0.0], strict=True):
            self._word(word, text, x, baseline, with_space=gap > 0 and word.spaced)
            x += advance + gap

    def _word(self, word: Word, text: Text, x: float, baseline: float, with_space: bool) -> None:
        writer = self._take(text.color)
        for index, (run, style) in enumerate(word.runs):
            tail = " " if with_space and index == len(word.runs) - 1 else ""
            face, size = run_face(style, text)
            writer.append((x, baseline), run + tail, font=face, fontsize=size)
            x += face.text_length(run, size)

    def verbatim(self, line: str, x: float, baseline: float, size: float) -> None:
        """Write a line of code as it stands, all its spaces kept."""
        if line:
            self._take(BLACK).append((x, baseline), line, font=font("cour"), fontsize=size)

    def _take(self, color: Color) -> pymupdf.TextWriter:
        if self.writer is None or self.ink != color:
            self.flush()
            self.writer, self.ink = pymupdf.TextWriter(self.page.rect), color
        return self.writer

    def flush(self) -> None:
        """Put on the page what has been written so far."""
        if self.writer is not None:
            self.writer.write_text(self.page, color=self.ink)
        self.writer = None


def run_face(style: str, text: Text) -> tuple[pymupdf.Font, float]:
    """The font and size of one run; monospace inside prose is set a little smaller."""
    family = FAMILIES[text.family]
    chosen = text.style if style == "regular" else style
    smaller = style == "mono" and text.family != "mono"
    return font(family[chosen]), text.size * (0.9 if smaller else 1)


def word_width(word: Word, text: Text) -> float:
    """The width of a word without the space after it."""
    total = 0.0
    for run, style in word.runs:
        face, size = run_face(style, text)
        total += face.text_length(run, size)
    return total


def word_space(text: Text) -> float:
    """The width of a space in the text's own face."""
    face, size = run_face("regular", text)
    return face.text_length(" ", size)


def wrap(text: Text, width: float, first: float = 0) -> list[tuple[list[Word], bool, float]]:
    """Break a text into lines of (words, is it a paragraph's last line, indent)."""
    lines: list[tuple[list[Word], bool, float]] = []
    space = word_space(text)
    for paragraph in text.text.split("\n"):
        line: list[Word] = []
        used = start = first
        for word in words_of(paragraph):
            advance = word_width(word, text)
            if line and used + advance > width:
                lines.append((line, False, start))
                line, used, start = [], 0.0, 0.0
            line.append(word)
            used += advance + (space if word.spaced else 0)
        lines.append((line, True, start))
    return lines
