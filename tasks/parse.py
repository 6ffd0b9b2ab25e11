"""What was read of a page into Markdown, text and blocks. The lines of the CPU engine and a page's
embedded text meet the same layout; a model's answer brings its own. `PARSER_VERSION` changes
whenever the outcome may."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from statistics import median
from typing import TYPE_CHECKING

import pymupdf
from PIL import Image

from schemas.records import Block, Box, PageImage, PageRef, ParsedPage, Reading
from tasks import grounding, layout, markdown
from tasks.check import Complaint, without_loop
from tasks.compose import compose, inside
from tasks.documents import open_document
from tasks.engines.profiles import Profile, profile_of
from tasks.layout import Region
from tasks.lines import Line, embedded_lines
from tasks.ocrpage import searchable_page
from tasks.readingorder import reading_order
from tasks.render import crop_webp, decode, turned
from tasks.split import load_page
from tasks.turn import turn_box, unturn_block, upright_size

if TYPE_CHECKING:
    from tasks.recognize import Recognized

PARSER_VERSION = "1"

_FIGURE_DPI = 150
_LEAST_FIGURE_PT = 12  # smaller pictures are rules and bullets

Crop = Callable[[Box], Image.Image]
"""Cuts a box, in points of the upright page, out of the page's picture."""


def figure_uri(document_id: str, page_number: int, block_number: int) -> str:
    """Where a figure stands, relative to the lake."""
    return f"figures/{document_id}/{page_number}-{block_number}.webp"


def parse_text_layer(ref: PageRef, with_layout: bool) -> ParsedPage:
    """A page by its embedded text. Runs in a worker process.

    Raises:
        DocumentError: the page cannot be loaded.
    """
    pdf = open_document(ref.document).pdf
    assert pdf is not None
    page = load_page(pdf, ref.page_number)
    lines = embedded_lines(page)
    if not with_layout:
        return _text_alone(lines)  # in the file's own order
    try:
        single = layout.single_page(pdf, ref.page_number)
    except (RuntimeError, ValueError):  # the file is too damaged to take a page out of it
        return replace(_text_alone(lines), flags=("layout_failed",))
    with single:
        found, flags = _regions(single)

        def crop(box: Box) -> Image.Image:
            pixmap = single[0].get_pixmap(clip=pymupdf.Rect(box), dpi=_FIGURE_DPI, alpha=False)
            return Image.frombytes("RGB", (pixmap.width, pixmap.height), pixmap.samples)

        parsed = _assemble(lines, found, (page.rect.width, page.rect.height), 0, ref, crop)
    return replace(parsed, flags=flags)


def parse_page(
    raw: str, profile: Profile | str, width_pt: float, height_pt: float, turn: int = 0
) -> ParsedPage:
    """A page by what a model answered about its image.

    Args:
        raw: the answer, word for word. Anything will do: this never raises for it.
        profile: the model, or its name.
        width_pt: of the page as displayed, in points.
        height_pt: likewise.
        turn: the clockwise turn, 0, 90, 180 or 270, that was undone before the model saw the page.

    Returns:
        Markdown, text, blocks with boxes over the page as displayed, and flags. Figures have no
        pictures yet: those are cut out where the image is, see `parse_answer`.

    Raises:
        UsageError: there is no profile of that name.
    """
    known = profile_of(profile) if isinstance(profile, str) else profile
    return grounding.page(known.parser(raw, width_pt, height_pt, turn), PARSER_VERSION)


def parse_answer(recognized: Recognized, ref: PageRef, with_layout: bool) -> ParsedPage:
    """A page by a model's answer, its figures cut out of the image. Runs in a worker process.

    Of an answer that goes round in circles the first round is parsed.
    """
    reading, image = recognized.reading, recognized.image
    assert recognized.parser is not None
    loops = recognized.complaint is Complaint.LOOP
    raw = without_loop(reading.raw) if loops else reading.raw
    size = (image.width_pt, image.height_pt)
    found = recognized.parser(raw, *size, reading.turn)
    if not with_layout:
        return replace(grounding.page(found, PARSER_VERSION), blocks=())
    crop = _crop_of(image, upright_size(*size, reading.turn))
    shown, figures = [], dict[str, bytes]()
    for number, piece in enumerate(found.pieces, start=1):
        block = piece.block
        if block.kind == "figure" and block.box and _is_visible(block.box):
            uri = figure_uri(ref.document_id, ref.page_number, number)
            figures[uri] = crop_webp(crop(turn_box(block.box, *size, reading.turn)))
            piece = replace(piece, block=replace(block, figure_uri=uri))
        shown.append(piece)
    parsed = grounding.page(replace(found, pieces=tuple(shown)), PARSER_VERSION)
    return replace(parsed, figures=figures)


