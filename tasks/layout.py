"""Where the regions of a page are and what they are, by PyMuPDF's layout network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pymupdf

# Importing this also activates the layout network (a packaged ONNX model, no downloads).
from pymupdf4llm.helpers.document_layout import LayoutBox, parse_document

from schemas.records import Box
from tasks.tables import Rows, rows_from_html

KIND_OF_LABEL = {
    "title": "title",
    "section-header": "section_header",
    "text": "text",
    "list-item": "list_item",
    "table": "table",
    "picture": "figure",
    "caption": "caption",
    "formula": "formula",
    "footnote": "footnote",
    "page-header": "page_header",
    "page-footer": "page_footer",
}
"""Labels of the layout network, by our names; any other label is kept and called `other`."""


@dataclass(frozen=True, slots=True)
class Region:
    """One region of a page. `level` is 1 to 6 for headings, else 0; `rows` are the text of a
    table's cells, `cells` their boxes.
    """

    kind: str
    label: str
    box: Box
    level: int = 0
    rows: Rows | None = None
    cells: Sequence[Sequence[Box | None]] = ()
    html: str | None = None


def regions(document: pymupdf.Document) -> list[Region]:
    """The regions of a one-page PDF in reading order, over the page as displayed.

    The page's /Rotate is undone in `document` on the way.
    """
    page = document.load_page(0)
    page.remove_rotation()
    page.get_layout(return_raw=True)
    has_table = any(found["class_name"] == "table" for found in page.layout_information or ())
    # parse_document would load the page anew and run the network a second time. Table HTML costs
    # another look at the page, so it is asked for only where the network saw a table.
    document.load_page = lambda _: page
    page.get_layout = lambda **_: None
    try:
        parsed = parse_document(document, pages=[0], use_ocr=0, render_html_tables=has_table)
    finally:
        # Else document and page would hold each other, and megabytes of MuPDF's with them.
        del document.load_page
    return [_region(box) for box in parsed.pages[0].boxes]


def single_page(document: pymupdf.Document, page_number: int) -> pymupdf.Document:
    """A document of one page, so that work on it costs the same however long the original is."""
    single = pymupdf.open()
    single.insert_pdf(
        document, from_page=page_number - 1, to_page=page_number - 1, links=False, annots=True
    )
    return single


def _region(found: LayoutBox) -> Region:
    kind = KIND_OF_LABEL.get(found.boxclass, "other")
    rows, html = _table(found.table) if found.table else (None, None)
    cells = (found.table.get("cells") if found.table else None) or ()
    return Region(
        kind=kind,
        label=found.boxclass,
        box=(float(found.x0), float(found.y0), float(found.x1), float(found.y1)),
        level=found.header_level or 0,
        rows=rows,
        cells=cells,
        html=html,
    )


def _table(table: dict[str, Any]) -> tuple[Rows, str | None]:
    if table.get("html"):
        return rows_from_html(table["html"]), table["html"]
    return [[cell or "" for cell in row] for row in table.get("extract") or ()], None
