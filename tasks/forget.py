"""A document taken out of the lake: its rows, figures and address, of all its versions.

    note ─▶ each shard: parts (rows out, the extent blanked) ─▶ figures ─▶ documents ─▶ plans ─▶ ✓

The note, `_runs/forgetting/<token>`, holds the address until all is done: whoever writes to the
lake next finishes what was begun, so that nobody ever copies a document of which half is gone.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, replace
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import UsageError
from schemas.records import Extent
from schemas.tables import DOCUMENTS
from tasks.address import Found, blank_in_plan, find, is_of, near, refuse_if_open
from tasks.blank import blanked
from tasks.emptying import files_of
from tasks.lock import LakeLock
from tasks.rewrite import keeps_changing, read_part, rewrite, write_part
from tasks.rows import parquet, storable
from tasks.shardlog import read_entry
from tasks.store import Store, keys, read_rows
from tasks.unfinished import unfinished

_NOTES = "_runs/forgetting/"
_TRIES = 10


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What has gone: rows of each table, and figures."""

    uri: str
    documents: int = 0
    pages: int = 0
    blocks: int = 0
    figures: int = 0


def forget(store: Store, lock: LakeLock, uri: str) -> Forgotten:
    """Take a document out of every file of the lake; an archive with all its members.

    `tasks.settle.settle` must have been called under this lock.

    Raises:
        UsageError: nothing in the lake has this address.
        LakeError: an unfinished run has it still to read.
    """
    uri = storable(uri)
    refuse_if_open(store, uri)
    found = find(store, uri)
    if not found:
        alike = near(store, uri)
        hint = f"did you mean {' or '.join(alike)}?" if alike else "see source_uri in documents"
        raise UsageError(f"nothing in {store.address} has the address {uri}; {hint}")
    lock.check()
    note = f"{_NOTES}{uuid.uuid4().hex}"
    store.create(note, json.dumps({"uri": uri}).encode())
    return _take_out(store, lock, uri, found, note)


def finish_forgetting(store: Store, lock: LakeLock) -> list[Forgotten]:
    """Finish what others have begun to forget; what was left of it."""
    done = []
    for note in list(keys(store, _NOTES)):
        try:
            uri = json.loads(store.read(note)[0])["uri"]
        except FileNotFoundError:  # whoever began it has woken and finished
            continue
        done.append(_take_out(store, lock, uri, find(store, uri), note))
    return done


def _take_out(store: Store, lock: LakeLock, uri: str, found: Found, note: str) -> Forgotten:
    gone = Forgotten(uri, documents=found.rows)
    to_do = unfinished(store)
    for (day, shard_id), ids in found.shards.items():
        for key in files_of(store, "pages", day, {shard_id}):
            pages, blocks = _out_of_part(store, lock, key, uri, ids)
            gone = replace(gone, pages=gone.pages + pages, blocks=gone.blocks + blocks)
        lock.check()
        if not to_do.writes_to(shard_id):  # to the same names, perhaps, at any moment
            for key in _nobodys_blocks(store, day, shard_id):
                store.delete(key)
        for key in [key for each in sorted(ids) for key in keys(store, f"figures/{each}/")]:
            store.delete(key)
            gone = replace(gone, figures=gone.figures + 1)
        # Last of the shard: by these rows it is found again if we die before.
        _out_of_documents(store, lock, f"documents/ingest_date={day}/{shard_id}.parquet", ids)
    for key in found.plans:
        rewrite(store, lock, key, blank_in_plan(uri))
    store.delete(note)
    return gone


def _out_of_part(
    store: Store, lock: LakeLock, key: str, uri: str, ids: frozenset[str]
) -> tuple[int, int]:
    """How many rows of pages and of blocks have gone."""

    def concerns(extent: Extent) -> bool:
        return extent.document_id in ids or (extent.uri is not None and is_of(uri, extent.uri))

    for _ in range(_TRIES):
        if not any(map(concerns, read_entry(store, key).extents)):
            return 0, 0
        part = read_part(store, key)
        mine = [extent.document_id for extent in part.entry.extents if concerns(extent)]
        pages, blocks = _without(part.pages, mine), _without(part.blocks, mine)
        extents = [blanked(each) if concerns(each) else each for each in part.entry.extents]
        if write_part(store, lock, part, pages, blocks, extents):
            return part.pages.num_rows - pages.num_rows, part.blocks.num_rows - blocks.num_rows
    raise keeps_changing(store, key)


def _nobodys_blocks(store: Store, day: date, shard_id: str) -> list[str]:
    """Blocks objects that no part names: of a finished shard, left by a worker that died."""
    parts = files_of(store, "pages", day, {shard_id})
    named = {read_entry(store, key).blocks for key in parts}
    return [key for key in files_of(store, "blocks", day, {shard_id}) if key not in named]


def _out_of_documents(store: Store, lock: LakeLock, key: str, ids: frozenset[str]) -> None:
    def change(data: bytes) -> bytes:
        rows = read_rows(data, DOCUMENTS)
        kept = _without(rows, list(ids))
        return parquet(kept) if kept.num_rows < rows.num_rows else data

    rewrite(store, lock, key, change)


def _without(rows: pa.Table, ids: list[str]) -> pa.Table:
    gone = pc.is_in(rows["document_id"], value_set=pa.array(ids, pa.string()))
    return rows.filter(pc.invert(gone))
