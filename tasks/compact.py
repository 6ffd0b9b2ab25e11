"""Many small parts to few large ones: shards that are done with, written anew as one.

    group of shards ─▶ begun ─▶ blocks, pages, documents of the new shard ─▶ decision ─▶ emptied
       groups.py                            moving.py                   compaction.py  emptying.py

The new shard is a shard like any other: its parts are a log, so that its documents can be mended,
copied, forgotten and merged again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

import pyarrow as pa

from schemas.errors import LakeError, LockLost
from schemas.records import Shard
from schemas.tables import DOCUMENTS
from tasks.compaction import Compaction, begin
from tasks.emptying import finish, remove_old
from tasks.groups import Group, groups
from tasks.lakefiles import shard_of
from tasks.lock import LakeLock
from tasks.moving import Moved, Mover, extents_of, in_order, slices
from tasks.rows import parquet
from tasks.shardlog import Entry, documents_key, entry_footer, put_blocks, read_entry
from tasks.store import Store, read_table

_FOOTERS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Compacted:
    """What a compaction has done; `removed` counts objects that had been empty for a week."""

    shards: int = 0
    parts_before: int = 0
    parts_after: int = 0
    removed: int = 0


def compact(store: Store, lock: LakeLock, run_id: str, part_bytes: int, now: datetime) -> Compacted:
    """Merge small parts until nothing is to be gained any more.

    `tasks.settle.settle` must have been called under this lock.

    Args:
        store: the lake.
        lock: under which it is written.
        run_id: of this compaction; the new shards are named after it.
        part_bytes: what parts are to have; those with less than half of it are small.
        now: by this machine's clock.

    Raises:
        LakeError: the lake is not what it should be.
        LockLost: another writer has taken the lake over.
    """
    done = Compacted(removed=remove_old(store, lock, now))
    number = 0
    before = -1
    while before < number:
        before = number
        for group in groups(store, part_bytes):
            number += 1
            shard = Shard(f"{run_id}-{number:05d}", run_id, group.ingest_date, ())
            parts = _merge(store, lock, group, shard, part_bytes, now)
            done = replace(
                done,
                shards=done.shards + len(group.shards),
                parts_before=done.parts_before + len(group.parts),
                parts_after=done.parts_after + parts,
            )
    return done


def _merge(
    store: Store, lock: LakeLock, group: Group, shard: Shard, part_bytes: int, now: datetime
) -> int:
    """Put one new shard in the place of a group; how many parts it has."""
    compaction = Compaction(shard.shard_id, group.ingest_date, group.shards, now)
    lock.check()
    begin(store, compaction)
    # Read only now: from here on whoever takes the lake over gives this up, or finishes it.
    try:
        parts = _write(store, lock, group, shard, part_bytes)
    except (FileNotFoundError, LakeError) as error:
        lock.check()  # whoever took the lake over has emptied what we were reading
        if isinstance(error, LakeError):
            raise
        raise LakeError(
            f"a file of {store.address} is missing, so its shard cannot be merged; restore it: "
            f"{error}"
        ) from None
    if not finish(store, lock, compaction):
        raise LockLost(
            f"another writer took {store.address} over and gave up merging {len(group.shards)} "
            "shards; nothing is lost, run the command again"
        )
    return parts


def _write(store: Store, lock: LakeLock, group: Group, shard: Shard, part_bytes: int) -> int:
    """Write the files of the new shard; how many parts they are."""
    logs = _logs(store, group)
    documents = {
        shard_id: read_table(store, documents_key(replace(shard, shard_id=shard_id)), DOCUMENTS)
        for shard_id in group.shards
    }
    moved = in_order(logs, documents, store.address)
    most_pages = -(-sum(each.pages for each in moved) // group.fewer(part_bytes))
    mover = Mover(store, logs, moved)
    seq = -1
    for seq, part in enumerate(slices(moved, most_pages)):
        key = f"pages/ingest_date={group.ingest_date}/{shard.shard_id}-{seq:04d}.parquet"
        lock.check()
        blocks = put_blocks(store, key, _renamed(mover.blocks(part), shard))
        pages = mover.pages(part)
        footer = entry_footer(blocks, extents_of(moved, part, pages))
        store.create(key, parquet(_renamed(pages, shard), footer))
    lock.check()
    rows = _renamed(_documents(moved, documents), shard)
    store.create(documents_key(shard), parquet(rows))
    return seq + 1


def _logs(store: Store, group: Group) -> dict[str, list[Entry]]:
    logs: dict[str, list[Entry]] = {shard_id: [] for shard_id in group.shards}
    with ThreadPoolExecutor(_FOOTERS_AT_ONCE, thread_name_prefix="footers") as pool:
        for entry in pool.map(partial(read_entry, store), [part.key for part in group.parts]):
            logs[shard_of(entry.pages)].append(entry)
    return logs


def _documents(moved: Sequence[Moved], documents: Mapping[str, pa.Table]) -> pa.Table:
    """The rows of `documents` in the new order."""
    starts, rows = dict[str, int](), 0
    for shard_id, table in documents.items():
        starts[shard_id] = rows
        rows += table.num_rows
    order = [starts[each.shard_id] + each.row for each in moved]
    return pa.concat_tables(documents.values()).take(pa.array(order, pa.int64()))


def _renamed(rows: pa.Table, shard: Shard) -> pa.Table:
    """Rows that say which shard's files hold them now."""
    at = rows.schema.get_field_index("shard_id")
    column = pa.array([shard.shard_id] * rows.num_rows, pa.string())
    return rows.set_column(at, rows.schema.field(at), column)
