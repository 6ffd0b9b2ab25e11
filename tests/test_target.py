"""Pages rendered to the grid that a model will use, and boxes on the way back."""

from __future__ import annotations

import io

import numpy as np
import pymupdf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tasks.parse import parse_page
from tasks.render import render_page, turned
from tasks.target import CandidateTarget, CpuTarget, CropTarget, Rendering, TileTarget

GUNDAM = TileTarget(tile=640, most=6)
GLOBAL = TileTarget(tile=640, most=1)
TARGETS = (GUNDAM, GLOBAL, TileTarget(tile=768), CandidateTarget(), CropTarget(), CpuTarget())

sides = st.floats(3, 14_400)


def tiles_by_vllm(width: int, height: int) -> tuple[int, int]:
    """How vLLM's DeepSeek-OCR processor would tile an image, in its own words' meaning."""
    grids = sorted(
        {(x, y) for x in range(1, 7) for y in range(1, 7) if 2 <= x * y <= 6}, key=np.prod
    )
    best, least = (1, 1), float("inf")
    for x, y in grids:
        apart = abs(width / height - x / y)
        if apart < least or (apart == least and width * height > 0.5 * 640 * 640 * x * y):
            best, least = (x, y), min(apart, least)
    return best


@given(sides, sides)
def test_a_page_fits_the_grid_that_the_model_will_choose(width: float, height: float) -> None:
    across, down = GUNDAM.page_size(width, height)
    if max(across, down) > 640:
        columns, rows = tiles_by_vllm(across, down)
        assert across <= columns * 640
        assert down <= rows * 640
        # It fills the grid in one direction, unless that would need more than 300 dpi.
        grown = (across == columns * 640) or (down == rows * 640)
        assert grown or across >= width * 300 / 72 - 1


@given(sides, sides, st.sampled_from(TARGETS))
def test_sizes_are_bounded_and_keep_the_shape(
    width: float, height: float, target: CpuTarget | TileTarget
) -> None:
    across, down = target.page_size(width, height)
    assert min(across, down) >= 32
    assert max(across, down) <= 384 * 16
    assert across * down <= 16 * 336 * 336 * 5
    if min(across, down) > 32:
        assert across / down == pytest.approx(width / height, rel=0.02)


@given(st.integers(33, 9000), st.integers(33, 9000), st.sampled_from(TARGETS[:-1]))
def test_pictures_are_never_enlarged_for_a_model(
    width: int, height: int, target: TileTarget
) -> None:
    across, down = target.picture_size(width, height)
    assert across <= width
    assert down <= height


def test_known_sizes() -> None:
    assert GUNDAM.page_size(612, 792) == (1280, 1656)
    assert GUNDAM.page_size(792, 612) == (1656, 1280)
    assert GUNDAM.picture_size(640, 500) == (640, 500)
    assert GLOBAL.page_size(612, 792) == (495, 640)
    assert CandidateTarget().page_size(612, 792) == (890, 1152)
    assert CropTarget().page_size(612, 792) == (1039, 1344)
    assert CpuTarget().page_size(612, 792) == (1275, 1650)


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.floats(60, 1500), st.floats(60, 1500)),
    rotation=st.sampled_from((0, 90, 180, 270)),
    crop=st.booleans(),
    turn=st.sampled_from((0, 90, 180, 270)),
    place=st.tuples(st.floats(0.05, 0.6), st.floats(0.05, 0.6)),
    target=st.sampled_from((GUNDAM, GLOBAL, CandidateTarget())),
)
def test_a_box_comes_back_onto_the_page(
    size: tuple[float, float],
    rotation: int,
    crop: bool,
    turn: int,
    place: tuple[float, float],
    target: TileTarget,
) -> None:
    """A black mark on the page is found in the image, told on the model's grid, and comes back."""
    document = pymupdf.open()
    page = document.new_page(width=size[0], height=size[1])
    x, y = place[0] * size[0], place[1] * size[1]
    page.draw_rect((x, y, x + 0.3 * size[0], y + 0.2 * size[1]), color=None, fill=(0, 0, 0))
    if crop:
        page.set_cropbox((size[0] * 0.02, size[1] * 0.01, size[0] * 0.97, size[1] * 0.9))
    page.set_rotation(rotation)
    width, height = page.rect.width, page.rect.height
    mark = tuple(page.get_drawings()[0]["rect"] * page.rotation_matrix)
    image = render_page(page, Rendering(target))
    if turn:
        image = turned(image, turn)
    pixels = np.asarray(Image.open(io.BytesIO(image.data)).convert("L"))
    ys, xs = np.nonzero(pixels < 128)
    across, down = 999 / image.width, 999 / image.height
    told = [xs.min() * across, ys.min() * down, (xs.max() + 1) * across, (ys.max() + 1) * down]
    raw = f"<|ref|>text<|/ref|><|det|>[[{', '.join(f'{n:.3f}' for n in told)}]]<|/det|>\nMark"
    [block] = parse_page(raw, "deepseek-ocr", image.width_pt, image.height_pt, turn).blocks
    pixel = max(width / min(image.width, image.height), height / min(image.width, image.height))
    assert block.box == pytest.approx(mark, abs=1.5 * pixel)
