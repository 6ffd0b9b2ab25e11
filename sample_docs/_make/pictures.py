"""Draws the figures of the sample documents and returns them as PNG bytes with their shape."""

from __future__ import annotations

from collections.abc import Callable

import pymupdf

from typography import font

INK = (0.12, 0.12, 0.14)
NIGHT_FLOW = {
    "Mar": 9.8,
    "Apr": 9.5,
    "May": 9.2,
    "Jun": 7.6,
    "Jul": 7.5,
    "Aug": 7.4,
    "Sep": 6.3,
    "Oct": 6.1,
    "Nov": 6.1,
}


def picture(name: str) -> tuple[bytes, float]:
    """The named figure as PNG, and its height divided by its width."""
    draw, width, height, scale = PICTURES[name]
    with pymupdf.open() as scratch:
        page = scratch.new_page(width=width, height=height)
        draw(page)
        see_through = name == "signature"
        pixels = page.get_pixmap(matrix=pymupdf.Matrix(scale, scale), alpha=see_through)
        return pixels.tobytes("png"), height / width


def _label(
    page: pymupdf.Page, x: float, y: float, text: str, size: float = 9, face: str = "helv"
) -> None:
    writer = pymupdf.TextWriter(page.rect)
    writer.append((x, y), text, font=font(face), fontsize=size)
    writer.write_text(page, color=INK)


def _bars(page: pymupdf.Page) -> None:
    floor, left, step = 165, 34, 25
    for value in (0, 2, 4, 6, 8, 10):
        y = floor - value * 14.5
        page.draw_line((left - 3, y), (left + step * 9, y), color=(0.8, 0.8, 0.8), width=0.6)
        _label(page, left - 18, y + 3, str(value))
    for index, (month, value) in enumerate(NIGHT_FLOW.items()):
        x = left + step * index + 4
        bar = pymupdf.Rect(x, floor - value * 14.5, x + step - 9, floor)
        page.draw_rect(bar, color=(0.1, 0.25, 0.4), fill=(0.3, 0.52, 0.7), width=0.5)
        _label(page, x - 1, floor + 12, month)
    page.draw_line((left - 3, floor), (left + step * 9, floor), color=INK, width=1)


def _signature(page: pymupdf.Page) -> None:
    ink = (0.08, 0.1, 0.3)
    curves = (
        ((8, 52), (18, 2), (40, 4), (22, 40)),
        ((22, 40), (16, 60), (60, 12), (54, 34)),
        ((54, 34), (48, 56), (74, 20), (82, 32)),
        ((82, 32), (88, 44), (92, 18), (102, 30)),
        ((102, 30), (110, 44), (126, 2), (118, 40)),
        ((118, 40), (116, 66), (150, 20), (186, 26)),
        ((30, 58), (80, 46), (140, 52), (192, 44)),
    )
    for index, (start, one, two, end) in enumerate(curves):
        page.draw_bezier(start, one, two, end, color=ink, width=1.9 if index % 2 else 1.5)


def _site(page: pymupdf.Page) -> None:
    page.draw_rect(page.rect, color=None, fill=(1, 1, 1))
    page.draw_rect((20, 90, 280, 185), color=None, fill=(0.8, 0.9, 0.96))
    page.draw_rect((20, 180, 280, 200), color=None, fill=(0.72, 0.64, 0.5))
    page.draw_polyline(
        [(20, 40), (70, 40), (95, 185), (20, 185), (20, 40)], color=INK, fill=(0.78, 0.76, 0.72)
    )
    page.draw_rect((130, 40, 160, 172), color=INK, fill=(0.93, 0.97, 1), width=1.4)
    for y in (135, 148, 161):
        page.draw_rect((127, y, 133, y + 4), color=None, fill=(0.8, 0.9, 0.96))
    page.draw_rect((141, 118, 149, 150), color=INK, fill=(0.45, 0.45, 0.48))
    page.draw_bezier((145, 118), (146, 80), (144, 60), (145, 30), color=INK, width=1.6)
    page.draw_rect((118, 8, 172, 30), color=INK, fill=(0.7, 0.7, 0.7))
    page.draw_line((20, 90), (280, 90), color=(0.2, 0.4, 0.7), width=1.2)
    for x, y, text, target in (
        (190, 24, "logger", (172, 20)),
        (190, 70, "tube", (160, 68)),
        (190, 128, "sensor", (149, 130)),
        (190, 160, "slots", (133, 150)),
    ):
        page.draw_line((x - 3, y - 3), target, color=INK, width=0.6)
        _label(page, x, y, text, 10)


