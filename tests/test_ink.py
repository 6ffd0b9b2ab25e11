"""How much is drawn on a page: paper is no ink, however it looks; the faintest print is."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from tasks.ink import CELL, ink

SIZE = (1280, 1656)
CELLS = (SIZE[0] // CELL) * -(-SIZE[1] // CELL)


def paper(levels: np.ndarray) -> Image.Image:
    """A grey page of these levels, rows by columns."""
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8)).convert("RGB")


def flat(level: float) -> np.ndarray:
    return np.full((SIZE[1], SIZE[0]), level)


def noise(deviation: float) -> np.ndarray:
    return np.random.default_rng(1).normal(0, deviation, (SIZE[1], SIZE[0]))


def as_jpeg(picture: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def printed(text: str, pixels: float, colour: str | int = 0, ground: str = "white") -> Image.Image:
    page = Image.new("RGB", SIZE, ground)
    fill = (colour,) * 3 if isinstance(colour, int) else colour
    ImageDraw.Draw(page).text((100, 100), text, fill=fill, font=ImageFont.load_default(pixels))
    return page


@pytest.mark.parametrize("colour", ["white", "black", "#808080", "#f3e5ab", "#1e3a5f"])
def test_a_page_of_one_colour_is_blank(colour: str) -> None:
    assert ink(Image.new("RGB", SIZE, colour)) == 0.0


@pytest.mark.parametrize("quality", [20, 50, 92])
@pytest.mark.parametrize("deviation", [2.0, 5.0])
def test_a_noisy_scan_of_nothing_is_blank(deviation: float, quality: int) -> None:
    assert ink(as_jpeg(paper(flat(236) + noise(deviation)), quality)) == 0.0


def test_a_page_lit_unevenly_is_blank() -> None:
    down, across = np.mgrid[-1 : 1 : SIZE[1] * 1j, -1 : 1 : SIZE[0] * 1j]
    vignette = flat(250) - 70 * (across**2 + down**2)
    shadow = flat(240) - 120 * np.clip(1 - (across + 1) * 3, 0, 1)  # at the spine, 200 pixels wide
    assert ink(paper(vignette + noise(3))) == 0.0
    assert ink(paper(shadow)) == 0.0


def test_dust_is_no_ink() -> None:
    dusty = flat(255)
    dusty[8::200, 8::200] = 0
    assert ink(paper(dusty)) == 0.0


@pytest.mark.parametrize(
    ("page", "least"),
    [
        (printed("Invoice", 28), 6),
        (printed("Invoice of the third of May", 21, "#c8c8c8"), 15),
        (printed("printed in the smallest type that there is", 10, 120), 8),
        (printed("red on white", 21, "red"), 8),
        (printed("white on black", 21, "white", "black"), 8),
        (printed("yellow on blue", 21, "yellow", "blue"), 8),
    ],
)
def test_print_is_ink(page: Image.Image, least: int) -> None:
    assert least <= ink(page) * CELLS <= 60
    assert least <= ink(as_jpeg(page, 60)) * CELLS


def test_the_share_is_that_of_the_page() -> None:
    half = flat(255)
    half[: SIZE[1] // 2] -= np.tile([0, 255], SIZE[0] // 2 // 4).repeat(4)
    assert ink(paper(half)) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (15, 16), (17, 16), (40, 1), (639, 641)])
def test_any_size_will_do(size: tuple[int, int]) -> None:
    blank = Image.new("RGB", size, "white")
    assert ink(blank) == 0.0
    marked = Image.new("RGB", size, "white")
    marked.paste("black", (size[0] // 2, size[1] // 2, size[0], size[1]))
    assert 0 <= ink(marked) <= 1
    assert ink(marked) > 0 or max(size) < CELL


def test_it_takes_two_milliseconds() -> None:
    page = paper(flat(200) + noise(60))
    taken = []
    for _ in range(15):
        began = time.perf_counter()
        ink(page)
        taken.append(time.perf_counter() - began)
    assert min(taken) < 0.004  # 0.0016 measured; twice that for a slower machine
