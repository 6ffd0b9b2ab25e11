"""Blocks as Markdown and as plain text, without the page's running heads."""

from __future__ import annotations

import re
from collections.abc import Sequence

from schemas.records import Block
from tasks.tables import markdown_from_rows, rows_from_html

RUNNING_HEADS = ("page_header", "page_footer")

_NUMBERED = re.compile(r"^(\(?[0-9]{1,3}[.)]|\(?[a-zA-Z][.)])\s")
_BULLET = re.compile(r"^([•◦▪●■‣·∙○\uf0b7\uf0a7]\s*|[-–—*]\s+)")
_STRUCTURAL = re.compile(r"^(#{1,6}(?=\s|$)|>|[-+*](?=\s)|```|~~~|\||([-*_]\s*){3,}$)", re.M)
_LIKE_A_NUMBER = re.compile(r"^(\d{1,9})([.)]\s)", re.M)
_FENCE = re.compile(r"`{3,}")


def page_markdown(blocks: Sequence[tuple[Block, int]]) -> str:
    """The page as Markdown; blocks come with their heading level (0: that of their kind)."""
    pieces: list[str] = []
    previous = ""
    for block, level in blocks:
        if block.kind in RUNNING_HEADS:
            continue
        piece = _markdown(block, level)
        if not piece:
            continue
        together = block.kind == previous == "list_item"
        pieces.append(("\n" if together else "\n\n") + piece)
        previous = block.kind
    return "".join(pieces).lstrip("\n")


def page_text(blocks: Sequence[Block]) -> str:
    """The page as plain text: the words of all blocks but the running heads."""
    return "\n\n".join(
        block.text for block in blocks if block.kind not in RUNNING_HEADS and block.text
    )


def _markdown(block: Block, level: int) -> str:
    if block.kind == "title":
        return f"{'#' * (level or 1)} {block.text}"
    if block.kind == "section_header":
        return f"{'#' * (level or 2)} {block.text}"
    if block.kind == "list_item":
        return block.text if _NUMBERED.match(block.text) else f"- {_BULLET.sub('', block.text)}"
    if block.kind == "table" and block.html:
        return markdown_from_rows(rows_from_html(block.html))
    if block.kind == "figure":
        link = f"![]({block.figure_uri})" if block.figure_uri else ""
        return "\n\n".join(piece for piece in (link, _escaped(block.text)) if piece)
    if block.kind == "formula":
        return f"$$\n{block.text}\n$$"
    if block.kind == "code":
        fence = "`" * max((len(run) + 1 for run in _FENCE.findall(block.text)), default=3)
        return f"{fence}\n{block.text}\n{fence}"
    if block.kind == "footnote":
        return f"> {block.text}"
    return _escaped(block.text)


def _escaped(text: str) -> str:
    """Text that does not read as a heading, list, quote, table or rule."""
    return _LIKE_A_NUMBER.sub(r"\1\\\2", _STRUCTURAL.sub(r"\\\g<0>", text))