def _panel(page: pymupdf.Page) -> None:
    page.draw_rect((4, 4, 296, 136), color=INK, fill=(0.82, 0.83, 0.85), width=1.5, radius=0.08)
    page.draw_rect((24, 22, 200, 74), color=INK, fill=(0.77, 0.85, 0.7), width=1.2)
    _label(page, 34, 44, "MILL WEIR  10:42", 14, "cour")
    _label(page, 34, 64, "level   1.284 m", 14, "cour")
    page.draw_circle((226, 34), 6, color=INK, fill=(0.2, 0.7, 0.3))
    for index, text in enumerate(("Back", "Up", "Down", "Enter")):
        x = 24 + index * 64
        page.draw_rect((x, 92, x + 50, 118), color=INK, fill=(0.95, 0.95, 0.95), radius=0.25)
        _label(page, x + 11, 109, text, 11)


def _hall(page: pymupdf.Page) -> None:
    for band in range(60):
        shade = band / 60
        sky = (0.55 + 0.35 * shade, 0.72 + 0.2 * shade, 0.92)
        page.draw_rect((0, band * 4, 490, band * 4 + 4.5), color=None, fill=sky)
    for x, y, r in ((80, 50, 22), (108, 44, 28), (140, 54, 20), (390, 36, 20), (414, 42, 24)):
        page.draw_oval(
            (x - r * 1.6, y - r * 0.6, x + r * 1.6, y + r * 0.6), color=None, fill=(0.97, 0.98, 1)
        )
    page.draw_rect((0, 300, 490, 380), color=None, fill=(0.66, 0.63, 0.6))
    for index in range(14):
        page.draw_line((index * 60 - 160, 380), (120 + index * 20, 300), color=(0.58, 0.55, 0.52))
    page.draw_rect((40, 150, 450, 304), color=None, fill=(0.7, 0.42, 0.33))
    page.draw_polyline(
        [(28, 150), (110, 92), (380, 92), (462, 150), (28, 150)],
        color=None,
        fill=(0.34, 0.38, 0.42),
    )
    page.draw_rect((222, 52, 268, 110), color=None, fill=(0.62, 0.36, 0.28))
    page.draw_circle((245, 78), 15, color=(0.2, 0.2, 0.2), fill=(0.97, 0.96, 0.9), width=2)
    page.draw_line((245, 78), (245, 68), width=1.6)
    page.draw_line((245, 78), (253, 81), width=1.6)
    for index in range(8):
        x = 52 + index * 49
        door = index in (2, 5)
        page.draw_rect(
            (x, 222, x + 40, 304),
            color=(0.1, 0.3, 0.2),
            width=3,
            fill=(0.25, 0.32, 0.34) if door else (0.75, 0.87, 0.9),
        )
        page.draw_oval(
            (x, 166, x + 40, 210), color=(0.1, 0.3, 0.2), fill=(0.82, 0.9, 0.92), width=2.5
        )
    for x, coat in ((90, (0.7, 0.2, 0.2)), (118, (0.2, 0.3, 0.5)), (330, (0.85, 0.7, 0.2))):
        page.draw_rect((x, 308, x + 11, 342), color=None, fill=coat)
        page.draw_circle((x + 5.5, 302), 5.5, color=None, fill=(0.85, 0.68, 0.55))


PICTURES: dict[str, tuple[Callable[[pymupdf.Page], None], float, float, float]] = {
    "nightflow": (_bars, 270, 185, 3),
    "signature": (_signature, 200, 66, 4),
    "site": (_site, 300, 205, 2.5),
    "panel": (_panel, 300, 140, 2.5),
    "hall": (_hall, 490, 380, 2),
}
