"""One shard, from where its log ends to where the shard does.

    documents, a few opened ahead ─▶ pages in flight ─▶ collector ─▶ part
                 opening.py            readpage.py       collect.py   shardlog.py

Pages finish in any order; order is restored where a part is cut. What is finished and not committed
is bounded, so that a slow page holds back the reading of others before it holds back memory.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial

from schemas.errors import ErrorCode
from schemas.records import DocumentFacts, LocalDocument, PageRef, PageResult, Place, Shard
from tasks.claim import Claim
from tasks.collect import Collector, Disagreement
from tasks.known import Stored
from tasks.media import ARCHIVES
from tasks.opening import Opener
from tasks.orphans import remove_orphans
from tasks.pipeline import PARTS_HELD, Flow, Opened
from tasks.pool import Stopped
from tasks.replaced import remove_rows
from tasks.rows import documents_table, parquet, planned_of
from tasks.samebytes import Original, copy_document
from tasks.shardlog import ShardLog, documents_key
from tasks.store import AlreadyExists

_POLL_SECONDS = 0.5


async def read_shard(flow: Flow, shard: Shard, claim: Claim) -> bool:
    """Read what is missing of a shard, whoever else commits to it meanwhile, and tidy up.

    Returns:
        Whether the shard is complete; it is not if the run was asked to stop.
    """
    contested = claim.taken_over
    while True:
        reader = ShardReader(flow, shard, claim)
        try:
            complete = await reader.read()
            break
        except* Disagreement:  # another worker was quicker, with another state of a document
            contested = True
    if complete:
        contested = contested or reader.log.contested
        check = partial(flow.check, claim)
        await asyncio.to_thread(remove_orphans, flow.store, shard, reader.log, contested, check)
    return complete


class ShardReader:
    """Reads one shard, under a claim, from where its log ends to where the shard does."""

    def __init__(self, flow: Flow, shard: Shard, claim: Claim) -> None:
        self._flow = flow
        self._shard = shard
        self._claim = claim
        self.log = ShardLog(flow.store, shard)
        self._opener = Opener(flow, shard, claim, self.log.last())
        self._collector = Collector(self.log.last())
        self._committing = asyncio.Lock()
        self._committed_at = time.monotonic()
        self._room = asyncio.Event()
        self._unread = Counter[Place]()

    async def read(self) -> bool:
        """Read and commit what is missing.

        Returns:
            Whether the shard is complete; it is not if the run was asked to stop.
        """
        for place, _ in self._completed(set(self.log.extents())):
            self._settle(place)
        async with asyncio.TaskGroup() as group:
            with suppress(Stopped):
                async with aclosing(self._opener.documents()) as documents:
                    async for opened in documents:
                        await self._begin_document(group, opened)
                        if self._claim.careful:
                            await self._until_committed(opened.place)
        while await self._commit(everything=True):
            pass
        if self.log.position() != ((len(self._shard.documents), 0), 1):
            return False
        await asyncio.to_thread(self._write_documents)
        return True

    async def _begin_document(self, group: asyncio.TaskGroup, opened: Opened) -> None:
        place, first = self.log.position()
        if place == opened.place and first > 1:
            await self._resume_document(group, opened, self.log.extents()[place][0].facts)
        elif opened.document is None:
            self._collector.opened(opened.standing)
            await self._commit()
        else:
            await self._copy_or_read(group, opened, opened.document, 1)

    async def _resume_document(
        self, group: asyncio.TaskGroup, opened: Opened, fixed: DocumentFacts
    ) -> None:
        """The rest of a document of which the log has a part: it must still be the same."""
        first = self.log.position()[1]
        same = opened.facts.content_sha256 == fixed.content_sha256
        resumed = replace(opened, facts=fixed)
        if same and opened.document is not None:
            await self._copy_or_read(group, resumed, opened.document, first)
            return
        if opened.document is not None:
            self._flow.fetcher.release(opened.document)
        code = opened.facts.error_code or ErrorCode.SOURCE_CHANGED
        message = opened.facts.error_message or "the file changed after a part of it was read"
        self._collector.opened(resumed.standing)
        for number in range(first, fixed.page_count + 1):
            page = PageResult(opened.planned.document_id, opened.planned.uri, number, "failed")
            page = replace(page, error_code=code, error_message=message)
            self._collector.finished(opened.place, page)
        await self._commit()

    async def _copy_or_read(
        self, group: asyncio.TaskGroup, opened: Opened, document: LocalDocument, first: int
    ) -> None:
        """The pages of a document from the `first` on."""
        mine = self._stored(opened.planned.document_id)
        original = self._flow.originals.claim(document.content_sha256, mine)
        if original.stored == mine:
            await self._read_pages(group, opened, document, first)
        else:
            group.create_task(self._copy(group, opened, document, first, original))

    async def _copy(
        self,
        group: asyncio.TaskGroup,
        opened: Opened,
        document: LocalDocument,
        first: int,
        original: Original,
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
            await self._read_pages(group, opened, document, first)
            return
        facts, pages = await asyncio.to_thread(
            copy_document, self._flow.store, original.stored, opened.planned
        )
        if first > 1 and facts.page_count != opened.facts.page_count:
            await self._read_pages(group, opened, document, first)  # as it was counted at first
            return
        self._flow.fetcher.release(document)
        self._collector.opened(replace(opened, facts=facts).standing)
        missing = pages[first - 1 :]
        self._flow.pages_found(len(missing))
        for page in missing:
            self._collector.finished(opened.place, page)
            self._flow.page_read()
        await self._commit()

    async def _read_pages(
        self, group: asyncio.TaskGroup, opened: Opened, document: LocalDocument, first: int
    ) -> None:
        facts = opened.facts
        assert facts.media_type is not None
        self._collector.opened(opened.standing)
        self._flow.pages_found(facts.page_count - first + 1)
        self._unread[opened.place] = facts.page_count - first + 1
        for number in range(first, facts.page_count + 1):
            await self._until_there_is_room()
            await self._flow.window.acquire()
            if self._flow.stopping.is_set():
                self._flow.window.release()
                return
            self._flow.begin_page()
            ref = PageRef(opened.planned.document_id, document, facts.media_type, number)
            group.create_task(self._read_page(opened.place, ref))

    async def _read_page(self, place: Place, ref: PageRef) -> None:
        try:
            page = await self._flow.read(ref)
        finally:
            self._flow.window.release()
        if page is None:
            return
        self._unread[place] -= 1
        if self._unread[place] == 0:
            del self._unread[place]
            self._flow.fetcher.release(ref.document)
        self._collector.finished(place, page)
        self._flow.page_read()
        await self._commit()

    async def _until_there_is_room(self) -> None:
        while self._holds_enough() and not self._flow.stopping.is_set():
            if await self._commit():  # nobody else may come by: all that was begun may be finished
                continue
            self._room.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._room.wait(), _POLL_SECONDS)

    def _holds_enough(self) -> bool:
        """Whether a death now would cost a whole part, or much waits for a slow page."""
        part = self._flow.part_pages
        if self._collector.pages_held() >= PARTS_HELD * part:
            return True
        return self._collector.held() >= part and self._collector.draft(part).full

    async def _until_committed(self, place: Place) -> None:
        while self._collector.position[0] <= place and not self._flow.stopping.is_set():
            if not await self._commit(everything=True):
                await asyncio.sleep(_POLL_SECONDS / 10)

    async def _commit(self, everything: bool = False) -> bool:
        """Cut a part and commit it, if there is a full one or it is time; whether one was."""
        async with self._committing:
            urgent = everything or self._flow.copies_waiting > 0
            due = time.monotonic() - self._committed_at >= self._flow.settings.part_seconds
            if not (urgent or due) and self._collector.held() < self._flow.part_pages:
                return False
            draft = self._collector.draft(self._flow.part_pages)
            if not draft.extents or not (urgent or due or draft.full):
                return False
            await asyncio.to_thread(self._flow.check, self._claim)
            ours = await asyncio.to_thread(self.log.append, draft.pages, draft.extents)
            last = self.log.last()
            assert last is not None
            self._collector.committed_up_to(last)
            self._committed_at = time.monotonic()
            self._room.set()
        if ours:
            for page in draft.pages:
                self._flow.tally.page(page)
        for place, failed in self._completed({extent.place for extent in draft.extents}):
            extent = self.log.extents()[place][0]
            self._flow.tally.document(planned_of(self._shard, extent), extent.facts, failed)
            self._settle(place)
        return True

    def _completed(self, places: Iterable[Place]) -> list[tuple[Place, int]]:
        """Those documents that are complete in the log, each with its number of failed pages."""
        known = self.log.extents()
        return [
            (place, sum(extent.pages_failed for extent in known[place]))
            for place in sorted(places)
            if place in known and known[place][-1].complete
        ]

    def _settle(self, place: Place) -> None:
        """A document is complete: others with its content may be copied from it, if it is good."""
        extents = self.log.extents()[place]
        facts = extents[0].facts
        if facts.content_sha256 is not None and facts.media_type not in ARCHIVES:
            good = facts.error_code is None and not any(extent.pages_failed for extent in extents)
            stored = self._stored(extents[0].document_id)
            self._flow.originals.settle(facts.content_sha256, stored, good)

    def _write_documents(self) -> None:
        shard = self._shard
        table = documents_table(shard, self.log.extents(), self._flow.recipe_id)
        self._flow.check(self._claim)
        # Their failures stand elsewhere; gone first, so that no document has two rows.
        remove_rows(self._flow.store, [each for each in shard.documents if each.replaces])
        with suppress(AlreadyExists):
            self._flow.store.create(documents_key(shard), parquet(table))

    def _stored(self, document_id: str) -> Stored:
        shard = self._shard
        return Stored(document_id, shard.shard_id, shard.run_id, shard.ingest_date)
