"""Makes scans, faxes and phone photos out of cleanly set pages."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pymupdf
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
FAX_DPI = (204, 196)
FAX_WIDTH = 1728
ORIENTATION_TAG = 0x0112


def render(page: pymupdf.Page, dpi: tuple[int, int], gray: bool = True) -> Pixels:
    """The page as gray or RGB pixels."""
    matrix = pymupdf.Matrix(dpi[0] / 72, dpi[1] / 72)
    pixmap = page.get_pixmap(matrix=matrix, colorspace="GRAY" if gray else "RGB")
    shape = (pixmap.height, pixmap.width) if gray else (pixmap.height, pixmap.width, 3)
    return np.frombuffer(pixmap.samples, np.uint8).reshape(shape).copy()


def scan(page: pymupdf.Page, dpi: int, skew: float, rng: np.random.Generator) -> Pixels:
    """The page as a flatbed scanner in an office returns it: skewed, toned, soft and grainy."""
    clean = render(page, (dpi, dpi)).astype(np.float32)
    height, width = clean.shape
    turned = cv2.warpAffine(
        clean,
        cv2.getRotationMatrix2D((width / 2, height / 2), skew, 1),
        (width, height),
        flags=cv2.INTER_CUBIC,
        borderValue=255,
    )
    soft = cv2.GaussianBlur(turned, (0, 0), 0.55 * dpi / 150)
    paper = 236 + 5 * _clouds((height, width), 9, rng)
    # The lid never closes fully along the spine, so one edge comes out darker.
    edge = 26 * np.exp(-np.arange(width, dtype=np.float32) / (0.012 * width))
    ink = 48.0
    toned = ink + (paper - edge - ink) * soft / 255
    grain = cv2.GaussianBlur(rng.normal(0, 5, clean.shape).astype(np.float32), (0, 0), 0.6)
    return _bytes(toned + grain)


def jpeg(pixels: Pixels, dpi: int, quality: int) -> bytes:
    """The pixels as a JPEG file that knows its resolution."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, dpi=(dpi, dpi), optimize=True)
    return buffer.getvalue()


def image_pdf(scans: list[Pixels], dpi: int, quality: int) -> pymupdf.Document:
    """A PDF that holds nothing but one JPEG on each page."""
    document = pymupdf.open()
    for pixels in scans:
        height, width = (side * 72 / dpi for side in pixels.shape)
        page = document.new_page(width=width, height=height)
        page.insert_image(page.rect, stream=jpeg(pixels, dpi, quality))
    return document


def save_fax(path: Path, document: pymupdf.Document, rng: np.random.Generator) -> None:
    """All pages in one TIFF with Group 4 compression and the unequal resolution of a fax."""
    frames = []
    for page in document:
        pixels = render(page, FAX_DPI)[:, :FAX_WIDTH].astype(np.float32)
        rough = cv2.GaussianBlur(pixels, (0, 0), 0.8) + rng.normal(0, 22, pixels.shape)
        bits = rough > 150
        specks = rng.random(pixels.shape)
        bits[specks < 0.0006] = False
        bits[specks > 0.9994] = True
        # A speck on the sender's scanner glass draws a line along the paper's whole way.
        bits[:, 1583] &= rng.random(pixels.shape[0]) < 0.35
        frames.append(Image.fromarray(bits))
    frames[0].save(path, save_all=True, append_images=frames[1:], compression="group4", dpi=FAX_DPI)


def save_photo(path: Path, page: pymupdf.Page, rng: np.random.Generator) -> None:
    """A phone photo of the page on a wooden table, stored lying with EXIF Orientation 6."""
    height, width = 1600, 1200
    paper = render(page, (230, 230), gray=False).astype(np.float32)
    paper = 24 + paper * np.array([0.87, 0.85, 0.80], np.float32)
    paper_height, paper_width = paper.shape[:2]
    corners = np.array(
        [[0, 0], [paper_width, 0], [paper_width, paper_height], [0, paper_height]], np.float32
    )
    on_table = np.array([[232, 128], [948, 164], [1012, 1462], [170, 1430]], np.float32)
    warp = cv2.getPerspectiveTransform(corners, on_table)
    laid = cv2.warpPerspective(paper, warp, (width, height), flags=cv2.INTER_AREA)
    mask = cv2.warpPerspective(
        np.ones((paper_height, paper_width), np.float32), warp, (width, height)
    )
    table = _table_top(height, width, rng)
    shadow = cv2.GaussianBlur(np.roll(mask, (14, 18), axis=(0, 1)), (0, 0), 14)
    table *= 1 - 0.45 * shadow[..., None]
    scene = table * (1 - mask[..., None]) + laid * mask[..., None]
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    distance = np.hypot((columns - 380) / width, (rows - 330) / height)
    light = (1.08 - 0.42 * distance)[..., None]
    soft = cv2.GaussianBlur(scene * light, (0, 0), 0.9)
    upright = _bytes(soft + rng.normal(0, 3.2, soft.shape))
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 6
    lying = Image.fromarray(np.rot90(upright, 1))
    lying.save(path, "JPEG", quality=80, exif=exif, optimize=True)


def _table_top(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float32]:
    fine = cv2.resize(rng.normal(0, 1, (height // 3, 10)).astype(np.float32), (width, height))
    broad = cv2.resize(
        rng.normal(0, 1, (14, 4)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    grain = 9 * fine + 10 * broad
    for seam in (410, 905, 1390):
        grain[seam : seam + 4] -= 55
    return np.array([139, 98, 62], np.float32) + grain[..., None]


def _clouds(shape: tuple[int, int], cells: int, rng: np.random.Generator) -> NDArray[np.float32]:
    coarse = rng.normal(0, 0.5, (cells, cells)).astype(np.float32)
    return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)


def _bytes(values: NDArray[np.float32]) -> Pixels:
    return np.clip(values, 0, 255).astype(np.uint8)
