"""What an OCR model said of a page, as blocks with boxes and as Markdown.

Two kinds of output: with grounding (`tasks.refs`), as DeepSeek-OCR speaks when asked for Markdown,
for text with boxes or for a place; and plain Markdown. Never raises, for any text; takes time
linear in its length.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from schemas.records import Block, Box, ParsedPage
from tasks.markdown import RUNNING_HEADS, page_text
from tasks.modelgrid import around, boxes_from_grid
from tasks.modeltext import Part, code_parts, literal_part, parts, together
from tasks.refs import Ref, Run, read
from tasks.storable import clean
from tasks.turn import unturn_block, upright_size

_LABELS_OF_KIND = {
    "title": "title doc_title",
    "section_header": "sub_title subtitle section_header paragraph_title heading",
    "text": "text paragraph plain_text abstract reference references",
    "list_item": "list list_item",
    "table": "table",
    "figure": "image figure picture photo chart",
    "caption": "caption image_caption figure_caption table_caption chart_caption code_caption",
    "formula": "equation formula isolate_formula",
    "footnote": "footnote page_footnote image_footnote figure_footnote table_footnote",
    "page_header": "header page_header",
    "page_footer": "footer page_footer page_number",
    "code": "code code_block algorithm",
}

KIND_OF_LABEL = {
    label: kind for kind, labels in _LABELS_OF_KIND.items() for label in labels.split()
}
"""Labels of OCR models, by our names; any other label is kept and called `other`."""

OCR_LABEL = "ocr"
"""Label of a block whose ref held the text itself."""

FLAGS = {
    "box_mended": "a box reached out of the page or stood on its head",
    "box_dropped": "a box was no box on this page, and its block has none or fewer",
    "box_missing": "a ref came without a box",
    "unclosed_ref": "a ref was not closed, or the output ends in it",
    "unclosed_det": "a box was not closed, or the output ends in it",
    "stray_text": "there is text before the first ref",
    "unmatched_refs": "refs followed each other, and their texts could not be told apart",
    "overlong": "there are more lines than any page has, the last of them in one block",
    "empty_block": "a ref had no text and was left out",
}
"""What this parser notices of an output, in the order in which it says so."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A block and its Markdown, which for a figure is without the figure itself."""

    block: Block
    markdown: str


@dataclass(frozen=True, slots=True)
class Pieces:
    """An output taken apart, in its order. `flags` are of `FLAGS`."""

    pieces: tuple[Piece, ...]
    flags: tuple[str, ...] = ()


def pieces(raw: str, width_pt: float, height_pt: float, turn: int = 0) -> Pieces:
    """The blocks of one page.

    Args:
        raw: what the model said.
        width_pt: of the page as displayed, in points.
        height_pt: likewise.
        turn: the clockwise turn, 0, 90, 180 or 270, that was undone before the model saw the page.

    Returns:
        Pieces with boxes over the page as displayed. A label is the model's own; `ocr` where the
        ref holds the text itself, `stray` before the first ref, and the name of the Markdown
        structure where there are no refs.
    """
    spoken = read(clean(raw).replace("\r\n", "\n").replace("\r", "\n"))
    flags = set(spoken.flags)
    made: list[Piece] = []
    before = parts(spoken.before)
    flags.update("overlong" for part in before if part.label == "rest")
    if not spoken.runs:
        made.extend(_piece(part.kind, part.label, [part], ()) for part in before)
    elif before:
        flags.add("stray_text")
        made.append(_piece("text", "stray", before, ()))
    upright = upright_size(width_pt, height_pt, turn)
    for kind, label, ref, text in _told(spoken.runs, spoken.cut_ref, flags):
        body = _literal(text) if label == OCR_LABEL else _body(kind, text)
        flags.update("overlong" for part in body if part.label == "rest")
        if not body and kind != "figure":
            flags.add("empty_block")
            continue
        boxes, noticed = boxes_from_grid(ref.numbers, *upright)
        flags.update(noticed)
        piece = _piece(kind, label, body, boxes)
        block = unturn_block(piece.block, width_pt, height_pt, turn)
        made.append(Piece(block, piece.markdown))
    return Pieces(tuple(made), tuple(name for name in FLAGS if name in flags))


def page(pieces: Pieces, parser_version: str) -> ParsedPage:
    """The page of these pieces. A figure is shown where its block has a `figure_uri`."""
    blocks = tuple(piece.block for piece in pieces.pieces)
    shown: list[tuple[str, str]] = []
    for piece in pieces.pieces:
        if piece.block.kind in RUNNING_HEADS:
            continue
        if piece.block.figure_uri:
            shown.append((piece.block.kind, f"![]({piece.block.figure_uri})"))
        shown.append((piece.block.kind, piece.markdown))
    return ParsedPage(
        parser_version=parser_version,
        markdown=together(shown),
        text=page_text(blocks),
        blocks=blocks,
        flags=pieces.flags,
    )


