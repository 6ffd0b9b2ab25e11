"""New Markdown, text and blocks of pages that an older parser made, out of `raw_output`.

    part ─▶ rows of another parser ─▶ worker processes ─▶ the part written anew in its place

Nothing else changes: keys, failures, figures, and what was paid. Killed anywhere, the next call
goes on: the rows of a part say which parser made them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import groupby

import pyarrow as pa

from schemas.records import Shard
from schemas.tables import DOCUMENTS
from tasks.compaction import overlay
from tasks.lakefiles import shard_of
from tasks.lock import LakeLock
from tasks.parseagain import parser_version
from tasks.pool import WorkerPool
from tasks.reparsepart import PartParser
from tasks.rewrite import keeps_changing, read_part, rewrite, write_part
from tasks.rows import parquet
from tasks.shardlog import Entry, documents_key, read_entry
from tasks.store import Store, keys, read_rows
from tasks.unfinished import unfinished

_TRIES = 10
_SECONDS_TO_LOAD = 120.0


@dataclass(frozen=True, slots=True)
class Reparsed:
    """Pages of another parser, by what has become of them.

    `parsed` are new; `kept` need the image to be parsed, or a model that is not known any more;
    `failed` are as they were, since the parser did not survive them.
    """

    parser_version: str
    parsed: int = 0
    kept: int = 0
    failed: int = 0


async def reparse(store: Store, lock: LakeLock, pool: WorkerPool, seconds: float) -> Reparsed:
    """Parse all pages anew that another parser made, one part after another.

    `tasks.settle.settle` must have been called under this lock.

    Args:
        store: the lake.
        lock: under which it is written.
        pool: where parsing is done.
        seconds: that one page may take.

    Raises:
        LakeError: the lake is not what it should be.
        LockLost: another writer has taken the lake over.
    """
    version = await pool.run(_SECONDS_TO_LOAD, parser_version)
    return await _Walk(store, lock, PartParser(store, pool, seconds, version), version).over()


class _Walk:
    """One way through the lake, date after date, shard after shard."""

    def __init__(self, store: Store, lock: LakeLock, parser: PartParser, version: str) -> None:
        self._store = store
        self._lock = lock
        self._parser = parser
        self._done = Reparsed(version)
        self._hidden = overlay(store)
        self._to_do = unfinished(store)

    async def over(self) -> Reparsed:
        """Do it all."""
        for folder in await asyncio.to_thread(self._store.folders, "pages"):
            day = date.fromisoformat(folder.removeprefix("ingest_date="))
            listed = await asyncio.to_thread(list, keys(self._store, f"pages/{folder}/"))
            named: dict[str, set[str | None]] = {}
            for shard_id, parts in groupby(listed, shard_of):
                if self._hidden.shows(shard_id):
                    shard = Shard(shard_id, "", day, ())
                    entries = [await self._part(shard, key) for key in parts]
                    await asyncio.to_thread(self._recount, shard, entries)
                    named[shard_id] = {entry.blocks for entry in entries}
            await asyncio.to_thread(self._tidy, folder, named)
        return self._done

    async def _part(self, shard: Shard, key: str) -> Entry:
        """Parse a part anew, if there is anything to; its entry in the log as it is then."""
        found: Counter[bool] = await asyncio.to_thread(self._parser.look, key)
        self._done = replace(self._done, kept=self._done.kept + found[False])
        if found[True]:
            await self._parse(shard, key)
        return await asyncio.to_thread(read_entry, self._store, key)

    async def _parse(self, shard: Shard, key: str) -> None:
        for _ in range(_TRIES):
            part = await asyncio.to_thread(read_part, self._store, key)
            anew = await self._parser.parse(part, shard)
            if not anew.parsed or await asyncio.to_thread(
                write_part, self._store, self._lock, part, anew.pages, anew.blocks, anew.extents
            ):
                self._done = replace(
                    self._done,
                    parsed=self._done.parsed + anew.parsed,
                    failed=self._done.failed + anew.failed,
                )
                return
        raise keeps_changing(self._store, key)

    def _recount(self, shard: Shard, entries: Sequence[Entry]) -> None:
        """Let `documents` say how many pages have text now, as the log does."""
        extents = [extent for entry in entries for extent in entry.extents]
        ok, empty = Counter[str](), Counter[str]()
        for extent in extents:
            ok[extent.document_id] += extent.pages_ok
            empty[extent.document_id] += extent.pages_empty

        def change(data: bytes) -> bytes:
            rows = read_rows(data, DOCUMENTS)
            new = rows.to_pylist()
            for row in new:
                counts = ok[row["document_id"]], empty[row["document_id"]]
                # Else failures of it are being mended, and whoever does that counts them.
                if sum(counts) == row["pages_ok"] + row["pages_empty"]:
                    row["pages_ok"], row["pages_empty"] = counts
            table = pa.Table.from_pylist(new, schema=DOCUMENTS)
            return data if table.equals(rows) else parquet(table)

        rewrite(self._store, self._lock, documents_key(shard), change)

    def _tidy(self, folder: str, named: dict[str, set[str | None]]) -> None:
        """Remove blocks that no part names: left by who died before it could delete them."""
        for key in list(keys(self._store, f"blocks/{folder}/")):
            shard_id = shard_of(key)
            if self._to_do.writes_to(shard_id):  # to the same name, perhaps, at any moment
                continue
            if shard_id in named and key not in named[shard_id]:
                self._lock.check()
                self._store.delete(key)
