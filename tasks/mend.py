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

from schemas.errors import DocumentError, ErrorCode, RunError
from schemas.records import Extent, PageRef, PageResult, Place, PlannedDocument, Shard
from schemas.tables import DOCUMENTS
from tasks.claim import Claim
from tasks.collect import Standing, extent_of
from tasks.media import ARCHIVES
from tasks.opening import open_member
from tasks.pipeline import Flow, Opened, failed
from tasks.pool import Stopped
from tasks.rewrite import Part, keeps_changing, read_part, rewrite, write_part
from tasks.rows import blocks_table, documents_table, pages_table, parquet, planned_of
from tasks.shardlog import Entry, ShardLog, documents_key, figures_in, read_entry, take_back
from tasks.store import read_rows


class Mender:
    """Mends the documents of one finished shard; `shard.documents` are those that failed.

    An archive stands for its members: those that failed are read again.
    """

    def __init__(self, flow: Flow, shard: Shard, claim: Claim) -> None:
        self._flow = flow
        self._shard = shard
        self._claim = claim
        self._log = ShardLog(flow.store, shard)
        wanted = {planned.document_id: number for number, planned in enumerate(shard.documents)}
        # What is the shard's n-th document to the log is the m-th of those that failed.
        self._numbers = {
            extent.index: wanted[extent.document_id]
            for entry in self._log.entries
            for extent in entry.extents
            if extent.closes and extent.document_id in wanted
        }
        self._archives: dict[int, Opened] = {}

    async def read(self) -> bool:
        """Read the failed pages again and rewrite their parts.

        Returns:
            Whether everything was done; it was not if the run was asked to stop.
        """
        try:
            entries = [await self._mended(entry) for entry in self._log.entries]
        except Stopped:
            return False
        finally:
            for archive in self._archives.values():
                if archive.document is not None:
                    self._flow.fetcher.release(archive.document)
        if any(entry is None for entry in entries):
            return False
        await asyncio.to_thread(self._rewrite_documents, [entry for entry in entries if entry])
        return True

    async def _mended(self, entry: Entry) -> Entry | None:
        """The entry with its failures read again; None if the run was asked to stop."""
        if not any(map(self._is_to_mend, entry.extents)):
            return entry
        part = await asyncio.to_thread(read_part, self._flow.store, entry.pages)
        extents, again = list(part.entry.extents), list[PageResult]()
        for number, extent in enumerate(extents):
            if not self._is_to_mend(extent):
                continue
            opened = await self._open(extent)
            results = await self._read_again(opened, extent, part.pages)
            if opened.document is not None:
                self._flow.fetcher.release(opened.document)
            if results is None:
                return None
            again += results
            extents[number] = _mended_extent(opened, extent, part.pages, results)
        if tuple(extents) != part.entry.extents:
            await asyncio.to_thread(self._rewrite_part, part, extents, again)
        return replace(part.entry, extents=tuple(extents))

    def _is_to_mend(self, extent: Extent) -> bool:
        if extent.index not in self._numbers or extent.facts.media_type in ARCHIVES:
            return False
        if extent.closes and extent.member:
            return False  # an archive that was broken off: members are missing that nobody has read
        return bool(extent.pages_failed or extent.facts.error_code)

    async def _open(self, extent: Extent) -> Opened:
        """The document of an extent, out of its archive if it is a member of one."""
        planned = self._planned(extent)
        if extent.container_sha256 is None:
            return await self._flow.open(planned)
        number = self._numbers[extent.index]
        if number not in self._archives:
            self._archives[number] = await self._flow.open(self._shard.documents[number])
        archive = self._archives[number]
        if archive.document is None:
            return replace(archive, planned=planned)
        if archive.document.content_sha256 != extent.container_sha256:
            error = DocumentError(
                ErrorCode.SOURCE_CHANGED, "the archive changed after its members were read"
            )
            return failed(planned, error)
        return await open_member(self._flow, archive, archive.document, planned, extent.member)

    def _planned(self, extent: Extent) -> PlannedDocument:
        return planned_of(self._shard, replace(extent, index=self._numbers[extent.index]))

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
        self, part: Part, extents: Sequence[Extent], again: Sequence[PageResult]
    ) -> None:
        store, key = self._flow.store, part.entry.pages
        order = {extent.document_id: extent.place for extent in extents}
        keys = {(page.document_id, page.page_number) for page in again}
        pages = _merged(part.pages, pages_table(again, self._shard), keys, order)
        blocks = _merged(part.blocks, blocks_table(again, self._shard), keys, order)
        self._flow.check(self._claim)
        for page in again:
            for uri, picture in page.figures.items():
                store.put(uri, picture)
        try:
            if not write_part(store, self._flow.lock, part, pages, blocks, extents):
                raise keeps_changing(store, key)
        except RunError:
            take_back(store, [read_entry(store, key)], None, again)
            self._flow.check(self._claim)
            raise
        if gone := figures_in(part.blocks) - figures_in(blocks):
            self._flow.check(self._claim)  # by now another may have read them again
            for uri in gone:
                store.delete(uri)
        for page in again:
            self._flow.tally.page(page)

    def _rewrite_documents(self, entries: Sequence[Entry]) -> None:
        """Recompute the rows of the mended documents; the others stay as they are."""
        found: dict[Place, list[Extent]] = {}
        for entry in entries:
            for extent in entry.extents:
                if extent.index in self._numbers:
                    ours = replace(extent, index=self._numbers[extent.index])
                    found.setdefault(ours.place, []).append(ours)
        new = documents_table(self._shard, found, self._flow.recipe_id)

        def change(data: bytes) -> bytes:
            old = read_rows(data, DOCUMENTS)
            mended = pc.is_in(old["document_id"], value_set=new["document_id"].combine_chunks())
            return parquet(pa.concat_tables([old.filter(pc.invert(mended)), new]))

        self._flow.check(self._claim)
        rewrite(self._flow.store, self._flow.lock, documents_key(self._shard), change)
        for extents in found.values():
            planned = planned_of(self._shard, extents[0])
            self._flow.tally.document(
                planned, extents[0].facts, sum(extent.pages_failed for extent in extents)
            )


