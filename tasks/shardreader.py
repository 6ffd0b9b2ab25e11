"""One shard, from where its log ends to where the shard does.

    documents, a few opened ahead ─▶ pages in flight ─▶ collector ─▶ part
                 pipeline.py           readpage.py       collect.py   shardlog.py

Pages finish in any order; order is restored where a part is cut. What is finished and not committed
is bounded, so that a slow page holds back the reading of others before it holds back memory.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

from schemas.errors import ErrorCode
from schemas.records import DocumentFacts, PageRef, PageResult, PlannedDocument, Shard
from tasks.collect import Collector
from tasks.known import Stored
from tasks.pipeline import DOCUMENTS_AHEAD, PARTS_HELD, Flow, Opened
from tasks.pool import Stopped
from tasks.rows import documents_table, parquet
from tasks.samebytes import Original, copy_document
from tasks.shardlog import ShardLog, documents_key
from tasks.store import AlreadyExists

_POLL_SECONDS = 0.5


class ShardReader:
    """Reads one shard from where its log ends to where the shard does."""

    def __init__(self, flow: Flow, shard: Shard) -> None:
        self._flow = flow
        self._shard = shard
        self._log = ShardLog(flow.store, shard)
        self._collector = Collector(shard, self._log.position())
        self._committing = asyncio.Lock()
        self._committed_at = time.monotonic()
        self._room = asyncio.Event()

    async def read(self) -> bool:
        """Read and commit what is missing.

        Returns:
            Whether the shard is complete; it is not if the run was asked to stop.
        """
        for index, _ in self._completed(set(self._log.extents())):
            self._settle(index)
        async with asyncio.TaskGroup() as group:
            async for index, opened in self._open_ahead():
                await self._begin_document(group, index, opened)
        while await self._commit(everything=True):
            pass
        if self._log.position() != (len(self._shard.documents), 1):
            return False
        await asyncio.to_thread(self._write_documents)
        return True

    async def _open_ahead(self) -> AsyncIterator[tuple[int, Opened]]:
        """Documents in order, each with the next few already being opened."""
        ahead: deque[tuple[int, asyncio.Task[Opened]]] = deque()
        rest = iter(range(self._log.position()[0], len(self._shard.documents)))
        try:
            while not self._flow.stopping.is_set():
                while len(ahead) < DOCUMENTS_AHEAD and (index := next(rest, None)) is not None:
                    task = asyncio.create_task(self._flow.open(self._shard.documents[index]))
                    ahead.append((index, task))
                if not ahead:
                    return
                index, task = ahead.popleft()
                yield index, await task
        except Stopped:
            return
        finally:
            for _, task in ahead:
                task.cancel()
            await asyncio.gather(*(task for _, task in ahead), return_exceptions=True)

    async def _begin_document(self, group: asyncio.TaskGroup, index: int, opened: Opened) -> None:
        fixed = self._log.facts(index)
        if fixed is not None:
            await self._resume_document(group, index, opened, fixed)
        elif opened.document is None:
            self._collector.opened(index, opened.facts)
            await self._commit()
        else:
            original = self._flow.originals.claim(
                opened.document.content_sha256, self._stored(opened.planned)
            )
            if original.stored == self._stored(opened.planned):
                await self._read_pages(group, index, opened, opened.facts, 1)
            else:
                group.create_task(self._copy(group, index, opened, original))

    async def _resume_document(
        self, group: asyncio.TaskGroup, index: int, opened: Opened, fixed: DocumentFacts
    ) -> None:
        """The rest of a document of which the log has a part: it must still be the same."""
        first = self._log.position()[1]
        if opened.facts.content_sha256 == fixed.content_sha256 and opened.document is not None:
            await self._read_pages(group, index, opened, fixed, first)
            return
        code = opened.facts.error_code or ErrorCode.SOURCE_CHANGED
        message = opened.facts.error_message or "the file changed after a part of it was read"
        self._collector.opened(index, fixed)
        for number in range(first, fixed.page_count + 1):
            page = PageResult(opened.planned.document_id, opened.planned.uri, number, "failed")
            self._collector.finished(index, replace(page, error_code=code, error_message=message))
        await self._commit()

    async def _copy(
        self, group: asyncio.TaskGroup, index: int, opened: Opened, original: Original
    ) -> None:
        """A document whose content is being read under another name: wait for that, and copy."""
        self._flow.copies_waiting += 1
        try:
            while not original.settled.is_set():
                if self._flow.stopping.is_set():
                    return
                await self._commit()
                with suppress(TimeoutError):
                    await asyncio.wait_for(original.settled.wait(), _POLL_SECONDS)
        finally:
            self._flow.copies_waiting -= 1
        if not original.good:
            await self._read_pages(group, index, opened, opened.facts, 1)
            return
        facts, pages = await asyncio.to_thread(
            copy_document, self._flow.store, original.stored, opened.planned
        )
        self._collector.opened(index, facts)
        self._flow.pages_found(len(pages))
        for page in pages:
            self._collector.finished(index, page)
            self._flow.page_read()
        await self._commit()

    async def _read_pages(
        self,
        group: asyncio.TaskGroup,
        index: int,
        opened: Opened,
        facts: DocumentFacts,
        first: int,
    ) -> None:
        assert opened.document is not None and facts.media_type is not None
        self._collector.opened(index, facts)
        self._flow.pages_found(facts.page_count - first + 1)
        for number in range(first, facts.page_count + 1):
            await self._until_there_is_room()
            await self._flow.window.acquire()
            if self._flow.stopping.is_set():
                self._flow.window.release()
                return
            self._flow.begin_page()
            ref = PageRef(opened.planned.document_id, opened.document, facts.media_type, number)
            group.create_task(self._read_page(index, ref))

    async def _read_page(self, index: int, ref: PageRef) -> None:
        page = await self._flow.read(ref)
        self._flow.window.release()
        if page is None:
            return
        self._collector.finished(index, page)
        self._flow.page_read()
        await self._commit()

    async def _until_there_is_room(self) -> None:
        most = PARTS_HELD * self._flow.part_pages
        while self._collector.pages_held() >= most and not self._flow.stopping.is_set():
            self._room.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._room.wait(), _POLL_SECONDS)

    async def _commit(self, everything: bool = False) -> bool:
        """Cut a part and commit it, if there is a full one or it is time; whether one was."""
        async with self._committing:
            urgent = everything or self._flow.copies_waiting > 0
            due = time.monotonic() - self._committed_at >= self._flow.settings.part_seconds
            if not (urgent or due) and self._collector.held() < self._flow.part_pages:
                return False
            draft = self._collector.draft(self._flow.part_pages)
            full = len(draft.pages) >= self._flow.part_pages
            if not draft.extents or not (urgent or due or full):
                return False
            await asyncio.to_thread(self._flow.lock.check)
            ours = await asyncio.to_thread(self._log.append, draft.pages, draft.extents)
            self._collector.committed_up_to(self._log.position())
            self._committed_at = time.monotonic()
            self._room.set()
        if ours:
            for page in draft.pages:
                self._flow.tally.page(page)
        for index, failed in self._completed({extent.index for extent in draft.extents}):
            facts = self._log.extents()[index][0].facts
            self._flow.tally.document(self._shard.documents[index], facts, failed)
            self._settle(index)
        return True

    def _completed(self, indices: set[int]) -> list[tuple[int, int]]:
        """Those documents that are complete in the log, each with its number of failed pages."""
        return [
            (index, sum(extent.pages_failed for extent in extents))
            for index, extents in self._log.extents().items()
            if index in indices and extents[-1].complete
        ]

    def _settle(self, index: int) -> None:
        """A document is complete: others with its content may be copied from it, if it is good."""
        extents = self._log.extents()[index]
        facts = extents[0].facts
        if facts.content_sha256 is not None:
            good = facts.error_code is None and not any(extent.pages_failed for extent in extents)
            stored = self._stored(self._shard.documents[index])
            self._flow.originals.settle(facts.content_sha256, stored, good)

    def _write_documents(self) -> None:
        shard = self._shard
        table = documents_table(shard, self._log.extents(), self._flow.recipe_id)
        self._flow.lock.check()
        with suppress(AlreadyExists):
            self._flow.store.create(documents_key(shard), parquet(table))

    def _stored(self, planned: PlannedDocument) -> Stored:
        shard = self._shard
        return Stored(planned.document_id, shard.shard_id, shard.run_id, shard.ingest_date)
