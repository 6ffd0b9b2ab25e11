"""What bounds the flow: how many shards, documents, pages and uncommitted parts there are at once.

    shard ─▶ documents opened ahead ─▶ pages in flight ─▶ held until a part is cut ─▶ part
    SHARDS_AT_ONCE  DOCUMENTS_AHEAD     --max-in-flight    PARTS_HELD × --part-pages

Two shards overlap, so that the engine does not drain at the end of one. Processes and deadlines are
the pool's.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from schemas.errors import DocumentError, EngineLost
from schemas.records import DocumentFacts, LocalDocument, PageRef, PageResult, PlannedDocument
from schemas.settings import IngestSettings
from tasks import worker
from tasks.describe import KEY, Describer
from tasks.fetch import fetch
from tasks.lock import LakeLock
from tasks.pool import Stopped, WorkerPool
from tasks.progress import Tally, Watcher
from tasks.readpage import PageReader
from tasks.samebytes import Originals
from tasks.store import LocalStore

SHARDS_AT_ONCE = 2
DOCUMENTS_AHEAD = 8
PARTS_HELD = 4


@dataclass(frozen=True, slots=True)
class Opened:
    """A document as fetched and inspected; `document` is None if that failed."""

    planned: PlannedDocument
    document: LocalDocument | None
    facts: DocumentFacts


@dataclass(slots=True)
class Flow:
    """What all shards of a run share.

    `window` bounds the pages in flight. `stopping` means: begin nothing more. `copies_waiting`
    counts documents that wait for an original to be committed: while there are any, parts are cut
    as early as they can be. `under_way` holds the pages being read, to be given up in haste; `lost`
    says why there is no engine any more.
    """

    store: LocalStore
    lock: LakeLock
    pool: WorkerPool
    reader: PageReader
    describer: Describer | None
    originals: Originals
    settings: IngestSettings
    part_pages: int
    recipe_id: str
    tally: Tally
    watcher: Watcher
    window: asyncio.Semaphore
    stopping: asyncio.Event
    under_way: set[asyncio.Timeout]
    lost: EngineLost | None = None
    pages_known: int = 0
    pages_begun: int = 0
    copies_waiting: int = 0

    async def open(self, planned: PlannedDocument) -> Opened:
        """Fetch and inspect a document; what goes wrong is among its facts.

        Raises:
            Stopped: the run is to end, or has no engine to describe the document any more.
        """
        document: LocalDocument | None = None
        try:
            document = await asyncio.to_thread(fetch, planned, self.settings.max_document_bytes)
            facts = await self.pool.run(self.settings.page_timeout, worker.inspect, document)
            if self.describer is not None:
                described = await self.describer.describe(document, facts)
                facts = replace(facts, metadata={**facts.metadata, KEY: described})
        except DocumentError as error:
            sha = document.content_sha256 if document else None
            return Opened(planned, None, _failed_facts(planned, error, sha))
        except EngineLost as lost:
            self._lose(lost)
            raise Stopped from None
        return Opened(planned, document, facts)

    async def read(self, ref: PageRef) -> PageResult | None:
        """A page; None if it was given up, because the run is to end or has no engine any more."""
        try:
            async with asyncio.timeout(None) as scope:
                self.under_way.add(scope)
                try:
                    return await self.reader.read(ref)
                finally:
                    self.under_way.discard(scope)
        except (Stopped, TimeoutError):
            return None
        except EngineLost as lost:
            self._lose(lost)
            return None

    def _lose(self, lost: EngineLost) -> None:
        if not self.stopping.is_set():
            self.lost = lost
            self.stopping.set()

    def begin_page(self) -> None:
        """Count a page against `--max-pages`; the run stops when that budget is used up."""
        self.pages_begun += 1
        if self.settings.max_pages is not None and self.pages_begun >= self.settings.max_pages:
            self.stopping.set()

    def pages_found(self, count: int) -> None:
        """Show that so many more pages are to be read."""
        self.pages_known += count
        self.watcher.show(self.tally, self.pages_known)

    def page_read(self) -> None:
        """Show that a page was finished."""
        self.tally.pages_read += 1
        self.watcher.show(self.tally, self.pages_known)


def _failed_facts(
    planned: PlannedDocument, error: DocumentError, content_sha256: str | None
) -> DocumentFacts:
    return DocumentFacts(
        content_sha256=content_sha256,
        source_bytes=planned.size_bytes,
        error_code=error.code,
        error_message=error.message,
    )
