"""What stays in the log of a document whose rows are gone: its place, so that the log adds up."""

from __future__ import annotations

from dataclasses import replace

from schemas.records import DocumentFacts, Extent


def blanked(extent: Extent) -> Extent:
    """An extent that says nothing of its document but where it stood and how long it was."""
    member = extent.container_sha256 is not None
    return replace(
        extent,
        document_id="",
        facts=DocumentFacts(page_count=extent.facts.page_count),
        pages_ok=0,
        pages_empty=0,
        pages_failed=0,
        error_code=None,
        error_message=None,
        uri="" if member else None,
        container_sha256="" if member else None,
    )


def is_blank(extent: Extent) -> bool:
    """Whether the rows of its document are gone."""
    return extent.document_id == ""
