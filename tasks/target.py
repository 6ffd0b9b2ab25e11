"""How large a page is rendered for a model: onto the grid the model will use, never over it.

What a model's own processor would throw away is not rendered, what it would have to invent is not
sent: a page keeps its shape, fits into the box that the model lays it out in, and a small page
stays small. All sizes are pixels, `(width, height)`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

Size = tuple[int, int]

Form = Literal["jpeg", "rgb"]
"""How pixels are handed over: as a JPEG, or as bare bytes, three a pixel, row by row."""

_LEAST_SIDE = 32  # a hair-thin page is stretched to this, so that there is something to look at
_FINEST_DPI = 300.0  # of a page that is drawn and not scanned; finer shows nothing more


class Target(Protocol):
    """A rule for the size of page images; `name` stands in the recipe."""

    @property
    def name(self) -> str:
        """The rule in a few characters: another name, another recipe."""

    def page_size(self, width_pt: float, height_pt: float) -> Size:
        """For a page that can be drawn at any size."""

    def picture_size(self, width: float, height: float) -> Size:
        """For a picture of so many (square) pixels."""


@dataclass(frozen=True, slots=True)
class Rendering:
    """What a page is rendered for: the size that suits the model, in the form the engine takes."""

    target: Target
    form: Form = "jpeg"


@dataclass(frozen=True, slots=True)
class CpuTarget:
    """For the CPU engine, which reads lines: type of readable height, bounded memory."""

    dpi: float = 150.0
    least_long_side: int = 1650  # small pages have small type: as large as a letter page
    most_long_side: int = 2600  # a newspaper page; type is readable and memory stays bounded
    most_dpi: float = 400.0

    @property
    def name(self) -> str:
        """See `Target`."""
        return f"{self.dpi:g}dpi-long{self.least_long_side}..{self.most_long_side}"

    def page_size(self, width_pt: float, height_pt: float) -> Size:
        """See `Target`."""
        longest = max(width_pt, height_pt, 1.0)
        zoom = max(self.dpi / 72, self.least_long_side / longest)
        zoom = min(zoom, self.most_dpi / 72, self.most_long_side / longest)
        return _scaled(width_pt, height_pt, zoom)

    def picture_size(self, width: float, height: float) -> Size:
        """See `Target`."""
        longest = max(width, height)
        wanted = min(max(longest, self.least_long_side), self.most_long_side, 2 * longest)
        return _scaled(width, height, wanted / longest)


class _Boxed:
    """A rule that fits pages into the box in which the model will lay them out."""

    __slots__ = ()

    def box(self, width: float, height: float) -> Size:
        """The most pixels that the model will use of a page of this shape and size."""
        raise NotImplementedError

    def page_size(self, width_pt: float, height_pt: float) -> Size:
        """See `Target`."""
        return self.picture_size(width_pt * _FINEST_DPI / 72, height_pt * _FINEST_DPI / 72)

    def picture_size(self, width: float, height: float) -> Size:
        """See `Target`. A picture is never enlarged."""
        fitted = self._fitted(width, height)
        return self._fitted(*fitted)  # rounding may have tipped a shape between two boxes

    def _fitted(self, width: float, height: float) -> Size:
        across, down = self.box(width, height)
        fitted = _scaled(width, height, min(across / width, down / height, 1.0))
        return min(fitted[0], across), min(fitted[1], down)


@dataclass(frozen=True, slots=True)
class TileTarget(_Boxed):
    """DeepSeek-OCR's grid: up to `most` tiles, as many across and down as suit the page's shape.

    Source: vLLM's processor of DeepSeek-OCR, `count_tiles`. An image of at most one tile a side
    gets no tiles but the padded view alone; `most` = 1 keeps every page so small.
    """

    tile: int = 640
    most: int = 6

    @property
    def name(self) -> str:
        """See `Target`."""
        return f"tiles{self.most}x{self.tile}"

    def box(self, width: float, height: float) -> Size:
        """The grid of tiles whose shape is nearest to the page's; of two, the one it half fills."""
        if self.most == 1 or max(width, height) <= self.tile:
            return self.tile, self.tile
        best, least = (1, 1), math.inf
        for grid in _grids(self.most)[1:]:
            apart = abs(width / height - grid[0] / grid[1])
            half_filled = width * height > 0.5 * self.tile**2 * math.prod(grid)
            if apart < least or (apart == least and half_filled):
                best, least = grid, apart
        return best[0] * self.tile, best[1] * self.tile


@dataclass(frozen=True, slots=True)
class CandidateTarget(_Boxed):
    """DeepSeek-VL2's boxes: of all grids of at most `most` tiles the one that keeps most of a page.

    Source: vLLM's processor of DeepSeek-VL2, `select_best_resolution`, and the candidates in the
    model's own configuration.
    """

    tile: int = 384
    most: int = 9

    @property
    def name(self) -> str:
        """See `Target`."""
        return f"fit{self.most}x{self.tile}"

    def box(self, width: float, height: float) -> Size:
        """The grid that shrinks the page least, and of such the one with least padding."""

        def shrunk_and_padded(box: Size) -> tuple[float, float]:
            scale = min(box[0] / width, box[1] / height)
            kept = min(int(width * scale) * int(height * scale), width * height)
            return -kept, box[0] * box[1] - kept

        boxes = [(x * self.tile, y * self.tile) for x, y in _grids(self.most)]
        return min(boxes, key=shrunk_and_padded)


@dataclass(frozen=True, slots=True)
class CropTarget(_Boxed):
    """Phi-3-vision's crops: the longer side a whole number of crops, at most `most` crops in all.

    Source: the processor in the model's repository, `HD_transform`.
    """

    crop: int = 336
    most: int = 16

    @property
    def name(self) -> str:
        """See `Target`."""
        return f"crops{self.most}x{self.crop}"

    def box(self, width: float, height: float) -> Size:
        """A square whose side is that of the crops along the longer side of the page."""
        shape = max(width, height) / min(width, height)
        fitting = [n for n in range(2, self.most + 1) if n * math.ceil(n / shape) <= self.most]
        side = max(fitting, default=1) * self.crop
        return side, side


def _grids(most: int) -> list[Size]:
    """All grids of at most so many tiles, the smaller first."""
    numbers = range(1, most + 1)
    return sorted(
        ((x, y) for x in numbers for y in numbers if x * y <= most),
        key=lambda grid: math.prod(grid),
    )


def _scaled(width: float, height: float, zoom: float) -> Size:
    return max(round(width * zoom), _LEAST_SIDE), max(round(height * zoom), _LEAST_SIDE)
