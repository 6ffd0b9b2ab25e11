"""What bounds the flow: how many shards, documents, pages and uncommitted parts there are at once.

    shard ─▶ documents opened ahead ─▶ pages in flight ─▶ held until a part is cut ─▶ part
    SHARDS_AT_ONCE  DOCUMENTS_AHEAD     --max-in-flight    PARTS_HELD × --part-pages

Two shards overlap, so that the engine does not drain at the end of one. Processes and deadlines are
the pool's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from schemas.errors import DocumentError, EngineLost
from schemas.records import (
    DocumentFacts,
    LocalDocument,
    PageRef,
    PageResult,
    Place,
    PlannedDocument,
)
from schemas.settings import IngestSettings
from tasks import worker
from tasks.claim import Claim
from tasks.collect import Standing
from tasks.describe import KEY, Describer
from tasks.fetch import Fetcher
from tasks.lock import LakeLock
from tasks.media import ARCHIVES
from tasks.pool import Stopped, WorkerPool
from tasks.progress import Tally, Watcher
from tasks.readpage import PageReader
from tasks.samebytes import Originals
from tasks.store import Store
from tasks.turns import Turns

T = TypeVar("T")

SHARDS_AT_ONCE = 2
DOCUMENTS_AHEAD = 8
PARTS_HELD = 4


@dataclass(frozen=True, slots=True)
class Opened:
    """A document as fetched and inspected; `document` is None if that failed.

    `closes` and `container_sha256` are as in `Extent`: they tell members of archives.
    """

    planned: PlannedDocument
    document: LocalDocument | None
    facts: DocumentFacts
    place: Place = (0, 0)
    closes: bool = True
    container_sha256: str | None = None

    @property
    def is_archive(self) -> bool:
        """Whether there are documents in it."""
        return self.document is not None and self.facts.media_type in ARCHIVES

    @property
    def standing(self) -> Standing:
        """What the log is to know of it."""
        return Standing(
            place=self.place,
            document_id=self.planned.document_id,
            source_uri=self.planned.uri,
            facts=self.facts,
            closes=self.closes,
            container_sha256=self.container_sha256,
        )


@dataclass(slots=True)
class Flow:
    """What all shards of a run share.

    `window` bounds the pages in flight. `stopping` means: begin nothing more. `copies_waiting`
    counts documents that wait for an original to be committed: while there are any, parts are cut
    as early as they can be. `under_way` holds the pages being read, to be given up in haste; `lost`
    says why there is no engine any more.
    """

    store: Store
    lock: LakeLock
    pool: WorkerPool
    fetcher: Fetcher
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
    turns: Turns
    lost: EngineLost | None = None
    pages_known: int = 0
    pages_begun: int = 0
    copies_waiting: int = 0

    def check(self, claim: Claim) -> None:
        """Called before each commit.

        Raises:
            LockLost: another run has taken the lake over.
            ClaimLost: another worker has taken the shard over.
        """
        self.lock.check()
        claim.check()

    async def open(self, planned: PlannedDocument) -> Opened:
        """Fetch and inspect a document; what goes wrong is among its facts.

        Raises:
            Stopped: the run is to end, or has no engine to describe the document any more.
        """
        try:
            document = await self.in_thread(lambda: self.fetcher.fetch(planned))
        except DocumentError as error:
            return failed(planned, error)
        return await self.inspect(planned, document)

    async def inspect(self, planned: PlannedDocument, document: LocalDocument) -> Opened:
        """A document that is here already; as `open`."""
        try:
            facts = await self.pool.run(self.settings.page_timeout, worker.inspect, document)
            if self.describer is not None and facts.page_count:
                described = await self.describer.describe(document, facts)
                facts = replace(facts, metadata={**facts.metadata, KEY: described})
        except DocumentError as error:
            self.fetcher.release(document)
            return failed(planned, error, document.content_sha256)
        except EngineLost as lost:
            self._lose(lost)
            raise Stopped from None
        return Opened(planned, document, facts)

    async def in_thread(self, step: Callable[[], T]) -> T:
        """A step that waits for a disk or a network, in a thread of those kept for that."""
        return await asyncio.get_running_loop().run_in_executor(self.fetcher.threads, step)

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


def failed(
    planned: PlannedDocument, error: DocumentError, content_sha256: str | None = None
) -> Opened:
    """A document that cannot be opened, and why."""
    facts = DocumentFacts(
        content_sha256=content_sha256,
        source_bytes=planned.size_bytes,
        error_code=error.code,
        error_message=error.message,
    )
    return Opened(planned, None, facts)