def _mended_extent(
    opened: Opened, extent: Extent, pages: pa.Table, again: Sequence[PageResult]
) -> Extent:
    """An extent after some of its pages were read again, or its document opened at last."""
    standing = Standing(
        place=extent.place,
        document_id=extent.document_id,
        source_uri=opened.planned.uri,
        facts=extent.facts,
        closes=extent.closes,
        container_sha256=extent.container_sha256,
    )
    if extent.facts.error_code is not None:
        return extent_of(replace(standing, facts=opened.facts), 1, again, extent.started_at)
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
    return extent_of(standing, extent.first_page, told, extent.started_at)


_STATUS_COLUMNS = ["source_uri", "page_number", "status", "error_code", "error_message"]


def _failed_pages(pages: pa.Table, document_id: str) -> list[int]:
    mine = pc.and_(pc.equal(pages["document_id"], document_id), pc.equal(pages["status"], "failed"))
    return list(pages.filter(mine)["page_number"].to_pylist())


def _merged(
    old: pa.Table, new: pa.Table, replaced: set[tuple[str, int]], order: Mapping[str, Place]
) -> pa.Table:
    """Old rows but the replaced ones, and the new rows, in the order of documents and pages."""
    pairs = zip(old["document_id"].to_pylist(), old["page_number"].to_pylist(), strict=True)
    kept = old.filter(pa.array([pair not in replaced for pair in pairs], pa.bool_()))
    both = pa.concat_tables([kept, new])
    ids, numbers = both["document_id"].to_pylist(), both["page_number"].to_pylist()
    rows = sorted(range(both.num_rows), key=lambda row: (order[ids[row]], numbers[row]))
    return both.take(pa.array(rows, pa.int64()))
