"""Pages as pixels: the size that an engine reads best, never one that the document decides."""

from __future__ import annotations

import io
import time

import pymupdf
from PIL import Image

from schemas.errors import DocumentError, ErrorCode
from schemas.records import PageImage

_DPI = 150.0
_LEAST_LONG_SIDE = 1650  # small pages have small type: render them as large as a letter page
_MOST_LONG_SIDE = 2600  # a newspaper page; type is readable and memory stays bounded
_MOST_DPI = 400.0
_LEAST_SIDE = 32


def render_page(page: pymupdf.Page) -> PageImage:
    """A PDF page as displayed, rendered for the CPU engine.

    Raises:
        DocumentError: `corrupt` if PyMuPDF cannot draw it.
    """
    began = time.perf_counter()
    width, height = page.rect.width, page.rect.height
    zoom_x, zoom_y = _zoom(width, height)
    try:
        pixmap = page.get_pixmap(matrix=pymupdf.Matrix(zoom_x, zoom_y), alpha=False)
    except (RuntimeError, ValueError) as error:
        raise DocumentError(ErrorCode.CORRUPT, f"the page cannot be drawn: {error}") from None
    picture = Image.frombytes("RGB", (pixmap.width, pixmap.height), pixmap.samples)
    return encode(picture, width, height, began)


def render_picture(picture: Image.Image, dpi_across: float, dpi_down: float) -> PageImage:
    """A decoded image as a page: square pixels, large type made smaller, small type larger."""
    began = time.perf_counter()
    width, height = picture.width * 72 / dpi_across, picture.height * 72 / dpi_down
    longest = max(picture.width * max(dpi_down / dpi_across, 1.0), picture.height)
    wanted = min(max(longest, _LEAST_LONG_SIDE), _MOST_LONG_SIDE, 2 * longest)
    zoom = wanted / max(width, height)
    size = (max(round(width * zoom), _LEAST_SIDE), max(round(height * zoom), _LEAST_SIDE))
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    return encode(picture, width, height, began)


def encode(picture: Image.Image, width_pt: float, height_pt: float, began: float) -> PageImage:
    """An RGB picture as the record that engines take; `began` is when rendering started."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=92, subsampling="4:4:4")
    return PageImage(
        data=buffer.getvalue(),
        width=picture.width,
        height=picture.height,
        width_pt=width_pt,
        height_pt=height_pt,
        render_ms=(time.perf_counter() - began) * 1000,
    )


def decode(image: PageImage) -> Image.Image:
    """The pixels of a rendered page."""
    return Image.open(io.BytesIO(image.data), formats=["JPEG"]).convert("RGB")


def crop_webp(picture: Image.Image) -> bytes:
    """A cropped figure as WebP."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, format="WEBP", quality=80, method=2)
    return buffer.getvalue()


def _zoom(width: float, height: float) -> tuple[float, float]:
    """Pixels a point, across and down; a hair-thin page is stretched to a readable side."""
    longest = max(width, height, 1.0)
    zoom = max(_DPI / 72, _LEAST_LONG_SIDE / longest)
    zoom = min(zoom, _MOST_DPI / 72, _MOST_LONG_SIDE / longest)
    return max(zoom, _LEAST_SIDE / max(width, 1e-3)), max(zoom, _LEAST_SIDE / max(height, 1e-3))
