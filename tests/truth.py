"""The truth of sample_docs beside what a lake says of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rapidfuzz.distance import Levenshtein

from tasks.tables import rows_from_html

TRUTHS = Path(__file__).parent.parent / "sample_docs" / "_make" / "truth"
_ASIDE = ("figure", "page_header", "page_footer")


@dataclass(frozen=True)
class Compared:
    """One page: what is printed on it, and its rows in the lake."""

    file: str
    printed: dict[str, Any]
    page: dict[str, Any]
    blocks: list[dict[str, Any]]

    @property
    def wanted(self) -> str:
        """Everything printed in reading order, without running heads and figures."""
        pieces = list(self.printed["body"])
        for table in sorted(self.printed["tables"], key=lambda table: -table["after"]):
            rows = [" ".join(filter(None, row)) for row in table["rows"]]
            pieces[table["after"] + 1 : table["after"] + 1] = rows
        return one_line(" ".join(pieces))

    @property
    def got(self) -> str:
        """The same of the lake's blocks."""
        return one_line(" ".join(b["text"] for b in self.blocks if b["kind"] not in _ASIDE))

    @property
    def distance(self) -> int:
        """Characters to insert, delete or change to get from one to the other."""
        return Levenshtein.distance(self.got, self.wanted)

    @property
    def tables(self) -> list[list[list[str]]]:
        """Cells of the lake's tables, spaces made one."""
        found = (rows_from_html(b["html"]) for b in self.blocks if b["kind"] == "table")
        return [[[one_line(cell) for cell in row] for row in rows] for rows in found]


def compared(lake: Path) -> Iterator[Compared]:
    """Every page of sample_docs."""
    tables = {
        name: pq.read_table(lake / name, partitioning=None).to_pylist()
        for name in ("pages", "blocks")
    }
    for path in sorted(TRUTHS.glob("*.json")):
        truth = json.loads(path.read_text())
        mine = [p for p in tables["pages"] if p["source_uri"].endswith("/" + truth["file"])]
        assert len(mine) == len(truth["pages"]), truth["file"]
        for page in mine:
            key = (page["document_id"], page["page_number"])
            blocks = [b for b in tables["blocks"] if (b["document_id"], b["page_number"]) == key]
            blocks.sort(key=lambda block: block["block_number"])
            printed = truth["pages"][page["page_number"] - 1]
            yield Compared(truth["file"], printed, page, blocks)


def one_line(text: str) -> str:
    """Text with all white space made single spaces."""
    return re.sub(r"\s+", " ", text).strip()
