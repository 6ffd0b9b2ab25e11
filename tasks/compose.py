"""Lines and regions into blocks: each line goes to the region it lies in, and none is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from schemas.records import Block, Box
from tasks.layout import Region
from tasks.lines import Line, paragraph, reading_rows
from tasks.readingorder import reading_order
from tasks.tablegrid import mend_grid, rows_with_all_text
from tasks.tables import html_from_rows, text_from_rows

_LINE_BY_LINE = ("figure", "code")


def compose(
    lines: Sequence[Line], regions: Sequence[Region], width: float, height: float
) -> list[tuple[Block, int]]:
    """The blocks of a page in reading order, each with its heading level (0 for no heading).

    Args:
        lines: all text of the page.
        regions: where the layout saw what, in reading order.
        width: of the page as displayed, in points.
        height: likewise.
    """
    members: list[list[Line]] = [[] for _ in regions]
    strays: list[Line] = []
    for line in lines:
        home = _home(line, regions)
        (strays if home is None else members[home]).append(line)
    placed: list[tuple[Region, list[Line]]] = list(zip(regions, members, strict=True))
    for group in _neighbours(strays):
        placed.append((Region("text", "stray", _around(group)), group))
    if all(region.kind in ("page_header", "page_footer") for region, _ in placed):
        # A page of one line is no running head without a page: the line is what it says.
        placed = [(replace(region, kind="text"), held) for region, held in placed]
    placed = _in_order(placed)
    blocks = [(_block(region, held, width, height), region.level) for region, held in placed]
    return [(block, level) for block, level in blocks if block.text or block.kind == "figure"]


def _home(line: Line, regions: Sequence[Region]) -> int | None:
    x, y = line.middle
    around = [
        number
        for number, region in enumerate(regions)
        if region.box[0] <= x <= region.box[2] and region.box[1] <= y <= region.box[3]
    ]
    # Of nested regions (a caption inside a picture) the smallest is meant.
    return min(around, key=lambda number: _area(regions[number].box), default=None)


def _neighbours(lines: Sequence[Line]) -> list[list[Line]]:
    """Strays that stand under each other, as groups."""
    groups: list[list[Line]] = []
    for line in sorted(lines, key=lambda line: line.box[1]):
        height = line.box[3] - line.box[1]
        for group in groups:
            last = group[-1].box
            overlap = min(last[2], line.box[2]) - max(last[0], line.box[0])
            if overlap > 0 and line.box[1] - last[3] < height:
                group.append(line)
                break
        else:
            groups.append([line])
    return groups


def _in_order(placed: list[tuple[Region, list[Line]]]) -> list[tuple[Region, list[Line]]]:
    """Headers first, then the body in reading order, then footers."""
    ordered = [placed[i] for i in reading_order([region.box for region, _ in placed])]
    rank = {"page_header": 0, "page_footer": 2}
    return sorted(ordered, key=lambda member: rank.get(member[0].kind, 1))


def _block(region: Region, lines: Sequence[Line], width: float, height: float) -> Block:
    html = None
    if region.kind == "table" and region.rows:
        rows = rows_with_all_text(mend_grid(region.rows, region.cells, lines), lines)
        text = text_from_rows(rows)
        html = region.html if rows == region.rows else None
        html = html or html_from_rows(rows)
    elif region.kind in _LINE_BY_LINE or region.kind == "table":
        text = "\n".join(" ".join(line.text for line in row) for row in reading_rows(lines))
    else:
        text = paragraph(lines)
    scores = [line.confidence for line in lines if line.confidence is not None]
    box = inside(region.box, width, height)
    return Block(
        kind=region.kind,
        label=region.label,
        text=text,
        box=box,
        html=html,
        boxes=(box,) if box else (),
        confidence=sum(scores) / len(scores) if scores else None,
    )


def inside(box: Box, width: float, height: float) -> Box | None:
    """The part of a box that lies on the page; None if nothing of it does."""
    x0, y0 = max(box[0], 0.0), max(box[1], 0.0)
    x1, y1 = min(box[2], width), min(box[3], height)
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _around(lines: Sequence[Line]) -> Box:
    boxes = [line.box for line in lines]
    return (
        min(box[0] for box in boxes),
        min(box[1] for box in boxes),
        max(box[2] for box in boxes),
        max(box[3] for box in boxes),
    )


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
