"""Rows and columns that the layout network took for one: told apart by the lines in them.

Tables without ruled lines, receipts for example, leave the network little to go by; the printed
lines still say what stands beside and under what.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from schemas.records import Box
from tasks.lines import Line, reading_rows
from tasks.tables import Rows

_NEARLY_ALL = 0.8
_LEAST_IN_CELLS = 0.9
_LEAST_GUTTER = 1.0  # line heights of white between two columns

Grid = Sequence[Sequence[Box | None]]


def mend_grid(rows: Rows, cells: Grid, lines: Sequence[Line]) -> Rows:
    """The rows of a table, a printed row each and a printed column each.

    Args:
        rows: text of the cells, as the network saw them.
        cells: their boxes, in the same order; None for one that another spans.
        lines: the lines of text inside the table.
    """
    boxes = [[box for box in row if box is not None] for row in cells]
    if not boxes or len(boxes) != len(rows) or len({len(row) for row in boxes + rows}) != 1:
        return rows  # spanned cells: the network has seen more than lines can tell
    for column in reversed(range(len(boxes[0]))):
        gutter = _gutter([row[column] for row in boxes], lines)
        if gutter is not None:
            boxes = [_split(row, column, gutter) for row in boxes]
            rows = [[_joined(lines, box) for box in row] for row in boxes]
    mended: Rows = []
    for number, (texts, row) in enumerate(zip(rows, boxes, strict=True)):
        printed = _printed_rows(row, lines)
        mended += printed if _are_rows(texts, printed, is_head=number == 0) else [texts]
    return mended


def rows_with_all_text(rows: Rows, lines: Sequence[Line]) -> Rows:
    """The rows, or one a printed row if a tenth of the text stands in none of the cells."""
    in_cells = sum(len("".join(cell.split())) for row in rows for cell in row)
    in_lines = sum(len("".join(line.text.split())) for line in lines)
    if in_cells >= _LEAST_IN_CELLS * in_lines:
        return rows
    return [[line.text for line in row] for row in reading_rows(lines)]


def _are_rows(texts: Sequence[str], printed: Rows, is_head: bool) -> bool:
    """Whether a row of cells holds several printed rows.

    Nearly each of these then has text in every column; a cell that merely wraps leaves the others
    empty. A head whose cells all wrap looks the same, so there each printed row must have a number.
    """
    filled = [column for column, text in enumerate(texts) if text.strip()]
    full = sum(all(row[column] for column in filled) for row in printed)
    if is_head and not all(any(map(str.isdigit, "".join(row))) for row in printed):
        return False
    return len(printed) > 1 and len(filled) > 1 and full >= _NEARLY_ALL * len(printed)


def _printed_rows(row: Sequence[Box], lines: Sequence[Line]) -> Rows:
    top, bottom = min(box[1] for box in row), max(box[3] for box in row)
    inside = [line for line in lines if top <= line.middle[1] < bottom]
    return [
        [
            " ".join(line.text for line in printed if _column(line, row) == i)
            for i in range(len(row))
        ]
        for printed in reading_rows(inside)
    ]


def _gutter(column: Sequence[Box], lines: Sequence[Line]) -> float | None:
    """Where white runs down through a column with text on both sides in nearly all its rows."""
    held = [[line for line in lines if _lies_in(line, box)] for box in column]
    spans = sorted((line.box[0], line.box[2]) for row in held for line in row)
    if len(spans) < 2 or len(column) < 3:
        return None
    least = _LEAST_GUTTER * median(line.box[3] - line.box[1] for row in held for line in row)
    right = spans[0][1]
    for x0, x1 in spans[1:]:
        if x0 - right >= least:
            middle = (right + x0) / 2
            both = sum(
                any(line.box[2] < middle for line in row)
                and any(line.box[0] > middle for line in row)
                for row in held
            )
            if both >= _NEARLY_ALL * len(column):
                return middle
        right = max(right, x1)
    return None


def _split(row: list[Box], column: int, x: float) -> list[Box]:
    x0, y0, x1, y1 = row[column]
    return [*row[:column], (x0, y0, x, y1), (x, y0, x1, y1), *row[column + 1 :]]


def _lies_in(line: Line, box: Box) -> bool:
    x, y = line.middle
    return box[0] <= x < box[2] and box[1] <= y < box[3]


def _joined(lines: Sequence[Line], box: Box) -> str:
    inside = [line for line in lines if _lies_in(line, box)]
    return "\n".join(" ".join(line.text for line in row) for row in reading_rows(inside))


def _column(line: Line, row: Sequence[Box]) -> int:
    """The column that most of a line lies in."""
    return max(
        range(len(row)), key=lambda i: min(line.box[2], row[i][2]) - max(line.box[0], row[i][0])
    )