_A_LABEL = re.compile(r"[a-z_]{1,32}")
_CELL = re.compile(r"<t[rdh][\s>]", re.I)
_BLANK_LINE = re.compile(r"\n\s*\n")
_HEADING_MARKS = {"title": "#", "section_header": "##"}
_MATHS = ("$", "\\(", "\\[")

_Told = tuple[str, str, Ref, str]
"""Kind, label, ref, and what is said of it."""


def _told(runs: Sequence[Run], cut_ref: bool, flags: set[str]) -> Iterator[_Told]:
    names = [ref.name for run in runs for ref in run.refs if ref.name]
    labels = sum(_A_LABEL.fullmatch(name) is not None for name in names)
    if not any(run.text for run in runs) and labels < len(names) - labels:
        # Every word stands in a ref: one that reads like a label is a word all the same.
        for ref in (ref for run in runs for ref in run.refs):
            yield "text", OCR_LABEL, ref, ref.name
        return
    last = runs[-1].refs[-1] if runs else None
    for run in runs:
        for ref, text in _with_texts(run, flags):
            if ref is last and cut_ref and not text and _is_cut_label(ref.name):
                continue
            kind = KIND_OF_LABEL.get(ref.name)
            if kind:
                yield kind, ref.name, ref, text
            elif not ref.name:
                yield "text", "", ref, text
            elif text and _A_LABEL.fullmatch(ref.name):
                yield "other", ref.name, ref, text
            else:
                yield "text", OCR_LABEL, ref, f"{ref.name}\n{text}" if text else ref.name


def _is_cut_label(name: str) -> bool:
    return any(label.startswith(name) for label in KIND_OF_LABEL)


def _with_texts(run: Run, flags: set[str]) -> Iterable[tuple[Ref, str]]:
    """Each ref of a run with its text.

    Of several refs those that name figures have none, nor those that hold a text themselves. If
    there are as many paragraphs, or else lines, as other refs, each has its own; if not, all is
    said of the last of them.
    """
    said = run.text.strip()
    if len(run.refs) == 1:
        return [(run.refs[0], said)]
    texts = [""] * len(run.refs)
    waiting = [number for number, ref in enumerate(run.refs) if _awaits_text(ref.name)]
    waiting = waiting or [len(run.refs) - 1]
    stretches = _BLANK_LINE.split(said)
    if len(stretches) != len(waiting):
        stretches = [line for line in said.split("\n") if line]
    if len(stretches) == len(waiting):
        for number, stretch in zip(waiting, stretches, strict=True):
            texts[number] = stretch
    else:
        texts[waiting[-1]] = said
        if said:
            flags.add("unmatched_refs")
    return zip(run.refs, texts, strict=True)


def _awaits_text(name: str) -> bool:
    if not name:
        return True
    return _A_LABEL.fullmatch(name) is not None and KIND_OF_LABEL.get(name) != "figure"


def _literal(text: str) -> list[Part]:
    return [literal_part(text)] if text else []


def _body(kind: str, text: str) -> list[Part]:
    """What is said of a ref, as Markdown of its kind."""
    if kind == "table" and "<table" not in text.lower():
        cell = _CELL.search(text)
        if cell:
            text = f"{text[: cell.start()]}<table>{text[cell.start() :]}"
    found = parts(text)
    if kind == "code" and not any(part.kind == "code" for part in found):
        return code_parts(text)
    if kind == "formula" and found and not any(mark in text for mark in _MATHS):
        return parts(f"$$\n{text.strip()}\n$$")
    if kind in _HEADING_MARKS and found and found[0].label in ("paragraph", "list"):
        return parts(f"{_HEADING_MARKS[kind]} {text.strip()}")
    return found


def _piece(kind: str, label: str, said: Sequence[Part], boxes: tuple[Box, ...]) -> Piece:
    tables = [part.html for part in said if part.html]
    if kind == "text" and len(tables) == len(said) == 1:
        kind = "table"
    block = Block(
        kind=kind,
        label=label,
        text=together([(part.kind, part.text) for part in said]),
        box=around(boxes) if boxes else None,
        html="".join(tables) or None if kind == "table" else None,
        boxes=boxes,
    )
    return Piece(block, together([(part.kind, part.markdown) for part in said]))