def parse_lines(reading: Reading, image: PageImage, ref: PageRef, with_layout: bool) -> ParsedPage:
    """A page by what the CPU engine read of its image. Runs in a worker process."""
    turn = reading.turn
    width, height = upright_size(image.width_pt, image.height_pt, turn)
    lines = lines_of(reading.raw, width, height)
    if not with_layout:
        return _text_alone([lines[i] for i in reading_order([line.box for line in lines])])
    upright = turned(image, turn) if turn else image
    with searchable_page(upright.data, lines, width, height) as single:
        found, flags = _regions(single)
    crop = _crop_of(upright, (width, height))
    parsed = _assemble(lines, found, (image.width_pt, image.height_pt), turn, ref, crop)
    return replace(parsed, flags=flags)


def _crop_of(image: PageImage, size: tuple[float, float]) -> Crop:
    """Cuts boxes out of an image that shows an upright page of so many points."""
    across, down = image.width / size[0], image.height / size[1]
    pixels = cache(lambda: decode(image))

    def crop(box: Box) -> Image.Image:
        x0, y0, x1, y1 = box
        return pixels().crop(
            (int(x0 * across), int(y0 * down), round(x1 * across), round(y1 * down))
        )

    return crop


def lines_of(raw: str, width: float, height: float) -> list[Line]:
    """The lines that the CPU engine's raw answer holds, in points of the upright page."""
    answer = json.loads(raw)
    across, down = width / answer["width"], height / answer["height"]
    slant = _slant([corners for _, _, corners in answer["lines"]]) * down / across
    lines = []
    for text, confidence, corners in answer["lines"]:
        xs, ys = [x * across for x, _ in corners], [y * down for _, y in corners]
        x0, x1, y0, y1 = min(xs), max(xs), min(ys), max(ys)
        if x1 - x0 > y1 - y0:
            # A slanting line is no taller for it: its own height, about its middle.
            middle, half = (y0 + y1) / 2, abs(ys[3] - ys[0] + ys[2] - ys[1]) / 4
            y0, y1 = middle - half, middle + half
        box = inside((x0, y0, x1, y1), width, height)
        if box is not None and text.strip():
            lines.append(Line(text.strip(), box, confidence, slant=slant))
    return lines


def _slant(quads: Sequence[Sequence[Sequence[int]]]) -> float:
    """How far the lines of a page fall a pixel to the right: the median over its longer lines."""
    sides = [(right[0] - left[0], right[1] - left[1]) for left, right, *_ in quads]
    long = sorted(side for side in sides if side[0] > 0)[len(sides) // 2 :]
    return median(fall / run for run, fall in long) if long else 0.0


def _regions(single: pymupdf.Document) -> tuple[Sequence[Region], tuple[str, ...]]:
    """The regions of a one-page document; none, and a flag, if the layout network fails on it.

    Any error it can raise is its own: the page's text is there all the same.
    """
    try:
        return layout.regions(single), ()
    except Exception:
        return (), ("layout_failed",)


def _assemble(
    lines: Sequence[Line],
    found: Sequence[Region],
    size: tuple[float, float],
    turn: int,
    ref: PageRef,
    crop: Crop,
) -> ParsedPage:
    """Blocks, figures, text and Markdown; `size` is of the page as displayed."""
    blocks: list[Block] = []
    levels: list[int] = []
    figures: dict[str, bytes] = {}
    for number, (block, level) in enumerate(
        compose(lines, found, *upright_size(*size, turn)), start=1
    ):
        if block.kind == "figure" and block.box and _is_visible(block.box):
            uri = figure_uri(ref.document_id, ref.page_number, number)
            figures[uri] = crop_webp(crop(block.box))
            block = replace(block, figure_uri=uri)
        blocks.append(unturn_block(block, *size, turn))
        levels.append(level)
    return ParsedPage(
        parser_version=PARSER_VERSION,
        markdown=markdown.page_markdown(list(zip(blocks, levels, strict=True))),
        text=markdown.page_text(blocks),
        blocks=tuple(blocks),
        figures=figures,
    )


def _is_visible(box: Box) -> bool:
    return min(box[2] - box[0], box[3] - box[1]) >= _LEAST_FIGURE_PT


def _text_alone(lines: Sequence[Line]) -> ParsedPage:
    return ParsedPage(PARSER_VERSION, markdown="", text="\n".join(line.text for line in lines))
