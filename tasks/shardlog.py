"""What is done of a shard: the log of its parts. Nothing else is ever asked.

Part `seq` is committed by creating its `pages` object, which must not exist. Its `blocks` object is
written just before, under a name with its own hash; the footer of `pages` holds that name and the
extents: which pages of which documents the part covers, and each document's facts, fixed from then
on. The slice of part `seq` is computed from the entries before it and no others, so an entry can
repeat none of them. Who loses the race for `seq` reads the log and goes on with what is missing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import ErrorCode
from schemas.records import DocumentFacts, Extent, PageResult, Shard
from tasks.rows import blocks_table, pages_table, parquet
from tasks.store import AlreadyExists, LocalStore

PART = "pagelake.part"


@dataclass(frozen=True, slots=True)
class Entry:
    """One committed part. `blocks` is the key of its blocks object, None if it has no blocks."""

    seq: int
    pages: str
    blocks: str | None
    extents: tuple[Extent, ...]


class ShardLog:
    """The parts of one shard, read from the store when made, and appended to."""

    def __init__(self, store: LocalStore, shard: Shard) -> None:
        self._store = store
        self._shard = shard
        self.entries: list[Entry] = []
        self.refresh()

    def refresh(self) -> None:
        """Read the entries that are there but not yet known."""
        while self._store.exists(key := self.pages_key(len(self.entries))):
            self.entries.append(read_entry(self._store, key))

    def pages_key(self, seq: int) -> str:
        """Where part `seq` is committed."""
        return (
            f"pages/ingest_date={self._shard.ingest_date}/{self._shard.shard_id}-{seq:04d}.parquet"
        )

    def position(self) -> tuple[int, int]:
        """The first page not in the log: index of its document in the shard, and page number."""
        if not self.entries or not self.entries[-1].extents:
            return (0, 1)
        last = self.entries[-1].extents[-1]
        return (last.index + 1, 1) if last.complete else (last.index, last.last_page + 1)

    def facts(self, index: int) -> DocumentFacts | None:
        """What the log has fixed about a document; None if no part touches it yet."""
        extents = self.extents().get(index)
        return extents[0].facts if extents else None

    def extents(self) -> Mapping[int, list[Extent]]:
        """All extents by index of their document."""
        found: dict[int, list[Extent]] = {}
        for entry in self.entries:
            for extent in entry.extents:
                found.setdefault(extent.index, []).append(extent)
        return found

    def append(self, pages: Sequence[PageResult], extents: Sequence[Extent]) -> bool:
        """Commit the next part; the figures of its pages are written first.

        Returns:
            False if another writer has committed this part already: nothing of ours was kept, and
            the log has been read anew.
        """
        for page in pages:
            for uri, picture in page.figures.items():
                self._store.put(uri, picture)
        key = self.pages_key(len(self.entries))
        blocks = put_blocks(self._store, key, blocks_table(pages, self._shard))
        footer = entry_footer(blocks, extents)
        try:
            self._store.create(key, parquet(pages_table(pages, self._shard), footer))
        except AlreadyExists:
            self.refresh()
            if blocks is not None and all(entry.blocks != blocks for entry in self.entries):
                self._store.delete(blocks)
            return False
        self.entries.append(Entry(len(self.entries), key, blocks, tuple(extents)))
        return True


def put_blocks(store: LocalStore, pages_key: str, table: pa.Table) -> str | None:
    """Write the blocks object of a part under a name with its hash; None if there are none."""
    if not table.num_rows:
        return None
    data = parquet(table)
    stem = pages_key.removeprefix("pages/").removesuffix(".parquet")
    key = f"blocks/{stem}-{hashlib.sha256(data).hexdigest()[:8]}.parquet"
    store.put(key, data)
    return key


def entry_footer(blocks: str | None, extents: Sequence[Extent]) -> dict[str, str]:
    """The footer metadata that makes a pages object an entry of the log."""
    told = {"blocks": blocks, "extents": [asdict(extent) for extent in extents]}
    return {PART: json.dumps(told, default=_as_json)}


def read_entry(store: LocalStore, key: str) -> Entry:
    """The entry that a pages object is, from its footer alone."""
    metadata = pq.read_metadata(store.path(key)).metadata or {}
    told = json.loads(metadata[PART.encode()])
    extents = tuple(_extent(extent) for extent in told["extents"])
    seq = int(key.removesuffix(".parquet").rpartition("-")[2])
    return Entry(seq, key, told["blocks"], extents)


def orphans(store: LocalStore, shard: Shard, entries: Sequence[Entry]) -> Iterator[str]:
    """Blocks objects of a shard that no entry names: left by a writer that died or lost a race."""
    named = {entry.blocks for entry in entries}
    for key in store.keys(f"blocks/ingest_date={shard.ingest_date}"):
        if key.rpartition("/")[2].startswith(f"{shard.shard_id}-") and key not in named:
            yield key


def documents_key(shard: Shard) -> str:
    """Where the `documents` rows of a shard stand."""
    return f"documents/ingest_date={shard.ingest_date}/{shard.shard_id}.parquet"


def _extent(told: dict[str, Any]) -> Extent:
    facts = told.pop("facts")
    facts["error_code"] = _code(facts["error_code"])
    told["error_code"] = _code(told["error_code"])
    for name in ("started_at", "finished_at"):
        told[name] = datetime.fromisoformat(told[name])
    return Extent(**told, facts=DocumentFacts(**facts))


def _code(name: str | None) -> ErrorCode | None:
    return ErrorCode(name) if name else None


def _as_json(value: object) -> str:
    assert isinstance(value, (datetime, date)), value
    return value.isoformat()
