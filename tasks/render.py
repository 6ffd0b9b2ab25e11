"""Pages as pixels: drawn or decoded at the size that a target asks for, encoded and decoded."""

from __future__ import annotations

import io
import time

import pymupdf
from PIL import Image

from schemas.errors import DocumentError, ErrorCode
from schemas.records import PageImage
from tasks.ink import ink
from tasks.target import Form, Rendering


def render_page(page: pymupdf.Page, rendering: Rendering) -> PageImage:
    """A PDF page as displayed.

    Raises:
        DocumentError: `corrupt` if PyMuPDF cannot draw it.
    """
    began = time.perf_counter()
    width, height = page.rect.width, page.rect.height
    across, down = rendering.target.page_size(width, height)
    matrix = pymupdf.Matrix(across / max(width, 1e-3), down / max(height, 1e-3))
    try:
        pixmap = page.get_pixmap(matrix=matrix, alpha=False)
    except (RuntimeError, ValueError) as error:
        raise DocumentError(ErrorCode.CORRUPT, f"the page cannot be drawn: {error}") from None
    picture = Image.frombytes("RGB", (pixmap.width, pixmap.height), pixmap.samples)
    if picture.width > across or picture.height > down:  # MuPDF rounds outwards
        picture = picture.crop((0, 0, min(picture.width, across), min(picture.height, down)))
    return encode(picture, (width, height), began, rendering.form)


def render_picture(
    picture: Image.Image, dpi_across: float, dpi_down: float, rendering: Rendering
) -> PageImage:
    """A decoded image as a page of square pixels, at the size that suits the model."""
    began = time.perf_counter()
    width, height = picture.width * 72 / dpi_across, picture.height * 72 / dpi_down
    size = rendering.target.picture_size(
        picture.width * max(dpi_down / dpi_across, 1.0),
        picture.height * max(dpi_across / dpi_down, 1.0),
    )
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    return encode(picture, (width, height), began, rendering.form)


def encode(
    picture: Image.Image, size_pt: tuple[float, float], began: float, form: Form
) -> PageImage:
    """An RGB picture as the record that engines take; `began` is when rendering started."""
    if form == "rgb":
        data = picture.tobytes()
    else:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=92, subsampling="4:4:4")
        data = buffer.getvalue()
    return PageImage(
        data=data,
        width=picture.width,
        height=picture.height,
        width_pt=size_pt[0],
        height_pt=size_pt[1],
        render_ms=(time.perf_counter() - began) * 1000,
        ink=ink(picture),
        form=form,
    )


def decode(image: PageImage) -> Image.Image:
    """The pixels of a rendered page."""
    if image.form == "rgb":
        return Image.frombytes("RGB", (image.width, image.height), image.data)
    return Image.open(io.BytesIO(image.data), formats=["JPEG"]).convert("RGB")


def turned(image: PageImage, turn: int) -> PageImage:
    """A page's image turned clockwise by 90, 180 or 270; its size in points stays as displayed."""
    began = time.perf_counter()
    picture = decode(image).transpose(_CLOCKWISE[turn])
    return encode(picture, (image.width_pt, image.height_pt), began, image.form)


_CLOCKWISE = {
    90: Image.Transpose.ROTATE_270,
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_90,
}


def crop_webp(picture: Image.Image) -> bytes:
    """A cropped figure as WebP."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, format="WEBP", quality=80, method=2)
    return buffer.getvalue()
