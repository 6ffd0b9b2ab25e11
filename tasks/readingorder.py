"""The order in which a person reads the regions of a page: columns found by cutting along
whitespace.

The page is cut into bands that no region crosses. Bands that leave the same gutter free belong to
one set of columns, so that gaps which happen to align do not tear columns apart; a region over the
whole width ends the set. A table is one region, and so is never torn.
"""

from __future__ import annotations

from collections.abc import Sequence

from schemas.records import Box

_LEAST_GUTTER = 4.0  # points
_ALIGNED = 3.0  # points
_SHRINK = 2.0  # points by which neighbouring boxes may overlap
_FILLS_COLUMN = 0.85  # of a column's width: a region that wide belongs to it
_SECTION_GAP = 0.045  # of the page's height: columns do not go on across so much white
_MOST_IN_COLUMNS = 150  # a page of more regions is a map or a drawing, and cutting it takes long
_NARROW = 0.5  # of the whole width: what is wider is not one column of several

Interval = tuple[float, float]


def reading_order(boxes: Sequence[Box]) -> list[int]:
    """Indices of `boxes` in reading order."""
    if len(boxes) > _MOST_IN_COLUMNS:
        return sorted(range(len(boxes)), key=lambda i: (boxes[i][1], boxes[i][0]))
    shrunk = [_shrunk(box) for box in boxes]
    top, bottom = (
        min((box[1] for box in boxes), default=0),
        max((box[3] for box in boxes), default=0),
    )
    return _order(list(range(len(boxes))), shrunk, _SECTION_GAP * (bottom - top))


def _order(group: list[int], boxes: Sequence[Box], section_gap: float) -> list[int]:
    if len(group) < 2:
        return group
    ordered: list[int] = []
    for columns in _column_sets(_bands(group, boxes), boxes, section_gap):
        gutter = _gutter(columns, boxes)
        if gutter is None:
            ordered += sorted(columns, key=lambda i: (boxes[i][1], boxes[i][0]))
        else:
            ordered += _order([i for i in columns if boxes[i][2] <= gutter], boxes, section_gap)
            ordered += _order([i for i in columns if boxes[i][2] > gutter], boxes, section_gap)
    return ordered


def _bands(group: list[int], boxes: Sequence[Box]) -> list[list[int]]:
    """The finest cut into bands, from top to bottom."""
    bands: list[list[int]] = []
    bottom = float("-inf")
    for i in sorted(group, key=lambda i: boxes[i][1]):
        if bands and boxes[i][1] < bottom:
            bands[-1].append(i)
        else:
            bands.append([i])
        bottom = max(bottom, boxes[i][3])
    return bands


def _column_sets(
    bands: list[list[int]], boxes: Sequence[Box], section_gap: float
) -> list[list[int]]:
    """Bands joined as long as they leave a common gutter free and no wide gap lies between them."""
    whole = _span([i for band in bands for i in band], boxes)
    sets: list[list[int]] = []
    while bands:
        joined: list[int] = []
        until = 1
        for number, band in enumerate(bands, start=1):
            if joined and _top(band, boxes) - _bottom(joined, boxes) > section_gap:
                break
            joined = joined + band
            gutter = _gutter(joined, boxes)
            if gutter is None and _span(joined, boxes) > _NARROW * whole:
                break
            if gutter is not None and _continues(band, joined, gutter, boxes):
                until = number
        sets.append([i for band in bands[:until] for i in band])
        bands = bands[until:]
    return sets


def _continues(band: list[int], joined: list[int], gutter: float, boxes: Sequence[Box]) -> bool:
    """Whether a band is part of the columns: it stands on the right too, or fills the left one, or
    is the short end of a paragraph there."""
    if any(boxes[i][2] > gutter for i in band):
        return True
    above = [i for i in joined if boxes[i][2] <= gutter and i not in band]
    if not above:
        return True
    x0, width = min(boxes[i][0] for i in above), _span(above, boxes)
    if any(boxes[i][2] - boxes[i][0] >= _FILLS_COLUMN * width for i in band):
        return True
    aligned = all(abs(boxes[i][0] - x0) <= _ALIGNED for i in band)
    gap = _top(band, boxes) - _bottom(above, boxes) - 2 * _SHRINK
    return aligned and gap <= _bottom(band, boxes) - _top(band, boxes) + 2 * _SHRINK


def _top(group: Sequence[int], boxes: Sequence[Box]) -> float:
    return min(boxes[i][1] for i in group)


def _bottom(group: Sequence[int], boxes: Sequence[Box]) -> float:
    return max(boxes[i][3] for i in group)


def _span(group: Sequence[int], boxes: Sequence[Box]) -> float:
    return max(boxes[i][2] for i in group) - min(boxes[i][0] for i in group)


def _gutter(group: Sequence[int], boxes: Sequence[Box]) -> float | None:
    """The left end of the widest vertical gap with regions on both sides; None if there is none."""
    widest: Interval | None = None
    right = float("-inf")
    for i in sorted(group, key=lambda i: boxes[i][0]):
        gap = boxes[i][0] - right
        wider = widest is None or gap > widest[1] - widest[0]
        if right > float("-inf") and gap >= _LEAST_GUTTER and wider:
            widest = (right, boxes[i][0])
        right = max(right, boxes[i][2])
    return None if widest is None else widest[0]


def _shrunk(box: Box) -> Box:
    x0, y0, x1, y1 = box
    across, down = min(_SHRINK, (x1 - x0) / 4), min(_SHRINK, (y1 - y0) / 4)
    return (x0 + across, y0 + down, x1 - across, y1 - down)
