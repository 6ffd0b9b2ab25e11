"""Image files as pages: frames, orientation, colours and resolution, by Pillow."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from pillow_heif import register_heif_opener

from schemas.errors import DocumentError, ErrorCode
from tasks.media import PICTURES

register_heif_opener()

MAX_PIXELS = 200_000_000
"""An A0 sheet at 300 dpi has 140 million; more is refused before anything is decoded."""

Image.MAX_IMAGE_PIXELS = None  # ours is checked first, and by number rather than by warning

_DPI_IF_UNSTATED = 96.0
_BROKEN = (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, TypeError)


def open_picture(path: str, media_type: str) -> Image.Image:
    """An image file, not yet decoded; only the decoder of its own type is tried.

    Raises:
        DocumentError: `corrupt` if it cannot be read, `too_large` if it has too many pixels.
    """
    try:
        picture = Image.open(path, formats=[PICTURES[media_type]])
    except _BROKEN as error:
        raise DocumentError(ErrorCode.CORRUPT, f"the image cannot be opened: {error}") from None
    _check_size(picture)
    return picture


def frame_count(picture: Image.Image) -> int:
    """How many pages an image file has: the frames of a TIFF; one for all other types.

    The frames of an animated GIF or WebP are moments, not pages: the first one is read.
    """
    if picture.format != "TIFF":
        return 1
    try:
        return int(getattr(picture, "n_frames", 1))
    except _BROKEN as error:
        raise DocumentError(ErrorCode.CORRUPT, f"the frames cannot be counted: {error}") from None


def decode_frame(picture: Image.Image, number: int) -> tuple[Image.Image, float, float]:
    """A frame (from 1) as upright 8-bit RGB over white, with its horizontal and vertical dpi.

    Raises:
        DocumentError: `corrupt` if the frame is damaged or cut off.
    """
    try:
        picture.seek(number - 1)
        _check_size(picture)
        # Asked before loading: Pillow turns a TIFF as it loads it, and drops the tag.
        on_a_side = picture.getexif().get(0x0112, 1) >= 5
        picture.load()
        across, down = _dpi(picture)
        upright = ImageOps.exif_transpose(picture)
        if on_a_side:
            across, down = down, across
        return _over_white(upright), across, down
    except _BROKEN as error:
        raise DocumentError(
            ErrorCode.CORRUPT, f"frame {number} of the image is damaged: {error}"
        ) from None


def _check_size(picture: Image.Image) -> None:
    if picture.width * picture.height > MAX_PIXELS:
        raise DocumentError(
            ErrorCode.TOO_LARGE,
            f"the image has {picture.width}×{picture.height} pixels, more than {MAX_PIXELS:,}",
        )


def _dpi(picture: Image.Image) -> tuple[float, float]:
    stated = picture.info.get("dpi") or (0, 0)
    across, down = (float(value) for value in stated[:2])
    if not (math.isfinite(across) and math.isfinite(down)) or min(across, down) < 10:
        return _DPI_IF_UNSTATED, _DPI_IF_UNSTATED
    return across, down


def _over_white(picture: Image.Image) -> Image.Image:
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        # Pillow clips these to 255 on conversion; scale by the range that is really used.
        values = np.asarray(picture, dtype=np.float32)
        low, high = float(values.min()), float(values.max())
        if high > low:
            values = (values - low) * (255.0 / (high - low))
        return Image.fromarray(values.clip(0, 255).astype(np.uint8)).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        opaque = picture.convert("RGBA")
        white = Image.new("RGBA", opaque.size, "white")
        return Image.alpha_composite(white, opaque).convert("RGB")
    return picture.convert("RGB")
