"""Documents with the same content are read once; the others get copies of its rows."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

import pyarrow.compute as pc

from schemas.errors import LakeError
from schemas.records import DocumentFacts, PageResult, PlannedDocument, Shard
from schemas.tables import BLOCKS, PAGES
from tasks.known import KnownDocuments, Stored
from tasks.rows import pages_from
from tasks.shardlog import ShardLog
from tasks.store import Store, read_table


@dataclass(slots=True)
class Original:
    """A document that this run is reading, whose copies wait until it is committed."""

    stored: Stored
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    good: bool = False

    def settle(self, good: bool) -> None:
        """It is committed (or was given up); `good` if its rows may be copied."""
        self.good = good
        self.settled.set()


class Originals:
    """Which content is in the lake already, or is being read by this run."""

    def __init__(self, known: KnownDocuments, recipe_id: str) -> None:
        self._known = known
        self._recipe_id = recipe_id
        self._reading: dict[str, Original] = {}

    def claim(self, content_sha256: str, mine: Stored) -> Original:
        """The original of this content: `mine` if there is none yet.

        Within a shard, documents must claim in their order: a copy waits for its original, which
        must not stand behind it.
        """
        original = self._reading.get(content_sha256)
        if original is None:
            original = Original(mine)
            stored = self._known.same_bytes(content_sha256, self._recipe_id)
            if stored is not None and stored.document_id != mine.document_id:
                original = Original(stored)
                original.settle(good=True)
            self._reading[content_sha256] = original
        return original

    def settle(self, content_sha256: str, stored: Stored, good: bool) -> None:
        """A document is committed. If it is `good` later ones with this content are copies of it;
        if not, the next one tries itself."""
        original = self._reading.get(content_sha256)
        if original is None:
            original = self._reading[content_sha256] = Original(stored)
        if original.stored == stored:
            original.settle(good)
            if not good:
                del self._reading[content_sha256]


def copy_document(
    store: Store, original: Stored, planned: PlannedDocument
) -> tuple[DocumentFacts, list[PageResult]]:
    """The rows of a committed document under the name of another with the same bytes.

    Raises:
        LakeError: the lake no longer holds what it should.
    """
    shard = Shard(original.shard_id, original.run_id, original.ingest_date, ())
    facts: DocumentFacts | None = None
    pages: list[PageResult] = []
    wanted = pc.field("document_id") == original.document_id
    for entry in ShardLog(store, shard).entries:
        extents = [each for each in entry.extents if each.document_id == original.document_id]
        if not extents:
            continue
        facts = extents[0].facts
        rows = read_table(store, entry.pages, PAGES).filter(wanted)
        blocks = BLOCKS.empty_table()
        if entry.blocks is not None:
            blocks = read_table(store, entry.blocks, BLOCKS).filter(wanted)
        pages += pages_from(rows, blocks)
    if facts is None or len(pages) != facts.page_count:
        raise LakeError(
            f"the rows of {original.document_id} are not all in the lake, so {planned.uri} cannot "
            "be copied from it; restore the missing files of "
            f"pages/ingest_date={original.ingest_date}/{original.shard_id}-*.parquet"
        )
    return facts, [_renamed(store, page, original, planned) for page in pages]


def _renamed(
    store: Store, page: PageResult, original: Stored, planned: PlannedDocument
) -> PageResult:
    old, new = f"figures/{original.document_id}/", f"figures/{planned.document_id}/"
    figures = {
        block.figure_uri.replace(old, new): store.read(block.figure_uri)[0]
        for block in page.blocks
        if block.figure_uri is not None
    }
    blocks = tuple(
        replace(block, figure_uri=block.figure_uri.replace(old, new)) if block.figure_uri else block
        for block in page.blocks
    )
    return replace(
        page,
        document_id=planned.document_id,
        source_uri=planned.uri,
        markdown=page.markdown.replace(old, new) if page.markdown else page.markdown,
        flags=(*(flag for flag in page.flags if flag != "copied"), "copied"),
        blocks=blocks,
        figures=figures,
    )
