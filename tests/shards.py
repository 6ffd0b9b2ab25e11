"""Shards, what is found in their documents, and pages that tests make up."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from schemas.errors import ErrorCode
from schemas.records import Block, DocumentFacts, PageResult, PlannedDocument, Shard
from tasks.collect import Standing
from tasks.media import ZIP

DAY = date(2026, 3, 1)

Content = int | tuple[int, ...]
"""What is in a planned document: so many pages, or an archive of members of so many pages each.

A document or member of 0 pages is one that cannot be read."""


def shard_of(contents: Sequence[Content]) -> Shard:
    documents = tuple(
        PlannedDocument(f"d{number}", f"/in/{number}", "1", 10, 0)
        for number in range(len(contents))
    )
    return Shard("run-00001", "run", DAY, documents)


def facts_of(page_count: int, sha256: str = "abc") -> DocumentFacts:
    if page_count == 0:
        return DocumentFacts(error_code=ErrorCode.CORRUPT, error_message="no")
    return DocumentFacts(sha256, "application/pdf", 10, page_count, page_count)


def standings_of(shard: Shard, index: int, content: Content, sha256: str = "abc") -> list[Standing]:
    """A planned document as it stands in its shard: one, or an archive's members and itself."""
    planned = shard.documents[index]
    if isinstance(content, int):
        facts = facts_of(content, sha256)
        return [Standing((index, 0), planned.document_id, planned.uri, facts)]
    members = [
        Standing(
            place=(index, member),
            document_id=f"{planned.document_id}.{member}",
            source_uri=f"{planned.uri}!/{member}",
            facts=facts_of(page_count, f"{sha256}.{member}"),
            closes=False,
            container_sha256=sha256,
        )
        for member, page_count in enumerate(content)
    ]
    facts = DocumentFacts(sha256, ZIP, 10)
    return [*members, Standing((index, len(content)), planned.document_id, planned.uri, facts)]


def page_of(standing: Standing, number: int, worker: str) -> PageResult:
    """A page as `worker` read it; some have blocks, and some of those a figure."""
    blocks = tuple(
        Block("text", "text", f"{standing.place}/{number}/{n} by {worker}", (1.0, 2.0, 3.0, 4.0))
        for n in range((sum(standing.place) + number) % 3)
    )
    uri = f"figures/{standing.document_id}/{number}-1.webp"
    if len(blocks) == 2:
        blocks = (Block("figure", "image", blocks[0].text, None, figure_uri=uri), blocks[1])
    return PageResult(
        standing.document_id,
        standing.source_uri,
        number,
        "ok" if blocks else "empty",
        text=f"page {number} of {standing.facts.content_sha256}",
        engine=worker,
        blocks=blocks,
        figures={uri: b"picture"} if len(blocks) == 2 else {},
    )
