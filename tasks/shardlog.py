"""What is done of a shard: the log of its parts. Nothing else is ever asked.

Part `seq` is committed by creating its `pages` object, which must not exist. Its `blocks` object is
written just before, under a name with its own hash; the footer of `pages` holds that name and the
extents: which pages of which documents the part covers, and each document's facts, fixed from then
on. The slice of part `seq` is computed from the entries before it and no others, so an entry can
repeat none of them. Who loses the race for `seq` reads the log and goes on with what is missing.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import date, datetime
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import ErrorCode, LakeError
from schemas.records import DocumentFacts, Extent, PageResult, Place, Shard
from schemas.tables import BLOCKS
from tasks.rows import blocks_table, pages_table, parquet
from tasks.store import AlreadyExists, Store, keys, read_table

PART = "pagelake.part"
_FOOTERS_AT_ONCE = 8
_TRIES = 10


@dataclass(frozen=True, slots=True)
class Entry:
    """One committed part. `blocks` is the key of its blocks object, None if it has no blocks."""

    seq: int
    pages: str
    blocks: str | None
    extents: tuple[Extent, ...]


class ShardLog:
    """The parts of one shard, read from the store when made, and appended to."""

    def __init__(self, store: Store, shard: Shard) -> None:
        self._store = store
        self._shard = shard
        self.entries: list[Entry] = []
        self.contested = False
        """Whether another writer has committed to the log since it was read."""
        self.refresh()

    def refresh(self) -> None:
        """Read the entries that are there but not yet known."""
        there = set(keys(self._store, self._stem()))
        fresh: list[str] = []
        while (key := self.pages_key(len(self.entries) + len(fresh))) in there:
            fresh.append(key)
        with ThreadPoolExecutor(_FOOTERS_AT_ONCE, thread_name_prefix="footers") as pool:
            self.entries += pool.map(partial(read_entry, self._store), fresh)

    def pages_key(self, seq: int) -> str:
        """Where part `seq` is committed."""
        return f"{self._stem()}{seq:04d}.parquet"

    def position(self) -> tuple[Place, int]:
        """The first page not in the log: the place of its document, and its number."""
        last = self.last()
        return last.next_page if last else ((0, 0), 1)

    def last(self) -> Extent | None:
        """The extent that the log ends with."""
        return self.entries[-1].extents[-1] if self.entries else None

    def extents(self) -> Mapping[Place, list[Extent]]:
        """All extents by the place of their document."""
        found: dict[Place, list[Extent]] = {}
        for entry in self.entries:
            for extent in entry.extents:
                found.setdefault(extent.place, []).append(extent)
        return found

    def _stem(self) -> str:
        return f"pages/ingest_date={self._shard.ingest_date}/{self._shard.shard_id}-"

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
            self.contested = True
            known = len(self.entries)
            self.refresh()
            take_back(self._store, self.entries[known:], blocks, pages)
            return False
        self.entries.append(Entry(len(self.entries), key, blocks, tuple(extents)))
        return True


def put_blocks(store: Store, pages_key: str, table: pa.Table) -> str | None:
    """Write the blocks object of a part under a name with its hash; None if there are none."""
    if not table.num_rows:
        return None
    data = parquet(table)
    stem = pages_key.removeprefix("pages/").removesuffix(".parquet")
    key = f"blocks/{stem}-{hashlib.sha256(data).hexdigest()[:8]}.parquet"
    store.put(key, data)
    return key


def take_back(
    store: Store, entries: Sequence[Entry], blocks: str | None, pages: Sequence[PageResult]
) -> None:
    """Remove what was written for a part that another writer was quicker to commit.

    Args:
        store: the lake.
        entries: what the other has committed.
        blocks: our blocks object, if there is one.
        pages: of which we have written figures. Those of pages that the entries do not hold stay:
            another may be about to commit the same ones.
    """
    if blocks is not None and all(entry.blocks != blocks for entry in entries):
        store.delete(blocks)
    held = {
        (extent.document_id, number)
        for entry in entries
        for extent in entry.extents
        for number in range(extent.first_page, extent.last_page + 1)
    }
    ours = (page.figures for page in pages if (page.document_id, page.page_number) in held)
    with suppress(FileNotFoundError):  # rewritten already, by one who sees to the figures too
        for uri in set().union(*ours) - named_figures(store, entries):
            store.delete(uri)


def named_figures(store: Store, entries: Iterable[Entry]) -> set[str]:
    """The figures that the blocks of these parts name.

    Raises:
        FileNotFoundError: one of the parts has been written anew.
    """
    tables = (read_table(store, each.blocks, BLOCKS) for each in entries if each.blocks is not None)
    return set().union(*map(figures_in, tables))


def figures_in(blocks: pa.Table) -> set[str]:
    """The figures that rows of `blocks` name."""
    return set(blocks["figure_uri"].drop_null().to_pylist())


def entry_footer(blocks: str | None, extents: Sequence[Extent]) -> dict[str, str]:
    """The footer metadata that makes a pages object an entry of the log."""
    told = {"blocks": blocks, "extents": [asdict(extent) for extent in extents]}
    return {PART: json.dumps(told, default=_as_json)}


def read_entry(store: Store, key: str) -> Entry:
    """The entry that a pages object is, from its footer alone."""
    metadata = _footer(store, key)
    if PART.encode() not in metadata:
        raise LakeError(f"{store.address}/{key} is no part of a pagelake lake; remove it")
    told = json.loads(metadata[PART.encode()])
    extents = tuple(_extent(extent) for extent in told["extents"])
    seq = int(key.removesuffix(".parquet").rpartition("-")[2])
    return Entry(seq, key, told["blocks"], extents)


def _footer(store: Store, key: str) -> dict[bytes, bytes]:
    for _ in range(_TRIES):
        try:
            with store.open(key) as file:
                return dict(pq.read_metadata(file).metadata or {})
        except OSError as error:
            if error.errno != errno.EBUSY:  # what s3fs says of an object that was just replaced
                raise
    raise LakeError(f"{store.address}/{key} is being rewritten again and again; try later")


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
