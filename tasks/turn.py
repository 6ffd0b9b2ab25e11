"""Coordinates between a page as displayed and the same page turned upright for reading."""

from __future__ import annotations

from dataclasses import replace

from schemas.records import Block, Box


def upright_size(width: float, height: float, turn: int) -> tuple[float, float]:
    """Width and height of a page after a clockwise turn of 0, 90, 180 or 270."""
    return (height, width) if turn in (90, 270) else (width, height)


def turn_box(box: Box, width: float, height: float, turn: int) -> Box:
    """A box of the page as displayed (`width` by `height`), over the upright page."""
    return unturn_box(box, *upright_size(width, height, turn), -turn % 360)


def unturn_box(box: Box, width: float, height: float, turn: int) -> Box:
    """A box of the upright page, over the page as displayed (`width` by `height`)."""
    x0, y0, x1, y1 = box
    if turn == 90:
        return (y0, height - x1, y1, height - x0)
    if turn == 180:
        return (width - x1, height - y1, width - x0, height - y0)
    if turn == 270:
        return (width - y1, x0, width - y0, x1)
    return box


def unturn_block(block: Block, width: float, height: float, turn: int) -> Block:
    """A block of the upright page, over the page as displayed."""
    if turn == 0 or block.box is None:
        return block
    return replace(
        block,
        box=unturn_box(block.box, width, height, turn),
        boxes=tuple(unturn_box(box, width, height, turn) for box in block.boxes),
    )
