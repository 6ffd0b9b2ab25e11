"""Documents that failed, read once more: their rows are mended where they stand.

Each part that holds failed pages of them is rewritten in place, if it has not changed meanwhile:
good rows are kept as they are, failed ones read again. The shard's `documents` file follows. Killed
anywhere, the same job finishes the rest when it is run again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.errors import LakeError
from schemas.records import Extent, PageRef, PageResult, PlannedDocument, Shard
from schemas.tables import BLOCKS, DOCUMENTS, PAGES
from tasks.collect import extent_of
from tasks.pipeline import Flow, Opened
from tasks.pool import Stopped
from tasks.rows import blocks_table, documents_table, pages_table, parquet
from tasks.shardlog import Entry, ShardLog, documents_key, entry_footer, put_blocks
from tasks.store import Changed


class Mender:
    """Mends the documents of one finished shard; `shard.documents` are those that failed."""

    def __init__(self, flow: Flow, shard: Shard) -> None:
        self._flow = flow
        self._shard = shard
        self._log = ShardLog(flow.store, shard)
        self._wanted = {document.document_id: document for document in shard.documents}

    async def read(self) -> bool:
        """Read the failed pages again and rewrite their parts.

        Returns:
            Whether everything was done; it was not if the run was asked to stop.
        """
        try:
            entries = [await self._mended(entry) for entry in self._log.entries]
        except Stopped:
            return False
        if any(entry is None for entry in entries):
            return False
        await asyncio.to_thread(self._rewrite_documents, [entry for entry in entries if entry])
        return True

    async def _mended(self, entry: Entry) -> Entry | None:
        """The entry with its failures read again; None if the run was asked to stop."""
        tag = self._flow.store.read(entry.pages)[1]
        pages = pq.read_table(self._flow.store.path(entry.pages), schema=PAGES)
        extents, again = list(entry.extents), list[PageResult]()
        for number, extent in enumerate(entry.extents):
            planned = self._wanted.get(extent.document_id)
            if planned is None or not (extent.pages_failed or extent.facts.error_code):
                continue
            opened = await self._flow.open(planned)
            results = await self._read_again(opened, extent, pages)
            if results is None:
                return None
            again += results
            extents[number] = _mended_extent(opened, extent, pages, results)
        if extents == list(entry.extents):
            return entry
        return await asyncio.to_thread(self._rewrite_part, entry, tag, pages, extents, again)

    async def _read_again(
        self, opened: Opened, extent: Extent, pages: pa.Table
    ) -> list[PageResult] | None:
        """The failed pages of an extent; all pages if the document could not be opened before."""
        if opened.document is None or opened.facts.media_type is None:
            return []
        if extent.facts.error_code is not None:
            numbers = list(range(1, opened.facts.page_count + 1))
        elif opened.facts.content_sha256 != extent.facts.content_sha256:
            return []
        else:
            numbers = _failed_pages(pages, extent.document_id)
        self._flow.pages_found(len(numbers))
        refs = [
            PageRef(extent.document_id, opened.document, opened.facts.media_type, number)
            for number in numbers
        ]
        async with asyncio.TaskGroup() as group:
            reading = [group.create_task(self._read_page(ref)) for ref in refs]
        results = [task.result() for task in reading]
        return None if any(page is None for page in results) else [p for p in results if p]

    async def _read_page(self, ref: PageRef) -> PageResult | None:
        async with self._flow.window:
            if self._flow.stopping.is_set():
                return None
            self._flow.begin_page()
            page = await self._flow.read(ref)
            if page is not None:
                self._flow.page_read()
            return page

    def _rewrite_part(
        self,
        entry: Entry,
        tag: str,
        pages: pa.Table,
        extents: Sequence[Extent],
        again: Sequence[PageResult],
    ) -> Entry:
        store = self._flow.store
        for page in again:
            for uri, picture in page.figures.items():
                store.put(uri, picture)
        order = {extent.document_id: extent.index for extent in extents}
        keys = {(page.document_id, page.page_number) for page in again}
        pages = _merged(pages, pages_table(again, self._shard), keys, order)
        blocks = pa.Table.from_pylist([], schema=BLOCKS)
        if entry.blocks is not None:
            blocks = pq.read_table(store.path(entry.blocks), schema=BLOCKS)
        blocks = _merged(blocks, blocks_table(again, self._shard), keys, order)
        self._flow.lock.check()
        blocks_key = put_blocks(store, entry.pages, blocks)
        try:
            store.replace(entry.pages, parquet(pages, entry_footer(blocks_key, extents)), tag)
        except Changed:
            raise LakeError(
                f"{entry.pages} was changed while its failed pages were read again; "
                "run the command again"
            ) from None
        if entry.blocks is not None and entry.blocks != blocks_key:
            store.delete(entry.blocks)
        for page in again:
            self._flow.tally.page(page)
        return replace(entry, blocks=blocks_key, extents=tuple(extents))

    def _rewrite_documents(self, entries: Sequence[Entry]) -> None:
        """Recompute the rows of the mended documents; the others stay as they are."""
        found: dict[str, list[Extent]] = {}
        for entry in entries:
            for extent in entry.extents:
                found.setdefault(extent.document_id, []).append(extent)
        key = documents_key(self._shard)
        tag = self._flow.store.read(key)[1]
        old = pq.read_table(self._flow.store.path(key), schema=DOCUMENTS)
        by_index = {number: found[each.document_id] for number, each in self._documents()}
        new = documents_table(self._shard, by_index, self._flow.recipe_id)
        mended = pa.array(list(self._wanted))
        kept = old.filter(pc.invert(pc.is_in(old["document_id"], value_set=mended)))
        self._flow.lock.check()
        self._flow.store.replace(key, parquet(pa.concat_tables([kept, new])), tag)
        for _, planned in self._documents():
            extents = found[planned.document_id]
            failed = sum(extent.pages_failed for extent in extents)
            self._flow.tally.document(planned, extents[0].facts, failed)

    def _documents(self) -> list[tuple[int, PlannedDocument]]:
        return list(enumerate(self._shard.documents))


def _mended_extent(
    opened: Opened, extent: Extent, pages: pa.Table, again: Sequence[PageResult]
) -> Extent:
    """An extent after some of its pages were read again, or its document opened at last."""
    if extent.facts.error_code is not None:
        facts, first = opened.facts, 1
        return extent_of(extent.index, extent.document_id, facts, first, again, extent.started_at)
    new = {page.page_number: page for page in again}
    kept = pages.filter(pc.equal(pages["document_id"], extent.document_id))
    told = [
        new.get(row["page_number"])
        or PageResult(
            extent.document_id,
            row["source_uri"],
            row["page_number"],
            row["status"],
            error_code=row["error_code"],
            error_message=row["error_message"],
        )
        for row in kept.select(_STATUS_COLUMNS).to_pylist()
    ]
    return extent_of(
        extent.index, extent.document_id, extent.facts, extent.first_page, told, extent.started_at
    )


_STATUS_COLUMNS = ["source_uri", "page_number", "status", "error_code", "error_message"]


def _failed_pages(pages: pa.Table, document_id: str) -> list[int]:
    mine = pc.and_(pc.equal(pages["document_id"], document_id), pc.equal(pages["status"], "failed"))
    return list(pages.filter(mine)["page_number"].to_pylist())


def _merged(
    old: pa.Table, new: pa.Table, replaced: set[tuple[str, int]], order: Mapping[str, int]
) -> pa.Table:
    """Old rows but the replaced ones, and the new rows, in the order of documents and pages."""
    pairs = zip(old["document_id"].to_pylist(), old["page_number"].to_pylist(), strict=True)
    kept = old.filter(pa.array([pair not in replaced for pair in pairs], pa.bool_()))
    both = pa.concat_tables([kept, new])
    ids, numbers = both["document_id"].to_pylist(), both["page_number"].to_pylist()
    rows = sorted(range(both.num_rows), key=lambda row: (order[ids[row]], numbers[row]))
    return both.take(pa.array(rows, pa.int64()))
