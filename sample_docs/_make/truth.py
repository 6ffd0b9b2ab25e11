"""What each sample document says, page by page, and whether a digital PDF really says it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pymupdf


@dataclass
class TableTruth:
    """One table: its rows of cell texts and the body entry it follows (-1: none)."""

    rows: list[list[str]]
    after: int


@dataclass
class PageTruth:
    """One page as a careful human reader would write it down."""

    page: int
    kind: str
    columns: int = 1
    turn: int = 0
    header: list[str] = field(default_factory=list)
    footer: list[str] = field(default_factory=list)
    body: list[str] = field(default_factory=list)
    tables: list[TableTruth] = field(default_factory=list)
    figures: int = 0

    def add_table(self, rows: list[list[str]]) -> None:
        """Record a table standing after the latest body entry."""
        self.tables.append(TableTruth(rows, len(self.body) - 1))

    def as_json(self) -> dict[str, object]:
        """The page with `kind` under its published name, `class`."""
        row = asdict(self)
        page = {"page": row.pop("page"), "class": row.pop("kind")}
        return page | row


def write_truth(folder: Path, file: str, language: str, pages: list[PageTruth]) -> None:
    """Write the truth of one document as `<file>.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {"file": file, "language": language, "pages": [page.as_json() for page in pages]}
    text = json.dumps(record, ensure_ascii=False, indent=1)
    (folder / f"{file}.json").write_text(text + "\n", encoding="utf-8")


def missing_strings(pdf: Path, pages: list[PageTruth]) -> list[str]:
    """Truth strings that the text layer of a digital PDF does not hold on their page."""
    missing = []
    with pymupdf.open(pdf) as document:
        if len(document) != len(pages):
            missing.append(f"{pdf.name}: {len(document)} pages, truth has {len(pages)}")
        for truth in pages:
            printed = _squeeze(document[truth.page - 1].get_text())
            cells = [cell for table in truth.tables for row in table.rows for cell in row]
            for wanted in truth.header + truth.body + cells + truth.footer:
                if _squeeze(wanted) not in printed:
                    missing.append(f"{pdf.name} page {truth.page}: {wanted!r}")
    return missing


def _squeeze(text: str) -> str:
    return " ".join(text.split())
