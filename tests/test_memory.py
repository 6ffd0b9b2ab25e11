"""Memory depends on the window, not on the length of a document."""

from __future__ import annotations

from pathlib import Path

from tests.bench import ingest, memory_of
from tests.documents import write_pdf


def test_memory_is_flat_over_a_long_document(tmp_path: Path) -> None:
    book = write_pdf(tmp_path / "source" / "book.pdf", 200)
    first, second, last = memory_of(lambda: ingest(book, tmp_path / "lake"))
    assert last < 1.1 * max(first, second)
    assert max(first, second, last) < 1000
