"""Coordinates as DeepSeek-OCR gives them, and points of the page.

It counts from 0 to 999 in both directions over the image as sent, without the padding that the
image is given on its way into the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from schemas.records import Box
from tasks.refs import Numbers

_GRID = 999
_FINEST = 3  # decimals of the grid: finer ones would not survive the lake's float32


def boxes_from_grid(
    told: Sequence[Numbers], width: float, height: float
) -> tuple[tuple[Box, ...], set[str]]:
    """The boxes of one ref, mended into the page, and flags.

    Args:
        told: each box as the model gave it; what is not four numbers is dropped.
        width: of the page that the model saw, in points.
        height: likewise.

    Returns:
        Boxes in points with x0 < x1 and y0 < y1, and `box_missing` (none was told), `box_dropped`
        and `box_mended` (it reached out of the page, or its corners were the wrong way round).
    """
    boxes: list[Box] = []
    flags: set[str] = set() if told else {"box_missing"}
    for numbers in told:
        sides = _on_grid(numbers)
        if sides is None:
            flags.add("box_dropped")
            continue
        x0, x1 = (side / _GRID * width for side in (sides[0], sides[2]))
        y0, y1 = (side / _GRID * height for side in (sides[1], sides[3]))
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            flags.add("box_dropped")
            continue
        if sides != tuple(round(number, _FINEST) for number in numbers):
            flags.add("box_mended")
        boxes.append((x0, y0, x1, y1))
    return tuple(boxes), flags


def around(boxes: Iterable[Box]) -> Box:
    """The box around at least one box."""
    x0s, y0s, x1s, y1s = zip(*boxes, strict=True)
    return (min(x0s), min(y0s), max(x1s), max(y1s))


def _on_grid(numbers: Numbers) -> Box | None:
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        return None
    xa, ya, xb, yb = (round(min(max(number, 0.0), _GRID), _FINEST) for number in numbers)
    return (min(xa, xb), min(ya, yb), max(xa, xb), max(ya, yb))
