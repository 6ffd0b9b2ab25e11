"""Measures and draws one table."""

from __future__ import annotations

from dataclasses import dataclass

import pymupdf

from markup import Block, words_of
from typography import Look, Pen, Text, word_space, word_width, wrap

LEADING = 1.25


@dataclass
class TableSetter:
    """A table fitted to a width; measured first, drawn once its place is known."""

    block: Block
    look: Look
    width: float

    def __post_init__(self) -> None:
        self.size = self.look.body * 0.92
        self.pad = max(4, self.size * 0.35)
        self.cells = [
            [self._cell(text, row, column) for column, text in enumerate(texts)]
            for row, texts in enumerate(self.block.rows)
        ]
        self.widths = self._share_width()
        self.lines = [
            [wrap(cell, width - 2 * self.pad) for cell, width in zip(row, self.widths, strict=True)]
            for row in self.cells
        ]
        self.heights = [
            max(map(len, row)) * self.size * LEADING + 1.5 * self.pad for row in self.lines
        ]

    @property
    def height(self) -> float:
        """The height of the whole table."""
        return sum(self.heights)

    def draw(self, pen: Pen, left: float, top: float) -> None:
        """Draw fill, cells and rules with the upper left corner at (left, top)."""
        if self.look.table_fill:
            band = pymupdf.Rect(left, top, left + self.width, top + self.heights[0])
            pen.page.draw_rect(band, color=None, fill=self.look.table_fill)
        y = top
        for row, height in enumerate(self.heights):
            self._draw_row(pen, row, left, y)
            if row == 0 or self.look.grid:
                self._rule(pen, left, y, heavy=row == 0)
            y += height
        self._rule(pen, left, y, heavy=True)
        if self.look.grid:
            x = left
            for width in [0.0, *self.widths]:
                x += width
                pen.page.draw_line((x, top), (x, y), width=0.5)

    def _draw_row(self, pen: Pen, row: int, left: float, top: float) -> None:
        x = left
        for cell, lines, width in zip(self.cells[row], self.lines[row], self.widths, strict=True):
            for index, (words, _, _) in enumerate(lines):
                y = top + 0.75 * self.pad + index * self.size * LEADING
                pen.line(words, cell, x + self.pad, y, width - 2 * self.pad, True)
            x += width

    def _cell(self, text: str, row: int, column: int) -> Text:
        style = "bold" if row == 0 else "regular"
        align = self.block.aligns[column]
        return Text(text, self.look.family, self.size, style, align, leading=LEADING)

    def _rule(self, pen: Pen, left: float, y: float, heavy: bool) -> None:
        pen.page.draw_line((left, y), (left + self.width, y), width=0.9 if heavy else 0.5)

    def _share_width(self) -> list[float]:
        natural = [
            max(map(_natural_width, column)) + 2 * self.pad + 2
            for column in zip(*self.cells, strict=True)
        ]
        total = sum(natural)
        if total > self.width:
            # Only long columns give way, so that numbers and dates stay on one line.
            cap = max(self.width * 0.42, self.width / len(natural))
            short = sum(width for width in natural if width <= cap)
            long = total - short
            if long and short < self.width:
                share = (self.width - short) / long
                return [width if width <= cap else width * share for width in natural]
        return [width * self.width / total for width in natural]


def _natural_width(cell: Text) -> float:
    words = words_of(cell.text)
    gaps = sum(word.spaced for word in words[:-1])
    return sum(word_width(word, cell) for word in words) + gaps * word_space(cell)
