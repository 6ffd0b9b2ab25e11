"""Records as rows of the lake's tables, and back."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import TRANSIENT, ErrorCode
from schemas.records import (
    Block,
    DocumentFacts,
    Extent,
    PageResult,
    Place,
    PlannedDocument,
    Shard,
)
from schemas.tables import BLOCKS, DOCUMENTS, PAGES
from tasks.blank import is_blank
from tasks.media import ARCHIVES

_ROW_GROUP_PAGES = 2_000
_ROW_GROUP_BLOCKS = 50_000
_SAME_NAMES = [
    name for name in PAGES.names if name not in ("flags", "source_uri", "run_id", "shard_id")
]


def pages_table(pages: Iterable[PageResult], shard: Shard) -> pa.Table:
    """The `pages` rows of a part."""
    rows = []
    for page in pages:
        row = {name: getattr(page, name) for name in _SAME_NAMES}
        row["source_uri"] = storable(page.source_uri)
        row["flags"] = list(page.flags)
        rows.append(row | {"run_id": shard.run_id, "shard_id": shard.shard_id})
    return pa.Table.from_pylist(rows, schema=PAGES)


def blocks_table(pages: Iterable[PageResult], shard: Shard) -> pa.Table:
    """The `blocks` rows of a part."""
    rows = [
        _block_row(page, number, block) | {"run_id": shard.run_id, "shard_id": shard.shard_id}
        for page in pages
        for number, block in enumerate(page.blocks, start=1)
    ]
    return pa.Table.from_pylist(rows, schema=BLOCKS)


def documents_table(
    shard: Shard, extents: Mapping[Place, Sequence[Extent]], recipe_id: str
) -> pa.Table:
    """The `documents` rows of the documents that stand in `extents`, in the order of their places.

    An archive's own row follows those of its members, and fails with them. What has been forgotten
    has none.
    """
    rows: list[dict[str, Any]] = []
    members: list[dict[str, Any]] = []
    for place in sorted(extents):
        first = extents[place][0]
        if place[1] == 0:
            members = []
        if is_blank(first):
            continue
        row = _document_row(planned_of(shard, first), extents[place], recipe_id)
        if first.closes and (place[1] > 0 or first.facts.media_type in ARCHIVES):
            _fail_with(row, members)
        row |= {"run_id": shard.run_id, "shard_id": shard.shard_id}
        members.append(row)
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=DOCUMENTS)


def planned_of(shard: Shard, extent: Extent) -> PlannedDocument:
    """The document that an extent is of: as planned, or the member of an archive."""
    planned = shard.documents[extent.index]
    if extent.uri is None:
        return planned
    return replace(
        planned,
        document_id=extent.document_id,
        uri=extent.uri,
        size_bytes=extent.facts.source_bytes or 0,
    )


def parquet(table: pa.Table, metadata: Mapping[str, str] | None = None) -> bytes:
    """A table as the bytes of a Parquet file, with further key-value metadata in its footer."""
    if metadata:
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), **metadata})
    sink = io.BytesIO()
    wide = "block_number" in table.schema.names
    pq.write_table(
        table,
        sink,
        compression="zstd",
        row_group_size=_ROW_GROUP_BLOCKS if wide else _ROW_GROUP_PAGES,
    )
    return sink.getvalue()


def pages_from(pages: pa.Table, blocks: pa.Table) -> list[PageResult]:
    """The records that rows of `pages` and their rows of `blocks` were made from.

    Figures are not read back: they stand in the store under their `figure_uri`.
    """
    grouped: dict[tuple[str, int], list[Block]] = {}
    order = [(column, "ascending") for column in ("document_id", "page_number", "block_number")]
    for row in blocks.sort_by(order).to_pylist():
        grouped.setdefault((row["document_id"], row["page_number"]), []).append(_block_from(row))
    results = []
    for row in pages.to_pylist():
        told = {name: row[name] for name in _SAME_NAMES}
        if told["error_code"] is not None:
            told["error_code"] = ErrorCode(told["error_code"])
        results.append(
            PageResult(
                **told,
                source_uri=row["source_uri"],
                flags=tuple(row["flags"] or ()),
                blocks=tuple(grouped.get((row["document_id"], row["page_number"]), ())),
            )
        )
    return results


def storable(text: str) -> str:
    """Text that Parquet can hold: bytes of a file name that are no UTF-8 become `\\\\xff`."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _document_row(
    planned: PlannedDocument, extents: Sequence[Extent], recipe_id: str
) -> dict[str, Any]:
    facts: DocumentFacts = extents[0].facts
    failed = sum(extent.pages_failed for extent in extents)
    whole_fails = facts.error_code is not None or 0 < failed == facts.page_count
    # A reason that may pass stands before one that will not: it decides whether to try again.
    failures = [extent for extent in extents if extent.error_code]
    first = min(failures, key=lambda extent: extent.error_code not in TRANSIENT, default=None)
    return {
        "document_id": planned.document_id,
        "source_uri": storable(planned.uri),
        "source_version": planned.version,
        "recipe_id": recipe_id,
        "content_sha256": facts.content_sha256,
        "media_type": facts.media_type,
        "source_bytes": planned.size_bytes,
        "page_count": facts.page_count,
        "source_page_count": facts.source_page_count,
        "pages_ok": sum(extent.pages_ok for extent in extents),
        "pages_empty": sum(extent.pages_empty for extent in extents),
        "pages_failed": failed,
        "status": "failed" if whole_fails else "partial" if failed else "ok",
        "error_code": facts.error_code or (first.error_code if first else None),
        "error_message": facts.error_message or (first.error_message if first else None),
        "metadata": list(facts.metadata.items()),
        "runs": planned.runs + 1,
        "started_at": min(extent.started_at for extent in extents),
        "finished_at": max(extent.finished_at for extent in extents),
        "deleted_at": None,
    }


def _fail_with(archive: dict[str, Any], members: Sequence[dict[str, Any]]) -> None:
    """An archive with failures in it is to be tried again if one of them may pass."""
    failed = [row for row in members if row["status"] != "ok"]
    archive["metadata"] = [*archive["metadata"], ("members", str(len(members)))]
    if failed and archive["error_code"] is None:
        worst = min(failed, key=lambda row: row["error_code"] not in TRANSIENT)
        archive["status"] = "partial"
        archive["error_code"] = worst["error_code"]
        archive["error_message"] = f"{len(failed)} of {len(members)} members have failures"


def _block_row(page: PageResult, number: int, block: Block) -> dict[str, Any]:
    x0, y0, x1, y1 = block.box or (None, None, None, None)
    return {
        "document_id": page.document_id,
        "page_number": page.page_number,
        "block_number": number,
        "kind": block.kind,
        "label": block.label,
        "text": block.text,
        "html": block.html,
        "x0": x0,
        "y0": y0,
        "x1": x1,
        "y1": y1,
        "boxes": [list(box) for box in block.boxes],
        "confidence": block.confidence,
        "figure_uri": block.figure_uri,
    }


def _block_from(row: Mapping[str, Any]) -> Block:
    known = row["x0"] is not None
    return Block(
        kind=row["kind"],
        label=row["label"],
        text=row["text"],
        box=(row["x0"], row["y0"], row["x1"], row["y1"]) if known else None,
        html=row["html"],
        boxes=tuple((box[0], box[1], box[2], box[3]) for box in row["boxes"] or ()),
        confidence=row["confidence"],
        figure_uri=row["figure_uri"],
    )
