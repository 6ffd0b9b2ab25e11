"""Documents that tests make."""

from __future__ import annotations

from pathlib import Path

import pymupdf

WORDS = (
    "The ferry to the island leaves from the northern pier every morning after the post has come."
)


def write_pdf(path: Path, pages: int = 1, text: str = WORDS) -> Path:
    """A PDF whose every page says `text` and its own number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = pymupdf.open()
    for number in range(1, pages + 1):
        page = document.new_page(width=400, height=300)
        page.insert_textbox((40, 40, 360, 260), f"{text} This is page {number}.")
    document.save(path)
    return path
