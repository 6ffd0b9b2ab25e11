"""Shards and pages that tests make up."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from schemas.errors import ErrorCode
from schemas.records import Block, DocumentFacts, PageResult, PlannedDocument, Shard

DAY = date(2026, 3, 1)


def shard_of(page_counts: Sequence[int]) -> Shard:
    documents = tuple(
        PlannedDocument(f"d{number}", f"/in/{number}.pdf", "1", 10, 0)
        for number in range(len(page_counts))
    )
    return Shard("run-00001", "run", DAY, documents)


def facts_of(page_count: int) -> DocumentFacts:
    if page_count == 0:
        return DocumentFacts(error_code=ErrorCode.CORRUPT, error_message="no")
    return DocumentFacts("abc", "application/pdf", 10, page_count, page_count)


def page_of(shard: Shard, index: int, number: int, worker: str) -> PageResult:
    """A page as `worker` read it; some have blocks, and some of those a figure."""
    planned = shard.documents[index]
    blocks = tuple(
        Block("text", "text", f"{index}/{number}/{n} by {worker}", (1.0, 2.0, 3.0, 4.0))
        for n in range((index + number) % 3)
    )
    uri = f"figures/{planned.document_id}/{number}-1.webp"
    return PageResult(
        planned.document_id,
        planned.uri,
        number,
        "ok" if blocks else "empty",
        text=f"{index}/{number}",
        engine=worker,
        blocks=blocks,
        figures={uri: b"picture"} if len(blocks) == 2 else {},
    )
